"""Models of few parameters: exact where the posterior is normal, and honest where it is not."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from bayesref.inference.laplace import fit_small

D = {"dtype": torch.float64}
Y = torch.tensor([1.2, 0.7, 2.0, 1.1], **D)


def line(y):
    m = pyro.sample("m", dist.Normal(torch.tensor(0.0, **D), 2.0))
    pyro.deterministic("twice", 2 * m)
    with pyro.plate("n", len(y)):
        pyro.sample("F_obs", dist.Normal(m, torch.tensor(0.5, **D)), obs=y)


@pytest.mark.parametrize("method", ["laplace", "nuts"])
def test_a_normal_posterior_is_exact(method):
    p = fit_small(line, (Y,), n_starts=2, n_draws=600, method=method)
    precision = 1 / 4 + 4 / 0.25
    mean = float(Y.sum()) / 0.25 / precision
    assert float(p.sites["m"].mean()) == pytest.approx(mean, abs=0.04)
    assert float(p.sites["m"].std()) == pytest.approx(precision**-0.5, rel=0.12)
    torch.testing.assert_close(p.sites["twice"], 2 * p.sites["m"])
    cov = 0.25 * torch.eye(4, **D) + 4.0
    evidence = float(dist.MultivariateNormal(torch.zeros(4, **D), cov).log_prob(Y))
    assert p.log_evidence == pytest.approx(evidence, abs=1e-3)
    assert p.log_likelihood.shape == (600, 4)
    assert len(p.modes) == 1


def test_two_modes_are_found_and_said():
    def square(y):
        m = pyro.sample("m", dist.Normal(torch.tensor(0.1, **D), 3.0))
        pyro.sample("F_obs", dist.Normal(m**2, torch.tensor(0.2, **D)).expand([1]), obs=y)

    p = fit_small(square, (torch.tensor([4.0], **D),), n_starts=8, n_draws=400)
    assert len(p.modes) == 2
    assert any("more than one mode" in note for note in p.notes)
    assert 0.3 < float((p.sites["m"] > 0).double().mean()) < 0.7


def test_a_poor_gaussian_is_admitted():
    def funnel(y):
        v = pyro.sample("v", dist.Normal(torch.tensor(0.0, **D), 3.0))
        with pyro.plate("k", 9):
            x = pyro.sample("x", dist.Normal(torch.zeros(9, **D), (v / 2).exp()))
        pyro.sample("F_obs", dist.Normal(x.sum(), torch.tensor(math.e, **D)).expand([1]), obs=y)

    p = fit_small(funnel, (torch.tensor([0.3], **D),), n_starts=2, n_draws=300)
    assert p.k_hat > 0.5 or p.notes


def test_several_observed_sites():
    def two(y, x):
        m = pyro.sample("m", dist.Normal(torch.tensor(0.0, **D), 2.0))
        pyro.sample("one", dist.Normal(m, torch.tensor(0.5, **D)).expand([len(y)]), obs=y)
        pyro.sample("other", dist.Normal(2 * m, torch.tensor(1.0, **D)).expand([len(x)]), obs=x)

    X = torch.tensor([2.1, 3.0], **D)
    p = fit_small(two, (Y, X), observed=("one", "other"), n_starts=1, n_draws=500, n_replicates=400)
    precision = 1 / 4 + 4 / 0.25 + 2 * 4
    mean = (float(Y.sum()) / 0.25 + 2 * float(X.sum())) / precision
    assert float(p.sites["m"].mean()) == pytest.approx(mean, abs=0.04)
    m = p.sites["m"][:, None]
    expected = torch.cat([dist.Normal(m, 0.5).log_prob(Y), dist.Normal(2 * m, 1.0).log_prob(X)], 1)
    torch.testing.assert_close(p.log_likelihood, expected)
    assert p.replicates["one"].shape == (400, 4)
    assert float(p.replicates["other"].mean()) == pytest.approx(2 * mean, abs=0.15)
