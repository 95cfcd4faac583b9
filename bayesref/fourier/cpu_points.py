"""Where a block of samples lies: coordinates, Friedel side, taps, weights and phases, in vector loops.

    u = M x,   u₂ reduced to (-N₂/2, N₂/2],   v = side · u with side = ±1 such that v₂ ≥ 0
    base = first tap of v,   frac = f - ½,   w[k] = Σ_j table[k, j] frac^j,   phase = e^{-2πi x·t}

The half-space is folded here, once per sample: a sample with side = -1 is the conjugate of the one at v.
Only taps that reach below plane 0 or past plane N₂/2 are folded again, one by one (`mirrors`).
"""

import math

import numpy as np
from numba import njit

from bayesref.fourier.cpu_rows import BLOCK

# cos and sin of angles up to π/2 by their series: libm's calls would cost more than the sample itself.
_COS = np.array([(-1) ** m / math.factorial(2 * m) for m in range(12)])
_SIN = np.array([(-1) ** m / math.factorial(2 * m + 1) for m in range(12)])


@njit(nogil=True, error_model="numpy", inline="always")
def scratch(real, n_taps):
    """Arrays of one block: frac, base (3, BLOCK), side (BLOCK,), phase (2, BLOCK), w (3, taps, BLOCK)."""
    return (
        np.empty((3, BLOCK), real),
        np.empty((3, BLOCK), np.int64),
        np.empty(BLOCK, real),
        np.empty((2, BLOCK), real),
        np.empty((3, n_taps, BLOCK), real),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def place(x, first, n, M, grid, taps0, taps, frac, base, side):
    """Fill `frac`, `base`, `side` for points first .. first+n; nothing fuses: all callers round alike."""
    real = x.dtype.type
    N0, N1, N2 = real(grid[0]), real(grid[1]), real(grid[2])
    lift0, lift = real(0.5 * (len(taps0) % 2)), real(0.5 * (len(taps) % 2))
    back0, back = (len(taps0) - 1) // 2, (len(taps) - 1) // 2
    half, one = real(0.5), real(1)
    per0, per1, per2 = one / N0, one / N1, one / N2
    # Locals, because a store to `frac` might change M for all the compiler knows.
    m00, m01, m02 = M[0, 0], M[0, 1], M[0, 2]
    m10, m11, m12 = M[1, 0], M[1, 1], M[1, 2]
    m20, m21, m22 = M[2, 0], M[2, 1], M[2, 2]
    for j in range(n):
        a, b, c = x[0, first + j], x[1, first + j], x[2, first + j]
        u0 = m00 * a + m01 * b + m02 * c
        u1 = m10 * a + m11 * b + m12 * c
        u2 = m20 * a + m21 * b + m22 * c
        u2 -= N2 * np.ceil(u2 * per2 - half)
        s = one if u2 >= 0 else -one
        u0, u1, u2 = s * u0 + lift0, s * u1 + lift, s * u2 + lift
        q0, q1, q2 = np.floor(u0), np.floor(u1), np.floor(u2)
        frac[0, j], frac[1, j], frac[2, j] = u0 - q0 - half, u1 - q1 - half, u2 - q2 - half
        # q is whole, so the half keeps a rounded 1/N from missing a period.
        q0 -= N0 * np.floor((q0 + half) * per0)
        q1 -= N1 * np.floor((q1 + half) * per1)
        # Reduction of a huge coordinate can land a rounding error outside the grid; memory stays safe.
        base[0, j] = min(max(np.int64(q0), 0), grid[0] - 1) - back0
        base[1, j] = min(max(np.int64(q1), 0), grid[1] - 1) - back
        base[2, j] = min(max(np.int64(q2), 0), grid[2] // 2 + 1) - back
        side[j] = s


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def weigh(frac, n, table, w):
    """w[k, j] = Σ_d table[k, d] frac[j]^d by Horner's rule."""
    last = table.shape[1] - 1
    for k in range(table.shape[0]):
        for j in range(n):
            w[k, j] = table[k, last]
        for d in range(last - 1, -1, -1):
            c = table[k, d]
            for j in range(n):
                w[k, j] = w[k, j] * frac[j] + c


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def turn(x, first, n, t, phase):
    """phase = (cos, -sin) of 2π x·t, accurate to a few roundings of the number of turns."""
    real = x.dtype.type
    terms = 12 if x.itemsize == 8 else 7
    t0, t1, t2 = t[0], t[1], t[2]
    for j in range(n):
        cycles = x[0, first + j] * t0 + x[1, first + j] * t1 + x[2, first + j] * t2
        q = np.floor(real(2) * cycles + real(0.5))
        sign = real(1) - real(2) * (q - real(2) * np.floor(real(0.5) * q))
        a = real(2 * np.pi) * (cycles - real(0.5) * q)
        a2, c, s = a * a, real(0), real(0)
        for m in range(terms - 1, -1, -1):
            c = c * a2 + real(_COS[m])
            s = s * a2 + real(_SIN[m])
        phase[0, j] = sign * c
        phase[1, j] = -sign * a * s


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def offsets(base, size, stride, start, taps, out):
    """out[k] = start + stride · ((base + k) mod size) for a base at most one period away."""
    for k in range(len(taps)):
        n = base + k
        out[k] = (n + size if n < 0 else n - size if n >= size else n) * stride + start


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def mirrors(base, grid, table):
    """Where the taps of a sample on an edge of the stored half lie; `table` (8, taps) int64.

    Rows 0, 1: offset of plane n₀ and of plane -n₀; 2, 3: of line n₁ and of line -n₁; 4: column stored for
    n₂; 5: 1 where n₂ lies outside the stored half, so that the conjugate of the mirrored point is stored;
    6, 7: the planes themselves. Offsets count complex numbers.
    """
    half = grid[2] // 2 + 1
    for k in range(table.shape[1]):
        n0, n1, n2 = (base[0] + k) % grid[0], (base[1] + k) % grid[1], (base[2] + k) % grid[2]
        m0, m1 = (grid[0] - n0) % grid[0], (grid[1] - n1) % grid[1]
        folded = n2 > grid[2] // 2
        table[0, k], table[1, k] = n0 * grid[1] * half, m0 * grid[1] * half
        table[2, k], table[3, k] = n1 * half, m1 * half
        table[4, k] = grid[2] - n2 if folded else n2
        table[5, k] = 1 if folded else 0
        table[6, k], table[7, k] = n0, m0
