"""Isotropic atoms to and from a grid, compiled: the loops of `density_cpu`.

Forward adds rows of the grid (runs along its last axis) for the planes x0 .. x1 that a task owns. Backward goes
over the same rows, reads the gradient of the grid there, and returns five sums per atom; nothing is stored between
the two passes. Within a row LANES points are computed at a time, in vector registers.

Symbols of a row: z grid steps from the atom, r² = q0 + z (2 q1 + g_zz z) in Å², u = r²/R², w(u) the taper,
amplitudes A_n and exponents κ_n < 0 with density Σ_n A_n 2^{κ_n r²}.
"""

import math

import numpy as np
from numba import njit

from bayesref.fourier.density_exp2 import FASTMATH, exp2

LANES = 16
GAUSSIANS = 6  # the widest form factors: five Gaussians and a constant
TAPER = 0.7  # the density falls to zero between r² = TAPER R² and R²
LN2 = math.log(2.0)
FOUR_PI2 = 4 * math.pi**2


@njit(inline="always", fastmath=FASTMATH)
def taper(u, T):
    """w(u) and dw/du: 1 below TAPER, 0 above 1, a cubic between, continuous with its slope."""
    t = min(max((u - T(TAPER)) * T(1 / (1 - TAPER)), T(0)), T(1))
    rest = T(1) - t
    return rest * rest * (T(1) + T(2) * t), t * rest * T(-6 / (1 - TAPER))


@njit(inline="always", fastmath=FASTMATH)
def fold(i, n):
    """i modulo n, for i within a few n: integer division would cost as much as the row itself."""
    while i < 0:
        i += n
    while i >= n:
        i -= n
    return i


@njit(inline="always", fastmath=FASTMATH)
def row_range(disc, q1, inverse_gzz, dz, T):
    """First grid step of a row inside the sphere, relative to the atom's cell, and their number.

    `disc` > 0 is the discriminant of r² = R² in z.
    """
    centre = dz - q1 * inverse_gzz
    half = math.sqrt(disc) * inverse_gzz
    low = int(centre - half + T(1024)) - 1023  # truncation is floor for positive numbers
    return low, int(centre + half + T(1024)) - 1023 - low


@njit(nogil=True, fastmath=FASTMATH)
def _add_row(out, offset, atom, j, q0, q1, gzz, z0, inverse):
    """out[offset + i] += w Σ_n A_n 2^{κ_n r²} at z = z0 + i."""
    T = out.dtype.type
    A0, A1, A2, A3, A4, A5 = atom[j, 0], atom[j, 1], atom[j, 2], atom[j, 3], atom[j, 4], atom[j, 5]
    k0, k1, k2, k3, k4, k5 = atom[j, 6], atom[j, 7], atom[j, 8], atom[j, 9], atom[j, 10], atom[j, 11]
    for i in range(LANES):
        z = z0 + T(np.int32(i))
        r2 = q0 + z * (T(2) * q1 + gzz * z)
        w, _ = taper(r2 * inverse, T)
        v = A0 * exp2(k0 * r2) + A1 * exp2(k1 * r2) + A2 * exp2(k2 * r2)
        v += A3 * exp2(k3 * r2) + A4 * exp2(k4 * r2) + A5 * exp2(k5 * r2)
        out[offset + np.uint64(i)] += w * v


@njit(nogil=True, fastmath=FASTMATH)
def _row_sums(G, offset, atom, j, q0, q1, gzz, z0, inverse):
    """Sums over a row of G times ρ, dρ/dr², z dρ/dr², the B derivative (times 4π²), and u dw/du ρ/w."""
    T = G.dtype.type
    A0, A1, A2, A3, A4, A5 = atom[j, 0], atom[j, 1], atom[j, 2], atom[j, 3], atom[j, 4], atom[j, 5]
    k0, k1, k2, k3, k4, k5 = atom[j, 6], atom[j, 7], atom[j, 8], atom[j, 9], atom[j, 10], atom[j, 11]
    s_value, s_slope, s_slope_z, s_B, s_radius = T(0), T(0), T(0), T(0), T(0)
    for i in range(LANES):
        z = z0 + T(np.int32(i))
        r2 = q0 + z * (T(2) * q1 + gzz * z)
        w, dw = taper(r2 * inverse, T)
        e0, e1, e2 = A0 * exp2(k0 * r2), A1 * exp2(k1 * r2), A2 * exp2(k2 * r2)
        e3, e4, e5 = A3 * exp2(k3 * r2), A4 * exp2(k4 * r2), A5 * exp2(k5 * r2)
        v = e0 + e1 + e2 + e3 + e4 + e5
        f0, f1, f2, f3, f4, f5 = k0 * e0, k1 * e1, k2 * e2, k3 * e3, k4 * e4, k5 * e5
        v1 = T(LN2) * (f0 + f1 + f2 + f3 + f4 + f5)
        v2 = T(LN2 * LN2) * (k0 * f0 + k1 * f1 + k2 * f2 + k3 * f3 + k4 * f4 + k5 * f5)
        Gi = G[offset + np.uint64(i)]
        slope = Gi * (v1 * w + v * dw * inverse)
        s_value += Gi * v * w
        s_slope += slope
        s_slope_z += slope * z
        s_B += Gi * w * (T(1.5) * v1 + r2 * v2)
        s_radius += Gi * v * dw * r2 * inverse
    return s_value, s_slope, s_slope_z, s_B, s_radius


