"""Legendre series on [-1, 1]: the integral of a density known at Gauss-Legendre nodes, and its inverse.

    p(y) = Σ_k c_k P_k(y)                 C(y) = ∫₋₁^y p = Σ_k d_k P_k(y)
    c_k = (k + ½) Σ_j w_j P_k(y_j) p(y_j)            exact for a polynomial of degree below n
    d_k = c_(k-1)/(2k-1) - c_(k+1)/(2k+3),  d_0 = c_0 - c_1/3

from ∫₋₁^y P_k = (P_(k+1) - P_(k-1))/(2k+1). Series are summed by Clenshaw's recurrence.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.polynomial.legendre import leggauss, legvander
from torch.autograd import Function
from torch.autograd.function import once_differentiable


@lru_cache(maxsize=32)
def gauss(n):
    """Nodes and weights of n-point Gauss-Legendre quadrature, numpy float64."""
    return leggauss(n)


@lru_cache(maxsize=32)
def refinement(n, m):
    """(m, n) matrix from values at n Gauss-Legendre nodes to those of the interpolant at m nodes."""
    y, w = gauss(n)
    return legvander(gauss(m)[0], n - 1) @ ((np.arange(n)[:, None] + 0.5) * legvander(y, n - 1).T * w)


@lru_cache(maxsize=32)
def primitive(n):
    """(n + 1, n) matrix from p at n Gauss-Legendre nodes to the coefficients d of C."""
    y, w = gauss(n)
    c = (np.arange(n)[:, None] + 0.5) * legvander(y, n - 1).T * w
    k = np.arange(n)[:, None]
    d = np.zeros((n + 1, n))
    d[1:] += c / (2 * k + 1)
    d[0] += c[0]
    d[: n - 1] -= (c / (2 * k + 1))[1:]
    return d


@lru_cache(maxsize=32)
def edge_basis(n, degree):
    """P_k at the n + 1 cell edges -1 + Σ w, which interlace with the n nodes; (edge, k), and the edges."""
    edges = np.concatenate([[-1.0], np.cumsum(gauss(n)[1]) - 1.0])
    edges[-1] = 1.0
    return legvander(edges, degree), edges


def series(d, y):
    """Σ_k d_k P_k(y) and its slope, without gradient.

    Parameters
    ----------
    d : (k, *batch); y : broadcasts with batch, leading dimensions allowed
    """
    value = next_value = torch.zeros_like(y * d[0])
    slope = next_slope = torch.zeros_like(value)
    for k in range(len(d) - 1, -1, -1):
        up, over = (2 * k + 1) / (k + 1), (k + 1) / (k + 2)
        slope, next_slope = up * (value + y * slope) - over * next_slope, slope
        value, next_value = d[k] + up * y * value - over * next_value, value
    return value, slope


class _Series(Function):
    """The series with its gradient in d and y; the basis is recomputed in the backward pass, not stored."""

    @staticmethod
    def forward(ctx, d, y):
        value, slope = series(d, y)
        ctx.save_for_backward(y, slope)
        ctx.shape = d.shape
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        y, slope = ctx.saved_tensors
        d = grad.new_empty(ctx.shape)
        old, now = torch.zeros_like(grad), grad
        for k in range(len(d)):
            d[k] = now.sum_to_size(ctx.shape[1:])
            old, now = now, ((2 * k + 1) * y * now - k * old) / (k + 1)
        return d, (grad * slope).sum_to_size(y.shape)


def differentiable_series(d, y):
    """Σ_k d_k P_k(y), differentiable once in d (k, *batch) and y."""
    return _Series.apply(d, y)
