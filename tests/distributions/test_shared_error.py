"""Amplitudes at several times with one error of the model: against brute force, and by differences."""

import math

import numpy as np
import pytest
import torch

from bayesref.distributions import SharedError

D = {"dtype": torch.float64}


def case(centric, seed=0, T=3, n=1):
    g = torch.Generator().manual_seed(seed)
    G, V = (8 + 10 * torch.rand(n, generator=g, **D) for _ in range(2))
    d = torch.complex(*torch.randn(2, n, T, generator=g, **D))
    d = d.real + 0j if centric else d
    V_time = 0.1 + 0.3 * torch.rand(n, T, generator=g, **D)
    sigma = 0.3 + 0.4 * torch.rand(n, 1 + T, generator=g, **D)
    K = 1 + 0.1 * torch.rand(n, T, generator=g, **D)
    return SharedError(G, V, d, V_time, sigma, torch.full((n,), centric), K)


@pytest.mark.parametrize("centric", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_against_monte_carlo(centric, seed):
    s = case(centric, seed)
    torch.manual_seed(seed)
    F = s.sample()
    g, n = torch.Generator().manual_seed(seed + 10), 1_000_000

    def error(V):
        e = torch.randn(2, n, generator=g, **D)
        return (V**0.5 * e[0]) + 0j if centric else torch.complex(e[0], e[1]) * (V / 2) ** 0.5

    def normal(x, mean, sigma):
        return torch.exp(-0.5 * ((x - mean) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))

    dark = s.G[0] + error(s.V[0])
    weight = normal(F[0, 0], dark.abs(), s.sigma[0, 0])
    for t in range(3):
        light = (dark + s.d[0, t] + error(s.V_time[0, t])).abs()
        weight = weight * normal(F[0, 1 + t], s.scale[0, t] * light, s.sigma[0, 1 + t])
    truth, spread = weight.mean(), weight.std() / n**0.5
    # 0.01: the measurement is taken for a complex error, which moves the mean of |F| by σ²/F
    assert float(s.log_prob(F)) == pytest.approx(float(truth.log()), abs=0.015 + 3 * float(spread / truth))


def test_slopes_are_those_of_differences():
    s = case(False, 3, n=4)
    F = s.sample()
    names = ("G", "V", "V_time", "scale")
    leaves = {k: getattr(s, k).clone().requires_grad_() for k in names}
    real, imag = s.d.real.clone().requires_grad_(), s.d.imag.clone().requires_grad_()

    def value(G, V, V_time, scale, real, imag):
        return (
            SharedError(G, V, torch.complex(real, imag), V_time, s.sigma, s.centric, scale).log_prob(F).sum()
        )

    x = [*leaves.values(), real, imag]
    grads = torch.autograd.grad(value(*x), x)
    for i, grad in enumerate(grads):
        v = torch.randn_like(x[i])
        up, down = (
            value(*[y.detach() + sign * 1e-6 * v if j == i else y.detach() for j, y in enumerate(x)])
            for sign in (1, -1)
        )
        assert float((grad * v).sum()) == pytest.approx(float(up - down) / 2e-6, rel=2e-3, abs=2e-3)


def test_a_dataset_that_is_missing_says_nothing():
    s = case(False, 4)
    F = s.sample()
    without = SharedError(
        s.G, s.V, s.d, s.V_time, torch.where(torch.arange(4) == 2, torch.inf, s.sigma), s.centric, s.scale
    )
    other = F.clone()
    other[0, 2] = 99.0
    assert float(without.log_prob(F)) == float(without.log_prob(other))
    keep = torch.tensor([0, 2])
    two = SharedError(
        s.G, s.V, s.d[:, keep], s.V_time[:, keep], s.sigma[:, [0, 1, 3]], s.centric, s.scale[:, keep]
    )
    assert float(without.log_prob(F)) == pytest.approx(float(two.log_prob(F[:, [0, 1, 3]])), abs=1e-3)


def test_it_integrates_to_one_over_the_light():
    """∫ p(F̂_0, F̂_1) dF̂_1 does not depend on what the light would have done."""
    s = case(False, 5, T=1)
    F = torch.linspace(0.01, 45, 3000, **D)
    dark = torch.full_like(F, 11.0)

    def marginal(d):
        many = SharedError(
            *(x.expand(3000, *x.shape[1:]) for x in (s.G, s.V, d, s.V_time, s.sigma, s.centric, s.scale))
        )
        return float(torch.trapezoid(many.log_prob(torch.stack([dark, F], 1)).exp(), F))

    assert marginal(s.d) == pytest.approx(marginal(0 * s.d), rel=2e-3)
    assert np.isfinite(marginal(5 * s.d))


def test_weak_reflections_and_large_changes_take_finer_nodes():
    """Against the same integrand summed over a fine grid of F_0 in the plane, where polar nodes have it hardest."""
    g = torch.Generator().manual_seed(4)
    n, T = 24, 3
    G = 3 * torch.rand(n, generator=g, **D)
    V = 1 + 10 * torch.rand(n, generator=g, **D)
    d = 4 * torch.complex(*torch.randn(2, n, T, generator=g, **D))
    V_time, sigma = torch.full((n, T), 0.05, **D), torch.full((n, 1 + T), 0.4, **D)
    K = torch.ones(n, T, **D)
    s = SharedError(G, V, d, V_time, sigma, torch.zeros(n, dtype=torch.bool), K)
    torch.manual_seed(4)
    F = s.sample().clamp(min=0.05)
    x = torch.linspace(-16, 16, 801, **D)
    dark = torch.complex(x[:, None], x[None, :])
    for h in range(n):
        log_p = -((dark - G[h]).abs() ** 2) / V[h] - math.log(math.pi * float(V[h]))
        log_p = log_p - 0.5 * ((F[h, 0] - dark.abs()) / 0.4) ** 2 - math.log(0.4 * math.sqrt(2 * math.pi))
        for t in range(T):
            m, W = (dark + d[h, t]).abs(), 0.05 + 2 * 0.4**2
            z = 2 * F[h, 1 + t] * m / W
            log_p = log_p + torch.log(2 * F[h, 1 + t] / W) - (F[h, 1 + t] - m) ** 2 / W
            log_p = log_p + torch.log(torch.special.i0e(z))
        truth = log_p.flatten().logsumexp(0) + 2 * math.log(float(x[1] - x[0]))
        assert float(s.log_prob(F)[h]) == pytest.approx(float(truth), abs=0.005)
