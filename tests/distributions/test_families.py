"""Parametric families: each fit against its own optimum by scipy on a dense grid, and laws that need no fit."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import minimize

from bayesref._checks import InputError
from bayesref.distributions import AmplitudePosterior, NodePosterior, RiceWoolfson, TruncatedNormal, Wilson
from bayesref.distributions.families import FAMILIES, fit_family

# scipy's densities, by two unbounded parameters
SCIPY = {
    "truncated-normal": lambda u, v: stats.truncnorm(-u / np.exp(v), np.inf, u, np.exp(v)),
    "folded-normal": lambda u, v: stats.foldnorm(abs(u) / np.exp(v), 0, np.exp(v)),
    "rice": lambda u, v: stats.rice(abs(u) / np.exp(v), 0, np.exp(v)),
    "gamma": lambda u, v: stats.gamma(np.exp(u), 0, np.exp(v)),
}


def on_nodes(log_density, lo, hi, n=64):
    p = NodePosterior.of(log_density, lo, hi, n)
    return p, p.log_weight + p.log_normalizer - p.log_density


@pytest.fixture(scope="module")
def posterior():
    """Of acentric and centric reflections, absent, weak and strong."""
    a = torch.tensor([0.5, 2.0, 20.0, 500.0] * 2, dtype=torch.float64)
    J = torch.tensor([-1.0, 0.2, 0.5, 2.0] * 2, dtype=torch.float64)
    centric = torch.arange(8) >= 4
    q = AmplitudePosterior(Wilson(torch.ones(8, dtype=torch.float64), centric), a, a * J)
    return q, *on_nodes(
        q.log_prob, torch.full((8,), 1e-9, dtype=torch.float64), q.mean + 9 * q.variance.sqrt()
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_each_reflection_reaches_its_optimum(name, posterior):
    q, p, measure = posterior
    fit = fit_family(name, p.F, p.log_weight, measure)
    for i in range(8):
        F = (np.arange(20000) + 0.5) * float(p.hi[i]) / 20000
        grid = torch.from_numpy(F)[:, None].expand(-1, 8)
        log_p = q.log_prob(grid)[:, i].numpy()

        def gap(x, F=F, log_p=log_p):
            """KL(q ‖ p) by a dense grid; what q has beyond it is forbidden."""
            log_q = np.maximum(SCIPY[name](*x).logpdf(F), -1e3)
            mass = np.exp(log_q) * (F[1] - F[0])
            return float(np.sum(mass * (log_q - log_p))) + 1e3 * max(0.0, 1 - mass.sum() - 1e-3)

        mean, sd = float(q.mean[i]), float(q.variance[i]) ** 0.5
        start = [2 * np.log(mean / sd), np.log(sd**2 / mean)] if name == "gamma" else [mean, np.log(sd)]
        options = {"xatol": 1e-5, "fatol": 1e-8, "maxiter": 400}
        best = minimize(gap, start, method="Nelder-Mead", options=options)
        assert float(fit.gap[i]) == pytest.approx(best.fun, abs=2e-4)
        density = SCIPY[name](*best.x).pdf(F)
        assert float(fit.law.mean[i]) == pytest.approx(np.sum(density * F) / density.sum(), abs=0.01 * sd)


@pytest.mark.parametrize("name", FAMILIES)
def test_kernel_is_the_density_of_the_law(name, posterior):
    _, p, measure = posterior
    fit = fit_family(name, p.F, p.log_weight, measure)
    difference = fit.law.log_prob(p.F) - fit.log_kernel
    torch.testing.assert_close(difference, difference[:1].expand_as(difference), rtol=0, atol=1e-8)
    by_nodes = NodePosterior(p.lo, p.hi, fit.log_kernel)
    torch.testing.assert_close(by_nodes.mean, fit.law.mean, rtol=2e-3, atol=0)
    torch.testing.assert_close(by_nodes.variance, fit.law.variance, rtol=2e-2, atol=0)


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("truncated-normal", lambda m, s: TruncatedNormal(m, s)),
        ("folded-normal", lambda m, s: RiceWoolfson(m, s**2, torch.ones_like(m) > 0)),
        ("rice", lambda m, s: RiceWoolfson(m, 2 * s**2, torch.ones_like(m) < 0)),
        ("gamma", lambda m, s: torch.distributions.Gamma((m / s) ** 2, m / s**2)),
    ],
)
def test_a_member_of_the_family_is_found_again(name, law):
    m, s = (
        torch.tensor([2.0, 1.0, 6.0], dtype=torch.float64),
        torch.tensor([0.5, 0.4, 1.0], dtype=torch.float64),
    )
    truth = law(m, s)
    p, measure = on_nodes(truth.log_prob, torch.full_like(m, 1e-9), m + 12 * s)
    fit = fit_family(name, p.F, p.log_weight, measure)
    assert (fit.gap.abs() < 1e-8).all()
    torch.testing.assert_close(fit.law.mean, truth.mean, rtol=1e-4, atol=0)
    torch.testing.assert_close(fit.law.variance, truth.variance, rtol=1e-3, atol=0)


def test_wilsons_prior_is_rice_and_folded_normal_about_zero():
    one = torch.ones(1, dtype=torch.float64)
    for name, centric in (("rice", one < 0), ("folded-normal", one > 0)):
        prior = Wilson(one, centric)
        p, measure = on_nodes(prior.log_prob, 1e-9 * one, 7 * one)
        fit = fit_family(name, p.F, p.log_weight, measure)
        assert 0 <= float(fit.gap) + 1e-12 < 1e-4
        assert float(fit.law.loc) < 0.2


def test_the_gap_is_never_below_zero_and_small_where_data_are_strong(posterior):
    _, p, measure = posterior
    for name in FAMILIES:
        gap = fit_family(name, p.F, p.log_weight, measure).gap
        assert (gap > -1e-10).all()
        assert float(gap[3]) < 1e-3 < float(gap[0]) + 1e-3


def test_unknown_family(posterior):
    _, p, measure = posterior
    with pytest.raises(InputError, match="truncated-normal, folded-normal, rice, gamma"):
        fit_family("beta", p.F, p.log_weight, measure)
