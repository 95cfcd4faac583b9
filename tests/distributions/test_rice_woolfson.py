"""Rice and Woolfson distributions: normalisation, moments, samples, limits, gradients."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch.autograd import gradcheck

from bayesref.distributions import NodePosterior, RiceWoolfson, Wilson

D = {"dtype": torch.float64}


@pytest.fixture
def law(device):
    loc = torch.tensor([0.0, 0.1, 1, 10, 22.3, 22.4, 1e3, 0, 0.5, 9, 100], device=device, **D)
    variance = torch.tensor([1.0, 1, 2, 1, 1, 1, 1, 3, 1, 0.1, 1], device=device, **D)
    return RiceWoolfson(loc, variance, torch.arange(11, device=device) >= 7)


def test_integrates_to_one_with_its_moments(law):
    p = NodePosterior.of(law.log_prob, *law.interval(32.0))
    torch.testing.assert_close(p.log_normalizer, torch.zeros_like(p.mean), atol=1e-12, rtol=0)
    torch.testing.assert_close(p.mean, law.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(p.variance, law.variance, rtol=2e-12, atol=0)
    torch.testing.assert_close(p.moment(2), law.mean_intensity, rtol=1e-12, atol=0)


def test_against_scipy(law):
    F = law.sample((20,)).cpu().numpy()
    loc, V = law.loc.cpu().numpy(), law.scatter.cpu().numpy()
    sd = np.sqrt(V / 2)
    rice = scipy.stats.rice.logpdf(F[:, :6], loc[:6] / sd[:6], scale=sd[:6])
    folded = scipy.stats.foldnorm.logpdf(F[:, 7:9], (loc / np.sqrt(V))[7:9], scale=np.sqrt(V)[7:9])
    log_p = law.log_prob(torch.as_tensor(F, device=law.loc.device)).cpu().numpy()
    np.testing.assert_allclose(log_p[:, :6], rice, rtol=1e-9)
    np.testing.assert_allclose(log_p[:, 7:9], folded, rtol=1e-9)
    cdf = law.cdf(torch.as_tensor(F, device=law.loc.device)).cpu().numpy()
    np.testing.assert_allclose(
        cdf[:, :6], scipy.stats.rice.cdf(F[:, :6], loc[:6] / sd[:6], scale=sd[:6]), atol=1e-8
    )


def test_samples(law):
    F = law.sample((40000,))
    z = (F.mean(0) - law.mean) / law.stddev * len(F) ** 0.5
    assert (z.abs() < 4).all()
    torch.testing.assert_close(F.var(0), law.variance, rtol=0.05, atol=0)


def test_wilson_without_location():
    epsilon = torch.tensor([1.0, 2, 1, 2], **D)
    centric = torch.tensor([True, True, False, False])
    wilson = Wilson(epsilon, centric, 3.0)
    law = RiceWoolfson(torch.zeros(4, **D), 3 * epsilon, centric)
    F = wilson.sample((50,))
    torch.testing.assert_close(law.log_prob(F), wilson.log_prob(F), rtol=1e-13, atol=1e-13)


def test_gradients():
    centric = torch.tensor([True, False, True, False])
    loc = torch.tensor([0.5, 2.0, 30.0, 40.0], requires_grad=True, **D)
    V = torch.tensor([0.7, 1.5, 0.1, 0.2], requires_grad=True, **D)
    F = torch.tensor([0.4, 2.5, 30.2, 39.0], requires_grad=True, **D)
    assert gradcheck(lambda F, G, V: RiceWoolfson(G, V, centric).log_prob(F), (F, loc, V))

    def draws(G, V):
        torch.manual_seed(3)
        return RiceWoolfson(G, V, centric).rsample((5,))

    assert gradcheck(draws, (loc, V))


def test_gradients_in_the_tails():
    loc = torch.tensor([0.0, 0, 1e6, 1e6, 10], requires_grad=True, **D)
    V = torch.tensor([1.0, 1, 1e-3, 1e-3, 1e-8], requires_grad=True, **D)
    F = torch.tensor([[0.0, 1e-30, 1e6, 1e-3, 1e4]], requires_grad=True, **D)
    law = RiceWoolfson(loc, V, torch.tensor([True, False, True, False, False]))
    assert all(g.isfinite().all() for g in torch.autograd.grad(law.log_prob(F).sum(), (F, loc, V)))


def test_shapes(law):
    assert law.rsample((4, 2)).shape == (4, 2, 11)
    wide = law.expand((3, 11))
    F = wide.sample((2,))
    assert wide.log_prob(F).shape == F.shape == (2, 3, 11)
    assert wide.mean.dtype == torch.float64
    torch.testing.assert_close(wide.icdf(wide.cdf(F)), F, rtol=1e-6, atol=1e-9)
