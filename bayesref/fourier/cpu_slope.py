"""Compiled derivative of `sample` by its coordinates, contracted with a cotangent g.

    h = e^{+2πi x·t} g,   c = Σ K(u - n) V[n],   a = Re(h̄ ∂c/∂u),   τ = 2π Im(h̄ c)
    ∂M = Σ_s a xᵀ,   ∂t = Σ_s τ x,   ∂x = Σ_p Mᵀ a + τ t

Nothing is stored per sample: taps and weights are formed again. One task is a stretch of points (of one
projection, or of all of them where ∂x is asked for); its sums are float64 and are added up in a fixed order.
"""

import numpy as np
from numba import njit

from bayesref.fourier.cpu_points import mirrors, offsets, place, scratch, turn, weigh
from bayesref.fourier.cpu_rows import BLOCK, slope_rows

STRETCH = 32 * BLOCK


@njit(cache=True, nogil=True, error_model="numpy")
def edge_slope(V, grid, base, w, d, j, taps0, taps):
    """The eight numbers of `slope_rows` where a row leaves the stored half."""
    where = np.empty((8, len(taps)), np.int64)
    mirrors(base[:, j], grid, where)
    zero = V.dtype.type(0)
    cr, ci, ar, ai, br, bi, er, ei = zero, zero, zero, zero, zero, zero, zero, zero
    for k0 in range(len(taps0)):
        for k1 in range(len(taps)):
            ww, dw, wd = w[0, k0, j] * w[1, k1, j], d[0, k0, j] * w[1, k1, j], w[0, k0, j] * d[1, k1, j]
            for k2 in range(len(taps)):
                f = where[5, k2]
                at = 2 * (where[f, k0] + where[2 + f, k1] + where[4, k2])
                re, im = V[at], -V[at + 1] if f else V[at + 1]
                er, ei = er + ww * d[2, k2, j] * re, ei + ww * d[2, k2, j] * im
                re, im = w[2, k2, j] * re, w[2, k2, j] * im
                cr, ci = cr + ww * re, ci + ww * im
                ar, ai, br, bi = ar + dw * re, ai + dw * im, br + wd * re, bi + wd * im
    return cr, ci, ar, ai, br, bi, er, ei


@njit(cache=True, nogil=True, error_model="numpy")
def slope_block(V, grid, base, side, phase, w, d, columns, first, n, g, taps0, taps, a, tau):
    """Fill a (3, BLOCK) and tau (BLOCK,) of one block."""
    half = grid[2] // 2 + 1
    plane, line = np.empty(len(taps0), np.int64), np.empty(len(taps), np.int64)
    w0, w1, w2 = w[0], w[1], w[2]
    d0, d1, d2 = d[0], d[1], d[2]
    for j in range(n):
        low = base[2, j]
        if low >= 0 and low + len(taps) <= half:
            offsets(base[0, j], grid[0], 2 * half * grid[1], 0, taps0, plane)
            offsets(base[1, j], grid[1], 2 * half, 2 * low, taps, line)
            c = slope_rows(V, plane, line, w0, w1, w2, d0, d1, d2, j, taps0, taps)
        else:
            c = edge_slope(V, grid, base, w, d, j, taps0, taps)
        at, s = 2 * columns[first + j], side[j]
        re = phase[0, j] * g[at] + phase[1, j] * g[at + 1]
        im = phase[0, j] * g[at + 1] - phase[1, j] * g[at]
        # v = s u and the value is conjugated where s = -1, so one s comes from each.
        a[0, j] = s * re * c[2] + im * c[3]
        a[1, j] = s * re * c[4] + im * c[5]
        a[2, j] = s * re * c[6] + im * c[7]
        tau[j] = 2 * np.pi * (re * s * c[1] - im * c[0])


@njit(cache=True, nogil=True, error_model="numpy")
def add_up(x, first, n, pose, shift, a, tau, sums, grad_x):
    """Add one block to `sums` (12,) = ∂M (9), ∂t (3), and to `grad_x` (3, s) where it is not empty."""
    for j in range(n):
        for i in range(3):
            for k in range(3):
                sums[3 * i + k] += a[i, j] * x[k, first + j]
            sums[9 + i] += tau[j] * x[i, first + j]
    if grad_x.shape[1]:
        for k in range(3):
            for j in range(n):
                grad_x[k, first + j] += (
                    pose[0, k] * a[0, j] + pose[1, k] * a[1, j] + pose[2, k] * a[2, j] + tau[j] * shift[k]
                )


@njit(cache=True, nogil=True, error_model="numpy")
def slope(V, g, x, M, t, columns, tables, grid, taps0, taps, coherent, sums, grad_x, start, stop):
    """Tasks start .. stop. `tables`: table0, table and the derivatives of both; sums (stretch, b, p, 12)."""
    n_b, n_p, n_s = V.shape[0], M.shape[1], x.shape[1]
    inner = n_b * n_p if grad_x.shape[1] else 1
    frac, base, side, phase, w = scratch(x.dtype, len(taps))
    d, a, tau, still = np.empty_like(w), np.empty_like(frac), np.empty_like(side), np.zeros(3, x.dtype)
    phase[0], phase[1] = 1, 0
    for item in range(start * inner, stop * inner):
        stretch, image = divmod(item, n_b * n_p)
        b, p = divmod(image, n_p)
        pose, shift = M[b % M.shape[0], p], t[b % t.shape[0], p] if t.shape[1] else still
        end = min(n_s, (stretch + 1) * STRETCH)
        for first in range(stretch * STRETCH, end, BLOCK):
            n = min(BLOCK, end - first)
            place(x, first, n, pose, grid, taps0, taps, frac, base, side)
            for axis in range(3):
                weigh(frac[axis], n, tables[0 if axis == 0 else 1], w[axis])
                weigh(frac[axis], n, tables[2 if axis == 0 else 3], d[axis])
            if t.shape[1]:
                turn(x, first, n, shift, phase)
            values = g[b, 0 if coherent else p]
            slope_block(V[b], grid, base, side, phase, w, d, columns, first, n, values, taps0, taps, a, tau)
            add_up(x, first, n, pose, shift, a, tau, sums[stretch, b, p], grad_x)