def prepare(occupancy, B, a, b, index, dtype):
    """A_n = o a_n (4π/(b_n+B))^{3/2} and κ_n = -4π²/((b_n+B) ln 2) side by side, (atom, 2 GAUSSIANS), zero-padded."""
    beta = b[index] + B[:, None]
    q = 4 * math.pi / beta
    atom = np.zeros((len(B), 2 * GAUSSIANS), dtype)
    atom[:, : b.shape[1]] = occupancy[:, None] * a[index] * q * np.sqrt(q)
    atom[:, GAUSSIANS : GAUSSIANS + b.shape[1]] = -FOUR_PI2 / (beta * LN2)
    return (atom,)


@njit(nogil=True, fastmath=FASTMATH)
def metric(step):
    """g = stepᵀ step, Å², (3, 3): r² = nᵀ g n for n grid steps."""
    g = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            for k in range(3):
                g[i, j] += step[k, i] * step[k, j]
    return g


@njit(nogil=True, fastmath=FASTMATH)
def reach(g):
    """Grid steps along x and y per Å of radius, for the metric g (3, 3) of one grid step, Å²."""
    det = (
        g[0, 0] * (g[1, 1] * g[2, 2] - g[1, 2] ** 2)
        - g[0, 1] * (g[0, 1] * g[2, 2] - g[1, 2] * g[0, 2])
        + g[0, 2] * (g[0, 1] * g[1, 2] - g[1, 1] * g[0, 2])
    )
    return math.sqrt((g[1, 1] * g[2, 2] - g[1, 2] ** 2) / det), math.sqrt(
        (g[0, 0] * g[2, 2] - g[0, 2] ** 2) / det
    )


@njit(nogil=True, fastmath=FASTMATH)
def meets_slab(cx, mx, nx, x0, x1):
    """Whether planes cx-mx .. cx+mx, modulo nx, meet x0 .. x1."""
    return x1 - x0 >= nx or 2 * mx + 1 >= nx or (cx - mx - x0) % nx < x1 - x0 or (x0 - cx + mx) % nx <= 2 * mx


@njit(nogil=True, fastmath=FASTMATH, cache=True)
def splat(grid, shape, position, radius2, order, step, x0, x1, atom):
    """Add the atoms to planes x0 .. x1 of the flat `grid`; `position` in grid steps of `step` (columns, Å)."""
    T = grid.dtype.type
    nx, ny, nz = shape
    g = metric(step)
    wrap = np.empty(LANES, grid.dtype)
    gxx, gyy, gzz, gxy, gxz, gyz = T(g[0, 0]), T(g[1, 1]), T(g[2, 2]), T(g[0, 1]), T(g[0, 2]), T(g[1, 2])
    reach_x, reach_y = reach(g)
    for j in order:
        r2 = T(radius2[j])
        cx, cy, cz = round(position[j, 0]), round(position[j, 1]), round(position[j, 2])
        mx, my = int(math.sqrt(r2) * reach_x + 0.5), int(math.sqrt(r2) * reach_y + 0.5)
        if not meets_slab(cx, mx, nx, x0, x1):
            continue
        dx, dy, dz = T(position[j, 0] - cx), T(position[j, 1] - cy), T(position[j, 2] - cz)
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
                for at in range(low, low + count, LANES):
                    z = fold(cz + at, nz)
                    if z + LANES <= nz:
                        _add_row(grid, np.uint64(start + z), atom, j, q0, q1, gzz, T(at) - dz, T(1) / r2)
                        continue
                    wrap[:] = T(0)
                    _add_row(wrap, np.uint64(0), atom, j, q0, q1, gzz, T(at) - dz, T(1) / r2)
                    for i in range(LANES):
                        grid[start + fold(z + i, nz)] += wrap[i]


@njit(nogil=True, fastmath=FASTMATH, cache=True)
def gather(grid, shape, position, radius2, order, step, sums, first, last, atom):
    """Five sums per atom of unit occupancy, for order[first:last]: dL/d(position), dL/do, dL/dB, dL/dR²."""
    T = grid.dtype.type
    nx, ny, nz = shape
    g = metric(step)
    wrap = np.empty(LANES, grid.dtype)
    gxx, gyy, gzz, gxy, gxz, gyz = T(g[0, 0]), T(g[1, 1]), T(g[2, 2]), T(g[0, 1]), T(g[0, 2]), T(g[1, 2])
    reach_x, reach_y = reach(g)
    for j in order[first:last]:
        r2 = T(radius2[j])
        cx, cy, cz = round(position[j, 0]), round(position[j, 1]), round(position[j, 2])
        mx, my = int(math.sqrt(r2) * reach_x + 0.5), int(math.sqrt(r2) * reach_y + 0.5)
        dx, dy, dz = T(position[j, 0] - cx), T(position[j, 1] - cy), T(position[j, 2] - cz)
        tx, ty, tz, t_value, t_B, t_radius = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
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
                for at in range(low, low + count, LANES):
                    z = fold(cz + at, nz)
                    if z + LANES <= nz:
                        s = _row_sums(grid, np.uint64(start + z), atom, j, q0, q1, gzz, T(at) - dz, T(1) / r2)
                    else:
                        for i in range(LANES):
                            wrap[i] = grid[start + fold(z + i, nz)]
                        s = _row_sums(wrap, np.uint64(0), atom, j, q0, q1, gzz, T(at) - dz, T(1) / r2)
                    t_value += s[0]
                    tx += x * s[1]
                    ty += y * s[1]
                    tz += s[2]
                    t_B += s[3]
                    t_radius += s[4]
        for i in range(3):
            sums[j, i] = -2 * (g[i, 0] * tx + g[i, 1] * ty + g[i, 2] * tz)
        sums[j, 3], sums[j, 4], sums[j, 5] = t_value, t_B / FOUR_PI2, -t_radius / radius2[j]
