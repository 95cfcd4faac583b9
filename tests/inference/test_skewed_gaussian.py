"""A skewed normal: density, draws and inverse agree, and a skewed posterior is met better than by a normal."""

from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.integrate import quad

from bayesref.inference import laplace
from bayesref.inference.skewed_gaussian import STEEP, SkewedGaussian

D = {"dtype": torch.float64}


class LogVariance:
    """f = ½ n (y + e^-y): a log variance that n squares tell, y* = 0, h = n/2, g = -n/2."""

    def __init__(self, n, size=1):
        self.n, self.groups, self.size = n, [], size

    def value_and_grad(self, y):
        return float(-0.5 * self.n * (y + torch.exp(-y)).sum()), -0.5 * self.n * (1 - torch.exp(-y))


def skewed(n=8.0, size=1, wider=1.0):
    problem = LogVariance(n, size)
    y = torch.zeros(size, **D)
    return problem, SkewedGaussian(
        problem, SimpleNamespace(y=y, mean=y, covariance=torch.eye(size, **D) * 2 / n), wider
    )


def test_it_integrates_to_one_and_draws_follow_it():
    _, law = skewed()
    assert quad(lambda y: np.exp(law.log_prob([[y]]))[0], -8, 8, limit=200)[0] == pytest.approx(1, abs=1e-8)
    y, log_q = law.sample(20_000, np.random.default_rng(1))
    np.testing.assert_allclose(law.log_prob(y), log_q, atol=1e-9)
    for power in (1, 2, 3):
        moment = quad(lambda y, p=power: y**p * np.exp(law.log_prob([[y]]))[0], -8, 8, limit=200)[0]
        assert np.mean(y**power) == pytest.approx(moment, abs=5 * np.std(y**power) / len(y) ** 0.5)


@pytest.mark.parametrize("a", [-0.5, -1e-13, 0.0, 0.3, 2.0])
def test_the_inverse_far_out(a):
    _, law = skewed()
    law.a = np.array([a])
    law.s = np.minimum(3.0, STEEP / np.maximum(np.abs(law.a), 1e-12))
    x = np.linspace(-30, 30, 41)[:, None]
    bent, log_slope = law._bend(x)
    np.testing.assert_allclose(law._straight(bent), x, atol=1e-9)
    step = 1e-6
    slope = (law._bend(x + step)[0] - law._bend(x - step)[0]) / (2 * step)
    np.testing.assert_allclose(np.log(slope[:, 0]), log_slope, atol=1e-7)


def test_weights_are_even_where_those_of_a_normal_are_not():
    problem, law = skewed(size=1)
    y, log_q = law.sample(4000, np.random.default_rng(2))
    f = 0.5 * problem.n * (y + np.exp(-y))[:, 0]
    log_w = -f - log_q
    normal = np.random.default_rng(2).normal(size=4000) * (2 / problem.n) ** 0.5
    plain = -0.5 * problem.n * (normal + np.exp(-normal)) + 0.25 * problem.n * normal**2
    assert log_w.std() < 0.35 * plain.std()
    w = np.exp(log_w - log_w.max())
    exact = [
        quad(lambda y, p=p: y**p * np.exp(-0.5 * problem.n * (y + np.exp(-y) - 1)), -5, 8)[0] for p in (0, 1)
    ]
    assert (w * y[:, 0]).sum() / w.sum() == pytest.approx(exact[1] / exact[0], abs=0.03)


def test_many_log_variances_leave_good_weights():
    def model(squares):
        v = pyro.sample("v", dist.Normal(torch.zeros(60, **D), 30.0).to_event(1))
        law = dist.Gamma(4.0, 0.5 * torch.exp(-v))  # a sum of eight squares of this variance
        pyro.sample("F_obs", law, obs=squares)

    g = torch.Generator().manual_seed(5)
    squares = torch.distributions.Chi2(torch.tensor(8.0, **D)).sample((60,)) * torch.rand(
        60, generator=g, **D
    )
    p = laplace.fit_small(model, (squares,), n_starts=1, n_draws=400)
    assert p.k_hat < laplace.TAIL
    assert not p.notes
    assert len(p.y.unique(dim=0)) > 300  # of 400; a normal leaves 219
    # Exact, but for the prior, which is flat here: 8 squares of sum S: S/V is chi squared.
    middle = squares.log() - torch.digamma(torch.tensor(4.0, **D)) - np.log(2.0)
    assert float((p.sites["v"].mean(0) - middle).mean()) == pytest.approx(0, abs=0.03)
