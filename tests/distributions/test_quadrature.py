"""Brackets, node posteriors, their cdf and quantiles, against closed forms."""

import math

import pytest
import torch

from bayesref.distributions import NodePosterior, bracket, legendre, nodes

D = {"dtype": torch.float64}


def test_legendre_integrates_polynomials():
    x, w = legendre(5)
    assert x.dtype == torch.float64
    torch.testing.assert_close((w * x**8).sum(), torch.tensor(2 / 9, **D))
    assert legendre(7, torch.zeros(1, dtype=torch.float32))[0].dtype == torch.float32


@pytest.mark.parametrize("sd", [1e-7, 1e-3, 0.3, 5.0, 1e3])
def test_bracket_finds_the_peak(sd):
    mean = torch.tensor([0.1234567, 0.9], **D)
    lo, hi = bracket(lambda F: -0.5 * ((F - mean) / sd) ** 2, torch.zeros(2, **D), torch.ones(2, **D))
    want = math.sqrt(72) * sd
    assert (lo <= (mean - want).clamp(min=0)).all()
    assert (hi >= (mean + want).clamp(max=1)).all()
    assert (hi - lo <= 3 * want).all()


def test_bracket_keeps_two_modes_and_bad_rows():
    def two(F):
        log_p = torch.logaddexp(-0.5 * ((F - 2) / 0.2) ** 2, -5 - 0.5 * ((F - 7) / 0.2) ** 2)
        return torch.stack([log_p[:, 0], torch.full_like(F[:, 1], -torch.inf)], 1)

    lo, hi = bracket(two, torch.zeros(2, **D), torch.full((2,), 20.0, **D))
    assert 0 <= lo[0] < 2 - 8.4 * 0.2
    assert 7 + 7.8 * 0.2 < hi[0] < 10
    assert (float(lo[1]), float(hi[1])) == (0.0, 20.0)


def _gamma_shape(k):
    """F^k exp(-F²) on [0, 7], k = 0 or 1, and its cdf."""
    cdf = torch.special.erf if k == 0 else lambda F: -torch.expm1(-(F**2))
    return (lambda F: k * F.log() - F**2), cdf


@pytest.mark.parametrize("k", [0, 1])
def test_cdf_of_both_kinds_of_start(k, device):
    log_density, cdf = _gamma_shape(k)
    lo, hi = torch.zeros(1, device=device, **D), torch.full((1,), 6.5, device=device, **D)
    p = NodePosterior.of(log_density, lo, hi)
    F = torch.linspace(0, 6.5, 1001, device=device, **D)[:, None]
    torch.testing.assert_close(p.cdf(F), cdf(F), rtol=0, atol=1e-9)


@pytest.mark.parametrize("shift", [0.0, 3.0, 30.0])
def test_quantiles(shift):
    def log_density(F):
        return -0.5 * (F - shift) ** 2

    lo, hi = bracket(log_density, torch.zeros(1, **D), torch.full((1,), 50.0, **D), drop=32.0)
    p = NodePosterior.of(log_density, lo, hi)
    u = torch.linspace(0, 1, 2001, **D)[:, None]
    F = p.icdf(u)
    ndtr = torch.special.ndtr
    exact = (ndtr(F - shift) - ndtr(lo - shift)) / (1 - ndtr(lo - shift))
    torch.testing.assert_close(exact, u, rtol=0, atol=1e-8)
    assert (F.diff(dim=0) >= 0).all()
    assert (p.cdf(F).diff(dim=0) >= -1e-15).all()
    assert float(F[0, 0]) == float(lo)
    assert float(F[-1, 0]) == float(hi)


def test_moments_and_sampling():
    mean = torch.tensor([3.0, 8.0], **D)
    p = NodePosterior.of(lambda F: -0.5 * (F - mean) ** 2, mean - 3 - 5, mean + 8)
    torch.testing.assert_close(p.log_normalizer, torch.full((2,), 0.5 * math.log(2 * math.pi), **D))
    torch.testing.assert_close(p.mean, mean)
    torch.testing.assert_close(p.variance, torch.ones(2, **D))
    torch.testing.assert_close(p.moment(3), mean**3 + 3 * mean)
    torch.testing.assert_close(p.weight.sum(0), torch.ones(2, **D))
    torch.testing.assert_close(p.expectation(p.F**2), p.moment(2))
    draws = p.sample((20000,), torch.Generator().manual_seed(1))
    torch.testing.assert_close(draws.mean(0), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(draws.var(0), torch.ones(2, **D), atol=0.05, rtol=0)
    again = p.sample((20000,), torch.Generator().manual_seed(1))
    assert torch.equal(draws, again)


def test_implicit_gradient_of_quantiles():
    shift = torch.tensor([2.0, 12.0], requires_grad=True, **D)
    lo, hi = torch.tensor([0.0, 4.0], **D), torch.tensor([10.0, 20.0], **D)
    p = NodePosterior.of(lambda F: -0.5 * (F - shift) ** 2, lo, hi)
    u = torch.tensor([0.1, 0.5, 0.99], **D)[:, None].expand(3, 2)
    F = p.icdf(u)
    (grad,) = torch.autograd.grad(F.sum(), shift)
    step = 1e-5
    by_steps = [
        NodePosterior.of(lambda F, s=s: -0.5 * (F - shift.detach() - s) ** 2, lo, hi).icdf(u).sum(0)
        for s in (step, -step)
    ]
    torch.testing.assert_close(grad, (by_steps[0] - by_steps[1]) / (2 * step), rtol=1e-6, atol=1e-8)


def test_gradients_of_cdf():
    scale = torch.tensor([1.0, 2.0], requires_grad=True, **D)
    F = torch.tensor([[0.5, 1.0], [2.0, 3.0]], requires_grad=True, **D)

    def cdf(scale, F):
        lo = torch.zeros(2, **D)
        return NodePosterior.of(lambda x: x.log() - 0.5 * (x / scale) ** 2, lo, torch.full_like(lo, 15)).cdf(
            F
        )

    assert torch.autograd.gradcheck(cdf, (scale, F))


def test_backward_twice_without_keeping_the_graph():
    a = torch.tensor([1.0], requires_grad=True, **D)
    lo, hi = torch.zeros(1, **D), torch.full((1,), 6.0, **D)
    for _ in range(2):
        p = NodePosterior.of(lambda F: -a * F**2, lo, hi)
        p.log_normalizer.sum().backward()
    torch.testing.assert_close(a.grad, -2 * p.moment(2).detach())


def test_many_reflections():
    mean = torch.rand(20000, **D) * 10
    lo, hi = (mean - 8).clamp(min=0), mean + 8
    F = nodes(lo, hi, 32)
    assert F.shape == (32, 20000)
    draws = NodePosterior(lo, hi, -0.5 * (F - mean) ** 2).sample()
    assert draws.shape == (20000,)
    assert ((draws >= lo) & (draws <= hi)).all()


def test_single_precision():
    lo, hi = torch.zeros(1), torch.full((1,), 6.5)
    p = NodePosterior.of(lambda F: F.log() - F**2, lo, hi)
    u = torch.linspace(0.01, 0.99, 50)[:, None]
    F = p.icdf(u)
    assert F.dtype == torch.float32
    torch.testing.assert_close(-torch.expm1(-(F**2)), u, rtol=0, atol=1e-5)
