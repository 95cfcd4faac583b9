"""Anisotropic atoms to and from a grid, compiled: the loops of `density_cpu`.

As `density_cpu_iso`, with one quadratic form per Gaussian. In a row at (x, y), z grid steps from the atom:

    E_n = A_n 2^{c_n + z (d_n + z e_n)}              the exponent is -4π² rᵀ M_n⁻¹ r / ln 2
    ∂L/∂B = Σ_n 4π² M_n⁻¹ H T_n Hᵀ M_n⁻¹ - ½ t_n M_n⁻¹          t_n = Σ G w E_n, T_n = Σ G w E_n n nᵀ

H holds the grid steps as columns, n counts steps from the atom, G is the gradient of the grid.
"""

import math

import numpy as np
from numba import njit

from bayesref.fourier.density_cpu_iso import (
    FOUR_PI2,
    GAUSSIANS,
    LANES,
    LN2,
    fold,
    meets_slab,
    metric,
    reach,
    row_range,
    taper,
)
from bayesref.fourier.density_exp2 import FASTMATH, exp2


@njit(nogil=True, fastmath=FASTMATH)
def _add_row(out, offset, A, c, d, e, q0, q1, gzz, z0, inverse):
    """out[offset + i] += w Σ_n E_n at z = z0 + i."""
    T = out.dtype.type
    A0, A1, A2, A3, A4, A5 = A[0], A[1], A[2], A[3], A[4], A[5]
    c0, c1, c2, c3, c4, c5 = c[0], c[1], c[2], c[3], c[4], c[5]
    d0, d1, d2, d3, d4, d5 = d[0], d[1], d[2], d[3], d[4], d[5]
    e0, e1, e2, e3, e4, e5 = e[0], e[1], e[2], e[3], e[4], e[5]
    for i in range(LANES):
        z = z0 + T(np.int32(i))
        w, _ = taper((q0 + z * (T(2) * q1 + gzz * z)) * inverse, T)
        v = A0 * exp2(c0 + z * (d0 + z * e0)) + A1 * exp2(c1 + z * (d1 + z * e1))
        v += A2 * exp2(c2 + z * (d2 + z * e2)) + A3 * exp2(c3 + z * (d3 + z * e3))
        v += A4 * exp2(c4 + z * (d4 + z * e4)) + A5 * exp2(c5 + z * (d5 + z * e5))
        out[offset + np.uint64(i)] += w * v


@njit(nogil=True, fastmath=FASTMATH)
def _taper_sums(G, offset, v, q0, q1, gzz, z0, inverse):
    """Sums of G ρ/w times dw/dr², z dw/dr² and u dw/du; v is ρ/w of the row."""
    T = G.dtype.type
    s_slope, s_slope_z, s_radius = T(0), T(0), T(0)
    for i in range(LANES):
        z = z0 + T(np.int32(i))
        u = (q0 + z * (T(2) * q1 + gzz * z)) * inverse
        _, dw = taper(u, T)
        slope = G[offset + np.uint64(i)] * v[i] * dw
        s_slope += slope * inverse
        s_slope_z += slope * inverse * z
        s_radius += slope * u
    return s_slope, s_slope_z, s_radius


@njit(nogil=True, fastmath=FASTMATH)
def _moments(G, offset, v, A, c, d, e, q0, q1, gzz, z0, inverse):
    """Σ G w E, Σ G w E z, Σ G w E z² of one Gaussian over a row; adds E to v."""
    T = G.dtype.type
    s0, s1, s2 = T(0), T(0), T(0)
    for i in range(LANES):
        z = z0 + T(np.int32(i))
        w, _ = taper((q0 + z * (T(2) * q1 + gzz * z)) * inverse, T)
        E = A * exp2(c + z * (d + z * e))
        v[i] += E
        E *= w * G[offset + np.uint64(i)]
        s0 += E
        s1 += E * z
        s2 += E * z * z
    return s0, s1, s2


def prepare(occupancy, B, a, b, index, dtype):
    """What the kernels read of an atom; its Gaussians' quadratic forms are made as it comes up."""
    return occupancy, B, a, b, index


@njit(nogil=True, fastmath=FASTMATH)
def _gaussians(a, b, B, occupancy, step, A, Q, inverse):
    """A_n, Q_n = -4π²/ln 2 Hᵀ M_n⁻¹ H and M_n⁻¹, both in the order 11 22 33 12 13 23."""
    for n in range(GAUSSIANS):
        A[n], Q[n], inverse[n] = 0, 0, 0
    for n in range(len(a)):
        m0, m1, m2, m3, m4, m5 = B[0] + b[n], B[1] + b[n], B[2] + b[n], B[3], B[4], B[5]
        i0, i1, i2 = m1 * m2 - m5 * m5, m0 * m2 - m4 * m4, m0 * m1 - m3 * m3
        i3, i4, i5 = m4 * m5 - m3 * m2, m3 * m5 - m4 * m1, m3 * m4 - m0 * m5
        det = m0 * i0 + m3 * i3 + m4 * i4
        A[n] = occupancy * a[n] * (4 * math.pi) ** 1.5 / math.sqrt(det)
        S = inverse[n]
        S[0], S[1], S[2], S[3], S[4], S[5] = i0 / det, i1 / det, i2 / det, i3 / det, i4 / det, i5 / det
        for p in range(6):
            i, j = (p, p) if p < 3 else ((0, p - 2) if p < 5 else (1, 2))
            Q[n, p] = -FOUR_PI2 / LN2 * _form(S, step, i, j)


