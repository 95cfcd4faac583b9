"""The normal density cut off by bounds: normalised, and drawn as it says."""

import numpy as np
import pytest
import torch

from bayesref.inference.laplace import fit_small
from bayesref.inference.truncated_gaussian import TruncatedGaussian

C = np.array([[0.04, 0.01, 0.005], [0.01, 0.05, -0.01], [0.005, -0.01, 0.3]])


def grid(n=200):
    """Points of the triangle a + b < 1, and the area each stands for."""
    x = (np.arange(n) + 0.5) / n
    a, share = (v.ravel() for v in np.meshgrid(x, x, indexing="ij"))
    return a, (1 - a) * share, (1 - a) / n**2


@pytest.mark.parametrize("mean", [(0.3, 0.2, 1.0), (-0.2, 0.5, 0.0), (0.7, 0.8, 0.0), (-0.9, -0.8, 0.0)])
def test_it_is_normalised_over_the_simplex(mean):
    law = TruncatedGaussian(mean, C, [[0, 1]])
    a, b, area = grid()
    c = np.linspace(-4, 5, 91)
    total = 0.0
    for x in c:
        total += (np.exp(law.log_prob(np.stack([a, b, np.full_like(a, x)], 1))) * area).sum() * (c[1] - c[0])
    assert total == pytest.approx(1, abs=0.015)


def test_draws_have_the_density_that_is_said():
    law = TruncatedGaussian((0.1, 0.7, 0.5), C, [[0, 1]])
    y, log_q, log_mass = law.sample(20_000, np.random.default_rng(1))
    assert (y[:, :2] >= 0).all()
    assert (y[:, :2].sum(1) <= 1 + 1e-9).all()
    np.testing.assert_allclose(law.log_prob(y), log_q, atol=1e-6)
    a, b, area = grid(150)
    c = np.linspace(-3, 4, 71)
    points = [np.stack([a, b, np.full_like(a, x)], 1) for x in c]
    q = np.concatenate([np.exp(law.log_prob(p)) * area for p in points])
    mean = (np.concatenate(points) * q[:, None]).sum(0) / q.sum()
    np.testing.assert_allclose(y.mean(0), mean, atol=0.01)
    free = np.random.default_rng(2).multivariate_normal((0.1, 0.7, 0.5), C, 200_000)[:, :2]
    inside = (free >= 0).all(1) & (free.sum(1) <= 1)
    assert np.exp(log_mass).mean() == pytest.approx(inside.mean(), rel=0.03)


def test_occupancies_at_their_bounds_are_drawn_well():
    """A Dirichlet prior and normal data that pull one fraction below zero: against a sum over the simplex."""
    import pyro
    import pyro.distributions as dist

    data = torch.tensor([-0.05, 0.3], dtype=torch.float64)

    def model(y):
        o = pyro.sample("o", dist.Dirichlet(torch.ones(3, dtype=torch.float64)))
        pyro.sample("F_obs", dist.Normal(o[:2], torch.tensor(0.1, dtype=torch.float64)), obs=y)

    p = fit_small(model, (data,), n_starts=2, n_draws=2000)
    a, b, area = grid(400)
    w = np.exp(-0.5 * ((a + 0.05) ** 2 + (b - 0.3) ** 2) / 0.01) * area
    assert p.k_hat < 0.5
    assert float(p.sites["o"][:, 0].mean()) == pytest.approx((a * w).sum() / w.sum(), abs=0.004)
    assert float(p.sites["o"][:, 1].mean()) == pytest.approx((b * w).sum() / w.sum(), abs=0.008)
    evidence = np.log(2 * w.sum() / (2 * np.pi * 0.01))
    assert p.log_evidence == pytest.approx(evidence, abs=0.1)
