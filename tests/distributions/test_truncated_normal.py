"""Truncated normal: normalisation, moments, quantiles and gradients at any depth of the cut."""

import mpmath as mp
import numpy as np
import pytest
import scipy.stats
import torch
from torch.autograd import gradcheck

from bayesref.distributions import NodePosterior, TruncatedNormal

D = {"dtype": torch.float64}
LOC = [-1e6, -1e3, -30.0, -3.1, -2.9, 0.0, 2.0, 50.0, 1e6]


@pytest.fixture
def law(device):
    loc = torch.tensor(LOC, device=device, **D)
    return TruncatedNormal(loc, torch.ones_like(loc))


def test_moments(law):
    """Against mpmath."""
    mean, variance = [], []
    with mp.workdps(100):
        for t in LOC:
            if abs(t) > 100:  # exponential, or far from the cut: two terms of either series are exact
                x = mp.mpf(t)
                mean.append(x if t > 0 else -1 / x * (1 - 2 / x**2 + 10 / x**4))
                variance.append(mp.mpf(1) if t > 0 else 1 / x**2 * (1 - 6 / x**2 + 50 / x**4))
            else:
                h = mp.mpf(t) + mp.npdf(t) / mp.ncdf(t)
                mean.append(h)
                variance.append(1 - (h - mp.mpf(t)) * h)
    np.testing.assert_allclose(law.mean.cpu(), [float(x) for x in mean], rtol=1e-14)
    np.testing.assert_allclose(law.variance.cpu(), [float(x) for x in variance], rtol=1e-13)


def test_integrates_to_one(law):
    width = 9 * law.stddev * torch.where(law.loc < 1, 4, 1)  # exponential below
    p = NodePosterior.of(law.log_prob, (law.mean - width).clamp(min=0), law.mean + width, n=64)
    atol = 3e-9  # loc = 1e6: the nodes themselves are rounded to 1e-10 standard deviations
    torch.testing.assert_close(p.log_normalizer, torch.zeros_like(p.mean), atol=atol, rtol=0)


def test_against_scipy():
    loc, scale, low = np.array([-2.0, 1.0, 5.0]), np.array([0.5, 2.0, 1.0]), np.array([-1.5, 0.0, 6.0])
    ours = TruncatedNormal(*(torch.tensor(x) for x in (loc, scale, low)))
    theirs = scipy.stats.truncnorm((low - loc) / scale, np.inf, loc=loc, scale=scale)
    u = torch.linspace(0.01, 0.99, 50, **D)[:, None]
    x = ours.icdf(u)
    np.testing.assert_allclose(x, theirs.ppf(u), rtol=1e-10)
    np.testing.assert_allclose(ours.log_prob(x), theirs.logpdf(x), rtol=1e-10)
    np.testing.assert_allclose(ours.cdf(x), theirs.cdf(x), rtol=1e-10)


def test_samples_and_pathwise_gradients(law):
    loc = law.loc.clone().requires_grad_()
    scale = torch.ones_like(loc).requires_grad_()
    x = TruncatedNormal(loc, scale).rsample((20000,))
    z = (x.mean(0) - law.mean) / law.stddev * len(x) ** 0.5
    assert (z.abs() < 4).all()
    torch.testing.assert_close(x.var(0), law.variance, rtol=0.08, atol=0)
    got = torch.autograd.grad(x.mean(0).sum(), (loc, scale))
    want = torch.autograd.grad(TruncatedNormal(loc, scale).mean.sum(), (loc, scale))
    for mine, exact in zip(got, want, strict=True):
        assert mine.isfinite().all()
        torch.testing.assert_close(mine, exact, rtol=0.1, atol=0.01)


def test_gradients():
    loc = torch.tensor([-30.0, -3.5, 0.5, 4.0], requires_grad=True, **D)
    scale = torch.tensor([1.0, 0.5, 2.0, 1.0], requires_grad=True, **D)
    x = torch.tensor([0.02, 0.1, 1.0, 3.0], requires_grad=True, **D)
    u = torch.tensor([0.1, 0.5, 0.9, 0.2], requires_grad=True, **D)
    assert gradcheck(lambda x, m, s: TruncatedNormal(m, s, 0.01).log_prob(x), (x, loc, scale))
    assert gradcheck(lambda x, m, s: TruncatedNormal(m, s, 0.01).cdf(x), (x, loc, scale))
    assert gradcheck(lambda u, m, s: TruncatedNormal(m, s).icdf(u), (u, loc, scale))
    assert gradcheck(lambda m, s: TruncatedNormal(m, s).mean, (loc, scale))


def test_shapes_and_support(law):
    wide = law.expand((3, len(LOC)))
    assert wide.rsample((2,)).shape == (2, 3, len(LOC))
    assert (wide.sample((100,)) >= 0).all()
    with pytest.raises(ValueError, match="support"):
        law.log_prob(torch.full((len(LOC),), -1.0, **D))
