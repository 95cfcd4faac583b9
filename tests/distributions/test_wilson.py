"""Wilson's distributions: normalisation, moments, samples, gradients, shapes."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from bayesref.distributions import NodePosterior, Wilson


@pytest.fixture
def prior(device):
    epsilon = torch.tensor([1.0, 2, 4, 1, 12], dtype=torch.float64, device=device)
    centric = torch.tensor([False, False, True, True, False], device=device)
    Sigma = torch.tensor([1.0, 0.1, 3, 100, 7], dtype=torch.float64, device=device)
    return Wilson(epsilon, centric, Sigma)


def test_integrates_to_one_with_its_moments(prior):
    p = NodePosterior.of(prior.log_prob, *prior.interval(32.0))
    torch.testing.assert_close(p.log_normalizer, torch.zeros_like(p.mean), atol=1e-13, rtol=0)
    torch.testing.assert_close(p.mean, prior.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(p.variance, prior.variance, rtol=1e-12, atol=0)
    torch.testing.assert_close(p.moment(2), prior.epsilon * prior.Sigma, rtol=1e-12, atol=0)


def test_samples(prior):
    F = prior.sample((40000,))
    assert (F > 0).all()
    torch.testing.assert_close(F.mean(0), prior.mean, rtol=0.02, atol=0)
    torch.testing.assert_close(F.var(0), prior.variance, rtol=0.04, atol=0)
    kolmogorov = (prior.cdf(F).sort(0).values - torch.linspace(0, 1, len(F)).to(F)[:, None]).abs().amax(0)
    assert (kolmogorov < 1.95 / len(F) ** 0.5).all()


def test_cdf_and_quantiles(prior):
    u = torch.tensor([1e-12, 1e-3, 0.5, 0.999], dtype=torch.float64, device=prior.Sigma.device)[:, None]
    u = u.expand(4, 5)
    torch.testing.assert_close(prior.cdf(prior.icdf(u)), u, rtol=1e-12, atol=0)


def test_default_dtype_does_not_leak(prior):
    for x in (prior.mean, prior.variance, prior.sample(), prior.log_prob(prior.mean)):
        assert x.dtype == torch.float64
    half = np.sqrt(2 / np.pi)
    one = torch.ones(1, dtype=torch.float64)
    assert abs(float(Wilson(one, one > 0).mean) - half) < 1e-15


def test_shapes(prior):
    F = prior.sample((7, 3))
    assert F.shape == (7, 3, 5)
    assert prior.log_prob(F).shape == (7, 3, 5)
    wide = prior.expand((4, 5))
    assert wide.sample((2,)).shape == (2, 4, 5)
    torch.testing.assert_close(wide.log_prob(F[0, 0]), prior.log_prob(F[0, 0]).expand(4, 5))
    assert Wilson(torch.ones(6), torch.zeros(6, dtype=torch.bool)).batch_shape == (6,)
    assert wide.to_event(1).log_prob(F[0, 0]).shape == (4,)


def test_gradients():
    epsilon = torch.tensor([1.0, 2.0], dtype=torch.float64)
    centric = torch.tensor([True, False])
    Sigma = torch.tensor([0.7, 3.0], dtype=torch.float64, requires_grad=True)
    F = torch.tensor([0.4, 2.0], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda F, S: Wilson(epsilon, centric, S).log_prob(F), (F, Sigma))
    assert gradcheck(lambda F, S: Wilson(epsilon, centric, S).cdf(F), (F, Sigma))
    draws = Wilson(epsilon, centric, Sigma).rsample()
    (grad,) = torch.autograd.grad(draws.sum(), Sigma)
    torch.testing.assert_close(grad, 0.5 * (draws / Sigma).detach())  # F ∝ √Σ


def test_gradients_at_zero_and_far_out():
    Sigma = torch.ones(2, dtype=torch.float64, requires_grad=True)
    F = torch.tensor([[0.0, 1e-200], [1e100, 1e100]], dtype=torch.float64, requires_grad=True)
    log_p = Wilson(torch.ones_like(Sigma), torch.tensor([True, False]), Sigma).log_prob(F)
    assert all(g.isfinite().all() for g in torch.autograd.grad(log_p.sum(), (F, Sigma)))


def test_parameters_are_checked():
    with pytest.raises(ValueError, match="epsilon"):
        Wilson(torch.tensor([0.0]), torch.tensor([True]))
