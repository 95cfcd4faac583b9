"""Scaled special functions whose logarithm and slope keep their digits at large argument, x ≥ 0.

    log_i0e(x)   = log I₀(x) - x       slope  I₁/I₀ - 1 = -1/(2x) - 1/(8x²) - …
    log_coshe(x) = log cosh x - x      slope  tanh x - 1 = -2 exp(-2x)/(1 + exp(-2x))

A Rice density needs log I₀(2FG/V) - (F² + G²)/V, two large numbers; written with log_i0e it is -(F - G)²/V.
The asymptotic series of I₁/I₀ follows from Abramowitz & Stegun, 9.7.1; its derivative from
(I₁/I₀)' = 1 - (I₁/I₀)/x - (I₁/I₀)².
"""

import math

import torch
from torch.autograd import Function

_LARGE = 300.0  # here six terms of the series and i1e/i0e - 1 are both good to 10⁻¹³
_SERIES = (1 / 2, 1 / 8, 1 / 8, 25 / 128, 13 / 32, 1073 / 1024)  # 1 - I₁/I₀ in powers of 1/x


def _power_series(x, coefficients):
    total = torch.zeros_like(x)
    for c in reversed(coefficients):
        total = (total + c) / x
    return total


class _LogI0e(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return torch.special.i0e(x).log()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        return grad * _Deficit.apply(*ctx.saved_tensors)


class _Deficit(Function):
    """I₁/I₀ - 1."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        series = -_power_series(x.clamp(min=_LARGE), _SERIES)
        return torch.where(x > _LARGE, series, torch.special.i1e(x) / torch.special.i0e(x) - 1)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        small, large = x < 1e-4, x > _LARGE
        middle = torch.where(small | large, torch.ones_like(x), x)
        rho = 1 + _Deficit.apply(middle)
        slope = torch.where(small, 0.5 - 0.1875 * x * x, 1 - rho / middle - rho * rho)
        big = torch.where(large, x, torch.full_like(x, _LARGE))
        series = _power_series(big, tuple(k * c for k, c in enumerate(_SERIES, 1))) / big
        return grad * torch.where(large, series, slope)


def log_i0e(x):
    """log[I₀(x) exp(-x)] for x ≥ 0, differentiable to any order."""
    return _LogI0e.apply(x)


def log_coshe(x):
    """log[cosh(x) exp(-x)] for x ≥ 0."""
    return torch.log1p(torch.exp(-2 * x)) - math.log(2)
