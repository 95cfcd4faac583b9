"""Compiled `sample`: read the taps of every point.

    out[b, p, column_s] (+)= e^{-2πi x_s·t_p} Σ_n K(M_p x_s - n) V_b[n]

One task is a stretch of points of one projection; with `coherent` it runs over all projections, in order.
"""

import numpy as np
from numba import njit

from bayesref.fourier.cpu_points import mirrors, offsets, place, scratch, turn, weigh
from bayesref.fourier.cpu_rows import BLOCK, gather_rows

STRETCH = 8 * BLOCK  # points of one task


@njit(cache=True, nogil=True, error_model="numpy")
def edge_value(V, grid, base, w0, w1, w2, j, taps0, taps):
    """Σ w₀ w₁ w₂ V, tap by tap, where a row leaves the stored half."""
    where = np.empty((8, len(taps)), np.int64)
    mirrors(base[:, j], grid, where)
    re, im = V.dtype.type(0), V.dtype.type(0)
    for k0 in range(len(taps0)):
        for k1 in range(len(taps)):
            w = w0[k0, j] * w1[k1, j]
            for k2 in range(len(taps)):
                f = where[5, k2]
                at = 2 * (where[f, k0] + where[2 + f, k1] + where[4, k2])
                re += w * w2[k2, j] * V[at]
                im += w * w2[k2, j] * (-V[at + 1] if f else V[at + 1])
    return re, im


@njit(cache=True, nogil=True, error_model="numpy")
def gather_block(V, grid, base, side, phase, w, columns, first, n, coherent, out, taps0, taps):
    """Add the values of one block of points to their columns of `out`."""
    half = grid[2] // 2 + 1
    plane, line = np.empty(len(taps0), np.int64), np.empty(len(taps), np.int64)
    w0, w1, w2 = w[0], w[1], w[2]
    for j in range(n):
        low = base[2, j]
        if low >= 0 and low + len(taps) <= half:
            offsets(base[0, j], grid[0], 2 * half * grid[1], 0, taps0, plane)
            offsets(base[1, j], grid[1], 2 * half, 2 * low, taps, line)
            re, im = gather_rows(V, plane, line, w0, w1, w2, j, taps0, taps)
        else:
            re, im = edge_value(V, grid, base, w0, w1, w2, j, taps0, taps)
        im *= side[j]
        at = 2 * columns[first + j]
        re, im = phase[0, j] * re - phase[1, j] * im, phase[0, j] * im + phase[1, j] * re
        if coherent:
            re, im = out[at] + re, out[at + 1] + im
        out[at], out[at + 1] = re, im


@njit(cache=True, nogil=True, error_model="numpy")
def gather(V, x, M, t, columns, table0, table, grid, taps0, taps, coherent, out, start, stop):
    """Tasks start .. stop. V (b, n), out (b, p, column) are real views; M (b|1, p, 3, 3), t (b|1, p|0, 3)."""
    n_p, n_s = M.shape[1], x.shape[1]
    stretches = (n_s + STRETCH - 1) // STRETCH
    inner = n_p if coherent else 1
    outer = n_p // inner
    frac, base, side, phase, w = scratch(x.dtype, len(taps))
    phase[0], phase[1] = 1, 0
    for task in range(start, stop):
        b, rest = divmod(task, outer * stretches)
        row, stretch = divmod(rest, stretches)
        end = min(n_s, (stretch + 1) * STRETCH)
        for p in range(row * inner, (row + 1) * inner):
            pose = M[b % M.shape[0], p]
            for first in range(stretch * STRETCH, end, BLOCK):
                n = min(BLOCK, end - first)
                place(x, first, n, pose, grid, taps0, taps, frac, base, side)
                weigh(frac[0], n, table0, w[0])
                weigh(frac[1], n, table, w[1])
                weigh(frac[2], n, table, w[2])
                if t.shape[1]:
                    turn(x, first, n, t[b % t.shape[0], p], phase)
                gather_block(
                    V[b], grid, base, side, phase, w, columns, first, n, coherent, out[b, row], taps0, taps
                )
