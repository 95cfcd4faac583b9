"""The law of a measured intensity against numerical integration, scipy's densities and its own draws."""

import math
from itertools import pairwise

import numpy as np
import pyro
import pytest
import scipy.stats
import torch
from pyro import poutine
from scipy.integrate import quad

from bayesref.distributions import SpotIntensity

D = {"dtype": torch.float64}
# ν, loc, scale, π, scale₀: blanks beside a strong spot; rare blanks; none; heavy tails
CASES = [
    (5.0, 40.0, 3.0, 0.2, 2.0),
    (17.0, 1.0, 2.0, 0.01, 1.5),
    (4.0, -3.0, 0.5, 0.0, 1.0),
    (2.1, 9, 1, 0.5, 4),
]


def law(case, **options):
    return SpotIntensity(*(torch.tensor(x, **D) for x in case), **options)


def truth(case, I):
    """p(I) by scipy."""
    nu, loc, scale, blank, blank_scale = case
    spot = scipy.stats.t.pdf(I, nu, loc, scale)
    return (1 - blank) * spot + blank * scipy.stats.norm.pdf(I, 0, blank_scale)


@pytest.mark.parametrize("case", CASES)
def test_density_is_that_of_scipy_and_integrates_to_one(case, device):
    d = law(case)
    I = np.linspace(-50, 90, 501)
    got = SpotIntensity(*torch.tensor(case, **D, device=device)).log_prob(torch.from_numpy(I).to(device))
    np.testing.assert_allclose(got.cpu(), np.log(truth(case, I)), rtol=1e-12, atol=1e-12)

    def density(I):
        return math.exp(d.log_prob(torch.tensor(I, **D)))

    edges = [-math.inf, min(0, case[1]) - 20, *sorted({0.0, case[1]}), max(0, case[1]) + 20, math.inf]
    total = sum(quad(density, lo, hi, epsabs=1e-10)[0] for lo, hi in pairwise(edges))
    assert total == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("case", CASES[:3])
def test_moments_match_samples(case):
    n = 200_000
    d = law(case)
    I = d.sample((n,))
    assert I.shape == (n,)
    assert abs(I.mean() - d.mean) < 5 * math.sqrt(d.variance / n)
    spread = (I - d.mean) ** 2
    assert abs(spread.mean() - d.variance) < 5 * spread.std() / math.sqrt(n)


def test_draws_follow_the_distribution():
    """Every quantile, by Kolmogorov and Smirnov's test against the closed-form cdf."""
    case = CASES[0]
    nu, loc, scale, blank, blank_scale = case

    def cdf(I):
        return (1 - blank) * scipy.stats.t.cdf(I, nu, loc, scale) + blank * scipy.stats.norm.cdf(
            I, 0, blank_scale
        )

    assert scipy.stats.kstest(law(case).sample((20_000,)).numpy(), cdf).pvalue > 1e-3


def test_fraction_of_blanks():
    """Spots a thousand standard deviations above the background: blanks are those near zero."""
    n, p = 50_000, 0.07
    I = law((5.0, 1000.0, 1.0, p, 1.0)).sample((n,))
    assert abs((I.abs() < 500).double().mean() - p) < 5 * math.sqrt(p * (1 - p) / n)


def test_without_blanks_it_is_student_t():
    nu, loc, scale = torch.tensor(4.5, **D), torch.randn(7, **D), torch.rand(7, **D) + 0.1
    I = 10 * torch.randn(100, 7, **D)
    want = torch.distributions.StudentT(nu, loc, scale).log_prob(I)
    torch.testing.assert_close(
        SpotIntensity(nu, loc, scale, 0.0, scale).log_prob(I), want, rtol=1e-12, atol=0
    )


def test_components_add_up():
    d = law(CASES[0])
    I = torch.linspace(-30, 80, 200, **D)
    spot, blank = d.components(I)
    torch.testing.assert_close(spot.exp() + blank.exp(), d.log_prob(I).exp(), rtol=1e-12, atol=0)
    # at zero a spot of 40 ± 3 is a blank, at 40 it is not
    assert (blank > spot)[(I.abs() < 5)].all()
    assert (blank < spot)[I > 15].all()


def test_expand_keeps_density_and_shape():
    nu, blank = torch.tensor(5.0, **D), torch.tensor(0.1, **D)
    d = SpotIntensity(nu, torch.arange(4.0, **D), torch.ones(4, **D), blank, torch.ones(4, **D))
    wide = d.expand((3, 4))
    assert wide.batch_shape == (3, 4)
    assert wide.sample((2,)).shape == (2, 3, 4)
    I = torch.randn(3, 4, **D)
    torch.testing.assert_close(wide.log_prob(I), d.log_prob(I), rtol=0, atol=0)


def test_scalar_parameters_repeated_by_expand():
    """Expanding must give independent draws, and moments that can be read beside them."""
    d = law(CASES[1]).expand((1000,))
    assert d.sample().unique().numel() == 1000
    assert torch.broadcast_shapes(d.mean.shape, d.batch_shape) == (1000,)
    assert d.log_prob(d.sample()).shape == (1000,)


def test_sites_in_plates():
    """A plate that broadcasts a scalar law, and node × spot shapes as the inference uses them."""

    def model(loc):
        with pyro.plate("spot", 6):
            return pyro.sample(
                "I", SpotIntensity(5.0, loc, torch.ones(6, **D), 0.1, 1.0), obs=torch.zeros(6, **D)
            )

    site = poutine.trace(model).get_trace(torch.rand(3, 6, **D)).nodes["I"]
    assert site["fn"].batch_shape == (3, 6)
    assert site["fn"].log_prob(site["value"]).shape == (3, 6)


@pytest.mark.parametrize("I", [-1e8, -1e3, 0.0, 1e3, 1e8])
def test_gradients_are_finite_in_the_tails(I):
    values = [torch.tensor(x, **D, requires_grad=True) for x in (3.0, 1e3, 2.0, 0.03, 1.5)]
    log_p = SpotIntensity(*values).log_prob(torch.tensor(I, **D))
    grads = torch.autograd.grad(log_p, values)
    assert torch.isfinite(torch.stack([log_p, *grads])).all()


def test_gradients_match_differences():
    values = [torch.tensor(x, **D, requires_grad=True) for x in (5.0, 4.0, 2.0, 0.2, 1.5)]
    I = torch.tensor([-3.0, 0.3, 4.0, 11.0], **D)
    assert torch.autograd.gradcheck(lambda *x: SpotIntensity(*x).log_prob(I), values)


def test_bad_parameters_are_refused():
    with pytest.raises(ValueError, match="scale"):
        law((5.0, 1.0, -1.0, 0.1, 1.0), validate_args=True)
    with pytest.raises(ValueError, match="blank"):
        law((5.0, 1.0, 1.0, 1.1, 1.0), validate_args=True)