@njit(nogil=True, fastmath=FASTMATH)
def _form(S, H, i, j):
    """Column i of H times the symmetric S times column j."""
    x, y, z = H[0, j], H[1, j], H[2, j]
    return (
        H[0, i] * (S[0] * x + S[3] * y + S[4] * z)
        + H[1, i] * (S[3] * x + S[1] * y + S[5] * z)
        + H[2, i] * (S[4] * x + S[5] * y + S[2] * z)
    )


@njit(nogil=True, fastmath=FASTMATH)
def _lines(Q, x, y, c, d, e):
    """The exponents' polynomials in z on the row at (x, y)."""
    for n in range(GAUSSIANS):
        c[n] = Q[n, 0] * x * x + Q[n, 1] * y * y + 2 * Q[n, 3] * x * y
        d[n] = 2 * (Q[n, 4] * x + Q[n, 5] * y)
        e[n] = Q[n, 2]


@njit(nogil=True, fastmath=FASTMATH, cache=True)
def splat(grid, shape, position, radius2, order, step, x0, x1, occupancy, B, a, b, index):
    """Add the atoms to planes x0 .. x1 of the flat `grid`; `position` in grid steps of `step` (columns, Å)."""
    T = grid.dtype.type
    nx, ny, nz = shape
    g = metric(step)
    A, c = np.empty(GAUSSIANS, grid.dtype), np.empty(GAUSSIANS, grid.dtype)
    d, e = np.empty(GAUSSIANS, grid.dtype), np.empty(GAUSSIANS, grid.dtype)
    Q, inverse, wrap = (
        np.empty((GAUSSIANS, 6), grid.dtype),
        np.empty((GAUSSIANS, 6)),
        np.empty(LANES, grid.dtype),
    )
    gxx, gyy, gzz, gxy, gxz, gyz = T(g[0, 0]), T(g[1, 1]), T(g[2, 2]), T(g[0, 1]), T(g[0, 2]), T(g[1, 2])
    reach_x, reach_y = reach(g)
    for j in order:
        r2 = T(radius2[j])
        cx, cy, cz = round(position[j, 0]), round(position[j, 1]), round(position[j, 2])
        mx, my = int(math.sqrt(r2) * reach_x + 0.5), int(math.sqrt(r2) * reach_y + 0.5)
        if not meets_slab(cx, mx, nx, x0, x1):
            continue
        dx, dy, dz = T(position[j, 0] - cx), T(position[j, 1] - cy), T(position[j, 2] - cz)
        _gaussians(a[index[j]], b[index[j]], B[j], occupancy[j], step, A, Q, inverse)
        for ix in range(-mx, mx + 1):
            plane = fold(cx + ix, nx)
            if plane < x0 or plane >= x1:
                continue
            x = T(ix) - dx
            for iy in range(-my, my + 1):
                y = T(iy) - dy
                q0, q1 = gxx * x * x + T(2) * gxy * x * y + gyy * y * y, gxz * x + gyz * y
                disc = q1 * q1 - gzz * (q0 - r2)
                if disc <= T(0):
                    continue
                low, count = row_range(disc, q1, T(1) / gzz, dz, T)
                start = (plane * ny + fold(cy + iy, ny)) * nz
                _lines(Q, x, y, c, d, e)
                for at in range(low, low + count, LANES):
                    z = fold(cz + at, nz)
                    if z + LANES <= nz:
                        _add_row(grid, np.uint64(start + z), A, c, d, e, q0, q1, gzz, T(at) - dz, T(1) / r2)
                        continue
                    wrap[:] = T(0)
                    _add_row(wrap, np.uint64(0), A, c, d, e, q0, q1, gzz, T(at) - dz, T(1) / r2)
                    for i in range(LANES):
                        grid[start + fold(z + i, nz)] += wrap[i]


@njit(nogil=True, fastmath=FASTMATH)
def _row_into(grid, start, z, nz, A, c, d, e, q0, q1, gzz, z0, inverse, v, wrap, t, T2, x, y):
    """Add one run of a row to the sums `t` (position 3, R²) and the moments T2 (gauss, 10) of the atom."""
    G, offset = grid, np.uint64(start + z)
    if z + LANES > nz:
        for i in range(LANES):
            wrap[i] = grid[start + fold(z + i, nz)]
        G, offset = wrap, np.uint64(0)
    v[:] = 0
    for n in range(GAUSSIANS):
        if A[n] == 0:
            continue
        s0, s1, s2 = _moments(G, offset, v, A[n], c[n], d[n], e[n], q0, q1, gzz, z0, inverse)
        m = T2[n]
        m[0] += x * x * s0
        m[1] += y * y * s0
        m[2] += s2
        m[3] += x * y * s0
        m[4] += x * s1
        m[5] += y * s1
        m[6] += x * s0
        m[7] += y * s0
        m[8] += s1
        m[9] += s0
    slope, slope_z, radius = _taper_sums(G, offset, v, q0, q1, gzz, z0, inverse)
    t[0] += x * slope
    t[1] += y * slope
    t[2] += slope_z
    t[3] += radius


