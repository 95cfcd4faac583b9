"""Compiled `insert`, the exact transpose of `sample`, without atomics.

    V_b[n] += Σ_{p, s} K(M_p x_s - n) e^{+2πi x_s·t_p} g[b, p, column_s]

One task owns a range of planes n₀ and visits every sample that touches them, in the order (p, s). Each voxel
is therefore a sum in that order whatever the ranges are: results are the same to the last bit for any number
of threads. A sample on a border is visited by both owners, each writing its own planes.
"""

import numpy as np
from numba import njit

from bayesref.fourier.cpu_points import mirrors, offsets, place, scratch, turn, weigh
from bayesref.fourier.cpu_rows import BLOCK, scatter_rows


@njit(cache=True, nogil=True, error_model="numpy")
def edge_add(V, grid, base, w0, w1, w2, j, re, im, low, high, taps0, taps):
    """Tap by tap where a row leaves the stored half; planes outside low .. high belong to another task."""
    where = np.empty((8, len(taps)), np.int64)
    mirrors(base[:, j], grid, where)
    for k0 in range(len(taps0)):
        for k1 in range(len(taps)):
            w = w0[k0, j] * w1[k1, j]
            for k2 in range(len(taps)):
                f = where[5, k2]
                if low <= where[6 + f, k0] < high:
                    at = 2 * (where[f, k0] + where[2 + f, k1] + where[4, k2])
                    V[at] += w * w2[k2, j] * re
                    V[at + 1] += w * w2[k2, j] * (-im if f else im)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def own(plane, low, high, stride):
    """Mark planes of other tasks by -1; how many are left."""
    mine = 0
    for k in range(len(plane)):
        if low * stride <= plane[k] < high * stride:
            mine += 1
        else:
            plane[k] = -1
    return mine


@njit(cache=True, nogil=True, error_model="numpy")
def scatter_block(V, grid, base, side, phase, w, columns, first, n, g, low, high, taps0, taps):
    """Add one block of samples to the planes low .. high of V."""
    half = grid[2] // 2 + 1
    stride = 2 * half * grid[1]
    plane, line = np.empty(len(taps0), np.int64), np.empty(len(taps), np.int64)
    w0, w1, w2 = w[0], w[1], w[2]
    for j in range(n):
        at = 2 * columns[first + j]
        re = phase[0, j] * g[at] + phase[1, j] * g[at + 1]
        im = side[j] * (phase[0, j] * g[at + 1] - phase[1, j] * g[at])
        left = base[2, j]
        if left < 0 or left + len(taps) > half:
            edge_add(V, grid, base, w0, w1, w2, j, re, im, low, high, taps0, taps)
            continue
        offsets(base[0, j], grid[0], stride, 0, taps0, plane)
        if own(plane, low, high, stride):
            offsets(base[1, j], grid[1], 2 * half, 2 * left, taps, line)
            scatter_rows(V, plane, line, w0, w1, w2, j, re, im, taps0, taps)


@njit(cache=True, nogil=True, error_model="numpy")
def scatter(g, x, M, t, columns, table0, table, grid, taps0, taps, coherent, borders, V, start, stop):
    """Tasks start .. stop: batch b, planes borders[i] .. borders[i+1]. V (b, n), g (b, p, column)."""
    frac, base, side, phase, w = scratch(x.dtype, len(taps))
    phase[0], phase[1] = 1, 0
    for task in range(start, stop):
        b, slab = divmod(task, len(borders) - 1)
        low, high = borders[slab], borders[slab + 1]
        for p in range(M.shape[1]):
            pose = M[b % M.shape[0], p]
            values = g[b, 0 if coherent else p]
            for first in range(0, x.shape[1], BLOCK):
                n = min(BLOCK, x.shape[1] - first)
                place(x, first, n, pose, grid, taps0, taps, frac, base, side)
                weigh(frac[0], n, table0, w[0])
                weigh(frac[1], n, table, w[1])
                weigh(frac[2], n, table, w[2])
                if t.shape[1]:
                    turn(x, first, n, t[b % t.shape[0], p], phase)
                scatter_block(
                    V[b], grid, base, side, phase, w, columns, first, n, values, low, high, taps0, taps
                )
