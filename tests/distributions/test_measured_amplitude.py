"""Evidence of a merged measurement under Rice and Woolfson priors, against scipy and against other quadrature."""

import itertools

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from bayesref._checks import InputError
from bayesref.distributions import AmplitudePosterior, RiceWoolfson
from bayesref.distributions.measured_amplitude import log_evidence, measured_amplitude

# G, V, centric, value, sigma: well measured, weak, negative, discordant, nearly exact model, nearly no model
CASES = [
    (10.0, 5.0, False, 90.0, 8.0),
    (10.0, 5.0, True, 130.0, 8.0),
    (1.0, 4.0, False, 0.5, 6.0),
    (0.3, 4.0, True, -12.0, 4.0),
    (0.0, 9.0, False, 4.0, 1.0),
    (30.0, 2.0, False, 100.0, 20.0),
    (2.0, 3.0, True, 600.0, 30.0),
    (50.0, 1e-3, False, 2400.0, 90.0),
    (0.1, 1e4, False, 70.0, 3.0),
    (6.0, 0.05, False, 4.0, 1.5),  # a sharp model far above the measurement, and below it
    (1.0, 0.05, True, 9.0, 0.6),
]


def columns(cases=CASES):
    G, V, centric, y, sigma = zip(*cases, strict=True)
    real = [torch.tensor(x, dtype=torch.float64) for x in (G, V, y, sigma)]
    return real[0], real[1], torch.tensor(centric), real[2], real[3]


def integral(G, V, centric, y, sigma, kind, f=lambda F, prior: 1.0):
    """∫ f p(F) p(y | F) dF by scipy, its nodes told where the peaks are."""
    prior = RiceWoolfson(
        torch.tensor(G, dtype=torch.float64), torch.tensor(V, dtype=torch.float64), torch.tensor(centric)
    )

    def integrand(F):
        r = ((F * F if kind == "I" else F) - y) / sigma
        log_p = float(prior.log_prob(torch.tensor(F, dtype=torch.float64)))
        return f(F, prior) * np.exp(log_p - 0.5 * r * r) / (np.sqrt(2 * np.pi) * sigma)

    top = G + 12 * np.sqrt(V) + (np.sqrt(max(y, 0) + 10 * sigma) if kind == "I" else max(y, 0) + 10 * sigma)
    peak = np.sqrt(max(y, 0)) if kind == "I" else max(y, 0)
    edges = np.unique(np.clip(np.concatenate([np.linspace(0, top, 60), [G, peak]]), 1e-12, top))
    pieces = itertools.pairwise(edges)
    return sum(quad(integrand, a, b, epsabs=0, epsrel=1e-10, limit=200)[0] for a, b in pieces)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("kind", ["I", "F"])
@pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")
def test_evidence_and_moments_against_scipy(case, kind):
    m = measured_amplitude(*columns([case]), kind)
    Z = integral(*case, kind)
    assert float(m.log_evidence) == pytest.approx(np.log(Z), abs=1e-7)
    assert float(m.F) == pytest.approx(integral(*case, kind, lambda F, p: F) / Z, rel=1e-7)
    assert float(m.F2) == pytest.approx(integral(*case, kind, lambda F, p: F * F) / Z, rel=1e-7)


@pytest.mark.parametrize("kind", ["I", "F"])
def test_slopes_and_curvature_are_derivatives(kind):
    G, V, *rest = columns()
    m = measured_amplitude(G, V, *rest, kind)
    dG, dV = 1e-4 * V.sqrt(), 1e-4 * V
    up, down = (measured_amplitude(G + s * dG, V, *rest, kind) for s in (1, -1))
    # The density at G = 0 is even in G, so that the one-sided difference below zero is not defined.
    inside = G > 0
    slope = (up.log_evidence - down.log_evidence) / (2 * dG)
    torch.testing.assert_close(m.slope_G[inside], slope[inside], rtol=1e-5, atol=1e-6)
    curve = (up.slope_G - down.slope_G) / (2 * dG)
    torch.testing.assert_close(m.curvature_G[inside], curve[inside], rtol=1e-4, atol=1e-4)
    up, down = (measured_amplitude(G, V + s * dV, *rest, kind) for s in (1, -1))
    slope = (up.log_evidence - down.log_evidence) / 2e-4  # in log V
    torch.testing.assert_close(m.slope_V * V, slope, rtol=1e-5, atol=1e-6)


def test_agrees_with_the_amplitude_posterior():
    g = torch.Generator().manual_seed(0)
    n = 2000
    G = 100 * torch.rand(n, generator=g).double()
    V = 10 ** (4 * torch.rand(n, generator=g).double() - 1)
    centric = torch.rand(n, generator=g) < 0.2
    sigma = 10 ** (3 * torch.rand(n, generator=g).double())
    prior = RiceWoolfson(G, V, centric)
    I = prior.sample() ** 2 + 2 * sigma * torch.randn(n, generator=g).double()
    q = AmplitudePosterior(prior, sigma**-2, I / sigma**2, n_node=96)
    constant = 0.5 * (I / sigma) ** 2 + sigma.log() + 0.5 * np.log(2 * np.pi)
    m = measured_amplitude(G, V, centric, I, sigma, "I")
    torch.testing.assert_close(m.log_evidence, q.log_normalizer - constant, rtol=0, atol=1e-5)
    torch.testing.assert_close(m.F, q.mean, rtol=1e-6, atol=0)


def test_phased_amplitude_is_the_mean_along_the_model():
    """E[F m] = E|F| cos φ: by sampling F = |G + z| with the phase that it had."""
    g = torch.Generator().manual_seed(1)
    n, G, V, y, sigma = 400_000, 4.0, 6.0, 25.0, 6.0
    z = torch.complex(*(torch.randn(2, n, generator=g).double() * (V / 2) ** 0.5)) + G
    weight = torch.exp(-0.5 * ((z.abs() ** 2 - y) / sigma) ** 2)
    m = measured_amplitude(*columns([(G, V, False, y, sigma)]), "I")
    assert float((weight * z.real).sum() / weight.sum()) == pytest.approx(float(m.phased), rel=5e-3)


def test_autograd():
    G, V, *rest = columns()
    G, V = G.requires_grad_(), V.requires_grad_()
    log_evidence(G, V, *rest, "I").sum().backward()
    m = measured_amplitude(G, V, *rest, "I")
    torch.testing.assert_close(G.grad, m.slope_G)
    torch.testing.assert_close(V.grad, m.slope_V)


def test_unknown_kind():
    with pytest.raises(InputError, match="kind I or F"):
        measured_amplitude(*columns(), "E")