@njit(nogil=True, fastmath=FASTMATH)
def _finish(t, T2, Q, S, g, step, radius2, out):
    """The eleven gradients of an atom from its sums."""
    out[:] = 0
    for i in range(3):
        out[i] = -2 * (g[i, 0] * t[0] + g[i, 1] * t[1] + g[i, 2] * t[2])
    for n in range(GAUSSIANS):
        m, q = T2[n], Q[n]
        out[0] -= 2 * LN2 * (q[0] * m[6] + q[3] * m[7] + q[4] * m[8])
        out[1] -= 2 * LN2 * (q[3] * m[6] + q[1] * m[7] + q[5] * m[8])
        out[2] -= 2 * LN2 * (q[4] * m[6] + q[5] * m[7] + q[2] * m[8])
        out[3] += m[9]
        # P = M⁻¹ H, so that M⁻¹ H T Hᵀ M⁻¹ = P T Pᵀ; off-diagonal elements count twice in a symmetric tensor
        P = np.zeros((3, 3))
        for k in range(3):
            x, y, z = step[0, k], step[1, k], step[2, k]
            P[0, k] = S[n, 0] * x + S[n, 3] * y + S[n, 4] * z
            P[1, k] = S[n, 3] * x + S[n, 1] * y + S[n, 5] * z
            P[2, k] = S[n, 4] * x + S[n, 5] * y + S[n, 2] * z
        for p in range(6):
            i, j = (p, p) if p < 3 else ((0, p - 2) if p < 5 else (1, 2))
            second = _form(m, P.T, i, j)
            out[4 + p] += (FOUR_PI2 * second - 0.5 * m[9] * S[n, p]) * (1 if p < 3 else 2)
    out[10] = -t[3] / radius2


@njit(nogil=True, fastmath=FASTMATH, cache=True)
def gather(grid, shape, position, radius2, order, step, sums, first, last, occupancy, B, a, b, index):
    """Eleven sums per atom of unit occupancy: dL/d(position), dL/do, dL/dB (6), dL/dR²."""
    T = grid.dtype.type
    nx, ny, nz = shape
    g = metric(step)
    A, c = np.empty(GAUSSIANS, grid.dtype), np.empty(GAUSSIANS, grid.dtype)
    d, e = np.empty(GAUSSIANS, grid.dtype), np.empty(GAUSSIANS, grid.dtype)
    Q, inverse = np.empty((GAUSSIANS, 6), grid.dtype), np.empty((GAUSSIANS, 6))
    v, wrap = np.empty(LANES, grid.dtype), np.empty(LANES, grid.dtype)
    t, T2 = np.empty(4), np.empty((GAUSSIANS, 10))
    gxx, gyy, gzz, gxy, gxz, gyz = T(g[0, 0]), T(g[1, 1]), T(g[2, 2]), T(g[0, 1]), T(g[0, 2]), T(g[1, 2])
    reach_x, reach_y = reach(g)
    for j in order[first:last]:
        r2 = T(radius2[j])
        cx, cy, cz = round(position[j, 0]), round(position[j, 1]), round(position[j, 2])
        mx, my = int(math.sqrt(r2) * reach_x + 0.5), int(math.sqrt(r2) * reach_y + 0.5)
        dx, dy, dz = T(position[j, 0] - cx), T(position[j, 1] - cy), T(position[j, 2] - cz)
        _gaussians(a[index[j]], b[index[j]], B[j], occupancy[j], step, A, Q, inverse)
        t[:], T2[:] = 0, 0
        for ix in range(-mx, mx + 1):
            x = T(ix) - dx
            plane = fold(cx + ix, nx)
            for iy in range(-my, my + 1):
                y = T(iy) - dy
                q0, q1 = gxx * x * x + T(2) * gxy * x * y + gyy * y * y, gxz * x + gyz * y
                disc = q1 * q1 - gzz * (q0 - r2)
                if disc <= T(0):
                    continue
                low, count = row_range(disc, q1, T(1) / gzz, dz, T)
                start = (plane * ny + fold(cy + iy, ny)) * nz
                _lines(Q, x, y, c, d, e)
                for at in range(low, low + count, LANES):
                    _row_into(
                        grid,
                        start,
                        fold(cz + at, nz),
                        nz,
                        A,
                        c,
                        d,
                        e,
                        q0,
                        q1,
                        gzz,
                        T(at) - dz,
                        T(1) / r2,
                        v,
                        wrap,
                        t,
                        T2,
                        x,
                        y,
                    )
        _finish(t, T2, Q, inverse, g, step, radius2[j], sums[j])
