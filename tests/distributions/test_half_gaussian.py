"""The half Gaussian against mpmath with 120 digits, and its derivatives against finite differences."""

import mpmath as mp
import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from bayesref.distributions import _half_gaussian as half_gaussian

T = np.concatenate([-np.logspace(8, -2, 31), [0.0], np.logspace(-2, 8, 31), -np.linspace(2.8, 3.2, 9)])


def _exact(t):
    """log Φ/φ and the first five ratios of moments."""
    with mp.workdps(120):
        x = -mp.mpf(float(t))
        if x > 100:  # the fraction has converged; erfc would need more digits
            g, ratios = mp.mpf(0), []
            for k in range(300, 0, -1):
                g = k / (x + g)
                ratios = [g, *ratios][:5]
            return -mp.log(x + ratios[0]), ratios
        if x < -100:
            log_mills, ratios = x * x / 2 + mp.log(2 * mp.pi) / 2, [-x]
        else:
            mills = mp.erfc(x / mp.sqrt(2)) * mp.sqrt(mp.pi / 2) * mp.exp(x * x / 2)
            log_mills, ratios = mp.log(mills), [1 / mills - x]
        for k in range(1, 5):
            ratios.append(k / ratios[-1] - x)
        return log_mills, ratios


@pytest.fixture(scope="module")
def exact():
    rows = [_exact(t) for t in T]
    log_mills = np.array([float(r[0]) for r in rows])
    ratios = np.array([[float(g) for g in r[1]] for r in rows])
    with mp.workdps(120):
        variance = np.array([float(r[1][0] * (r[1][1] - r[1][0])) if len(r[1]) > 1 else 1.0 for r in rows])
    return log_mills, ratios, variance


@pytest.fixture
def at(device):
    t = torch.tensor(T, device=device, requires_grad=True)
    return torch.ones_like(t).requires_grad_(), t


def test_log_integral(at, exact):
    got = half_gaussian.log_integral(*at).detach().cpu().numpy()
    np.testing.assert_allclose(got, exact[0], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(("n", "rtol"), [(1, 1e-14), (2, 2e-14), (3, 1e-13), (4, 5e-13)])
def test_ratio(at, exact, n, rtol):
    np.testing.assert_allclose(half_gaussian.ratio(*at, n).detach().cpu(), exact[1][:, n - 1], rtol=rtol)


def test_variance(at, exact):
    np.testing.assert_allclose(half_gaussian.variance(*at).detach().cpu(), exact[2], rtol=1e-13)


def test_derivatives_in_the_tails(at, exact):
    a, t = at
    da, dt = torch.autograd.grad(half_gaussian.log_integral(a, t).sum(), (a, t), create_graph=True)
    np.testing.assert_allclose(dt.detach().cpu(), exact[1][:, 0], rtol=2e-14)
    np.testing.assert_allclose(da.detach().cpu(), -0.5 * exact[1][:, 0] * exact[1][:, 1], rtol=2e-14)
    (second,) = torch.autograd.grad(dt.sum(), t, create_graph=True)
    np.testing.assert_allclose(second.detach().cpu(), exact[2], rtol=1e-13)
    assert torch.autograd.grad(second.sum(), t)[0].isfinite().all()


def test_finite_differences():
    a = torch.tensor([1.0, 2, 0.5, 3, 1e-3, 0.7], dtype=torch.float64, requires_grad=True)
    c = torch.tensor([-50.0, -3, -1, 2, -0.3, 8], dtype=torch.float64, requires_grad=True)
    J = torch.linspace(0.1, 0.9, 6, dtype=torch.float64, requires_grad=True)
    assert gradcheck(half_gaussian.log_integral, (a, c))
    assert gradgradcheck(half_gaussian.log_integral, (a, c))
    assert gradcheck(lambda a, c: half_gaussian.ratio(a, c, 2), (a, c))
    assert gradcheck(half_gaussian.variance, (a, c))
    assert gradcheck(half_gaussian.log_prob, (J, a, c))
    assert gradcheck(half_gaussian.log_survival, (J, a, c))
    assert gradcheck(half_gaussian.icdf, (J, a, c), eps=1e-7, atol=1e-4)


def test_exponential_without_curvature():
    a = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    c = torch.tensor([-0.5, -4.0], dtype=torch.float64, requires_grad=True)
    L = half_gaussian.log_integral(a, c)
    da, dc = torch.autograd.grad(L.sum(), (a, c))
    mean = -1 / c.detach()
    torch.testing.assert_close(L.detach(), mean.log())
    torch.testing.assert_close(dc, mean)
    torch.testing.assert_close(da, -(mean**2))
    median = half_gaussian.icdf(torch.tensor(0.5, dtype=torch.float64), a, c).detach()
    torch.testing.assert_close(median, mean * np.log(2))


def test_quantiles_invert_the_survival_function():
    t = torch.tensor(T[np.abs(T) < 1e3])[:, None]
    u = torch.logspace(-12, -1e-4, 40, dtype=torch.float64)
    one = torch.ones_like(t)
    log_S = half_gaussian.log_survival(half_gaussian.icdf(u, one, t), one, t)
    torch.testing.assert_close(log_S, torch.log1p(-u).expand_as(log_S), rtol=1e-10, atol=1e-13)


def test_vmap_and_functional_derivatives():
    c = torch.tensor([-20.0, 0.0, 5.0], dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    second = torch.vmap(torch.func.grad(torch.func.grad(lambda x: half_gaussian.log_integral(one, x))))(c)
    torch.testing.assert_close(second, half_gaussian.variance(one, c))
