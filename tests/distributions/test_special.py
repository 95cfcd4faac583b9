"""Scaled Bessel and cosh functions against mpmath."""

import mpmath as mp
import numpy as np
import torch
from torch.autograd import gradcheck, gradgradcheck

from bayesref.distributions._special import log_coshe, log_i0e

X = [0.0, 1e-6, 1e-3, 0.1, 1.0, 10.0, 100.0, 299.0, 301.0, 1e3, 1e6]


def test_log_i0e_and_its_slopes():
    x = torch.tensor(X, dtype=torch.float64, requires_grad=True)
    value = log_i0e(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), x)
    with mp.workdps(60):
        i0 = [mp.besseli(0, mp.mpf(t)) for t in X]
        rho = [mp.besseli(1, mp.mpf(t)) / i for t, i in zip(X, i0, strict=True)]
        log_i0 = [float(mp.log(i) - mp.mpf(t)) for t, i in zip(X, i0, strict=True)]
        curve = [float(1 - r / mp.mpf(t) - r * r) if t else 0.5 for t, r in zip(X, rho, strict=True)]
    np.testing.assert_allclose(value.detach(), log_i0, rtol=1e-15, atol=1e-15)
    np.testing.assert_allclose(slope.detach(), [float(r - 1) for r in rho], rtol=1e-13)
    np.testing.assert_allclose(second, curve, rtol=1e-10)


def test_finite_differences():
    x = torch.tensor([0.0, 0.3, 2.0, 40.0, 400.0], dtype=torch.float64, requires_grad=True)
    assert gradcheck(log_i0e, (x[1:],))
    assert gradgradcheck(log_i0e, (x[1:],))
    assert gradcheck(log_coshe, (x[1:],))


def test_log_coshe():
    x = torch.tensor([0.0, 1e-9, 0.5, 3.0, 1e4], dtype=torch.float64)
    np.testing.assert_allclose(log_coshe(x), np.logaddexp(0, -2 * x.numpy()) - np.log(2), atol=1e-16)
