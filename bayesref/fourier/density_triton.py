"""Triton kernels of `density_cuda`.

Atoms come as `centre` (nearest grid point), `offset` (position minus centre, grid steps), amplitudes A (atom, gauss)
and exponents in units of ln 2: Q (atom, gauss) times r² for isotropic atoms, else Q (atom, gauss, 6) as a quadratic
form of grid steps. `metric` holds g11 g22 g33 g12 g13 g23 of a grid step, Å². Points run in tensors of fixed length,
so every sum has a fixed order.
"""

import triton
import triton.language as tl

TAPER = tl.constexpr(0.7)
LN2 = tl.constexpr(0.6931471805599453)
FOUR_PI2 = tl.constexpr(39.47841760435743)


@triton.jit
def _form(q, i, x, y, z):
    """xᵀ q x for the six elements at q + 6 i, order 11 22 33 12 13 23."""
    p = q + 6 * i
    diagonal = tl.load(p) * x * x + tl.load(p + 1) * y * y + tl.load(p + 2) * z * z
    return diagonal + 2 * (tl.load(p + 3) * x * y + tl.load(p + 4) * x * z + tl.load(p + 5) * y * z)


@triton.jit
def _taper(u):
    """w(u), dw/du: see `density`."""
    t = tl.minimum(tl.maximum((u - TAPER) / (1 - TAPER), 0.0), 1.0)
    return (1 - t) * (1 - t) * (1 + 2 * t), -6 * t * (1 - t) / (1 - TAPER)


@triton.jit
def _wrap(i, n):
    """i modulo n for any sign."""
    r = i % n
    return tl.where(r < 0, r + n, r)


@triton.jit
def splat(
    grid,
    start,
    entry_atom,
    entry_centre,
    offset,
    A,
    Q,
    radius2,
    metric,
    nx,
    ny,
    nz,
    bricks_y,
    bricks_z,
    tensor: tl.constexpr,
    brick: tl.constexpr,
    gaussians: tl.constexpr,
):
    """One brick of the grid: the sum over the atoms in its list."""
    program = tl.program_id(0)
    k = tl.arange(0, brick * brick * brick)
    ix = program // (bricks_y * bricks_z) * brick + k // (brick * brick)
    iy = program // bricks_z % bricks_y * brick + k // brick % brick
    iz = program % bricks_z * brick + k % brick
    total = tl.zeros([brick * brick * brick], dtype=grid.dtype.element_ty)
    for e in range(tl.load(start + program), tl.load(start + program + 1)):
        j = tl.load(entry_atom + e).to(tl.int64)
        x = (ix - tl.load(entry_centre + 3 * e)).to(grid.dtype.element_ty) - tl.load(offset + 3 * j)
        y = (iy - tl.load(entry_centre + 3 * e + 1)).to(grid.dtype.element_ty) - tl.load(offset + 3 * j + 1)
        z = (iz - tl.load(entry_centre + 3 * e + 2)).to(grid.dtype.element_ty) - tl.load(offset + 3 * j + 2)
        r2 = _form(metric, 0, x, y, z)
        w, _ = _taper(r2 / tl.load(radius2 + j))
        value = tl.zeros_like(r2)
        for n in tl.static_range(gaussians):
            if tensor:  # noqa: SIM108 (decided when the kernel is compiled)
                exponent = _form(Q, gaussians * j + n, x, y, z)
            else:
                exponent = tl.load(Q + gaussians * j + n) * r2
            value += tl.load(A + gaussians * j + n) * tl.exp2(exponent)
        total += w * value
    where = (ix.to(tl.int64) * ny + iy) * nz + iz
    tl.store(grid + where, total, mask=(ix < nx) & (iy < ny) & (iz < nz))


@triton.jit
def gather_iso(
    grid,
    centre,
    offset,
    reach,
    A,
    Q,
    radius2,
    sums,
    metric,
    nx,
    ny,
    nz,
    block: tl.constexpr,
    gaussians: tl.constexpr,
):
    """One isotropic atom: Σ G dρ/dr² (x, y, z), Σ G ρ, Σ G u ρ w'/w, Σ G dρ/dB."""
    j = tl.program_id(0).to(tl.int64)
    mx, my, mz = tl.load(reach + 3 * j), tl.load(reach + 3 * j + 1), tl.load(reach + 3 * j + 2)
    zero = tl.zeros([block], dtype=grid.dtype.element_ty)
    sx, sy, sz, s_value, s_radius, s_B = zero, zero, zero, zero, zero, zero
    inverse = 1 / tl.load(radius2 + j)
    count = (2 * mx + 1) * (2 * my + 1) * (2 * mz + 1)
    for first in range(0, count, block):
        k = first + tl.arange(0, block)
        ix = k // ((2 * my + 1) * (2 * mz + 1)) - mx
        iy = k // (2 * mz + 1) % (2 * my + 1) - my
        iz = k % (2 * mz + 1) - mz
        x = ix.to(zero.dtype) - tl.load(offset + 3 * j)
        y = iy.to(zero.dtype) - tl.load(offset + 3 * j + 1)
        z = iz.to(zero.dtype) - tl.load(offset + 3 * j + 2)
        gx = _wrap(tl.load(centre + 3 * j) + ix, nx).to(tl.int64)
        gy = _wrap(tl.load(centre + 3 * j + 1) + iy, ny)
        gz = _wrap(tl.load(centre + 3 * j + 2) + iz, nz)
        r2 = _form(metric, 0, x, y, z)
        G = tl.load(grid + (gx * ny + gy) * nz + gz, mask=(k < count) & (r2 * inverse < 1), other=0.0)
        w, dw = _taper(r2 * inverse)
        v, v1, v2 = tl.zeros_like(r2), tl.zeros_like(r2), tl.zeros_like(r2)
        for n in tl.static_range(gaussians):
            q = LN2 * tl.load(Q + gaussians * j + n)
            E = tl.load(A + gaussians * j + n) * tl.exp2(tl.load(Q + gaussians * j + n) * r2)
            v += E
            v1 += q * E
            v2 += q * q * E
        slope = G * (v1 * w + v * dw * inverse)
        sx += slope * x
        sy += slope * y
        sz += slope * z
        s_value += G * v * w
        s_radius += G * v * dw * r2 * inverse
        s_B += G * w * (1.5 * v1 + r2 * v2)
    tl.store(sums + 16 * j, tl.sum(sx, 0))
    tl.store(sums + 16 * j + 1, tl.sum(sy, 0))
    tl.store(sums + 16 * j + 2, tl.sum(sz, 0))
    tl.store(sums + 16 * j + 3, tl.sum(s_value, 0))
    tl.store(sums + 16 * j + 4, tl.sum(s_radius, 0))
    tl.store(sums + 16 * j + 5, tl.sum(s_B, 0))


@triton.jit
def gather_tensor(
    grid,
    centre,
    offset,
    reach,
    A,
    Q,
    P,
    S,
    radius2,
    sums,
    metric,
    nx,
    ny,
    nz,
    block: tl.constexpr,
    gaussians: tl.constexpr,
):
    """One anisotropic atom: taper slopes, Σ G ρ, Σ G u ρ w'/w, Σ G w E QΔ, Σ G w E (4π² y yᵀ - M⁻¹/2), y = P Δ."""
    j = tl.program_id(0).to(tl.int64)
    mx, my, mz = tl.load(reach + 3 * j), tl.load(reach + 3 * j + 1), tl.load(reach + 3 * j + 2)
    zero = tl.zeros([block], dtype=grid.dtype.element_ty)
    sx, sy, sz, s_value, s_radius = zero, zero, zero, zero, zero
    fx, fy, fz = zero, zero, zero
    b0, b1, b2, b3, b4, b5 = zero, zero, zero, zero, zero, zero
    inverse = 1 / tl.load(radius2 + j)
    count = (2 * mx + 1) * (2 * my + 1) * (2 * mz + 1)
    for first in range(0, count, block):
        k = first + tl.arange(0, block)
        ix = k // ((2 * my + 1) * (2 * mz + 1)) - mx
        iy = k // (2 * mz + 1) % (2 * my + 1) - my
        iz = k % (2 * mz + 1) - mz
        x = ix.to(zero.dtype) - tl.load(offset + 3 * j)
        y = iy.to(zero.dtype) - tl.load(offset + 3 * j + 1)
        z = iz.to(zero.dtype) - tl.load(offset + 3 * j + 2)
        gx = _wrap(tl.load(centre + 3 * j) + ix, nx).to(tl.int64)
        gy = _wrap(tl.load(centre + 3 * j + 1) + iy, ny)
        gz = _wrap(tl.load(centre + 3 * j + 2) + iz, nz)
        r2 = _form(metric, 0, x, y, z)
        G = tl.load(grid + (gx * ny + gy) * nz + gz, mask=(k < count) & (r2 * inverse < 1), other=0.0)
        w, dw = _taper(r2 * inverse)
        v = tl.zeros_like(r2)
        for n in tl.static_range(gaussians):
            i = gaussians * j + n
            E = tl.load(A + i) * tl.exp2(_form(Q, i, x, y, z))
            v += E
            E = E * w * G
            q, p, s = Q + 6 * i, P + 9 * i, S + 6 * i
            fx += E * (tl.load(q) * x + tl.load(q + 3) * y + tl.load(q + 4) * z)
            fy += E * (tl.load(q + 3) * x + tl.load(q + 1) * y + tl.load(q + 5) * z)
            fz += E * (tl.load(q + 4) * x + tl.load(q + 5) * y + tl.load(q + 2) * z)
            yx = tl.load(p) * x + tl.load(p + 1) * y + tl.load(p + 2) * z
            yy = tl.load(p + 3) * x + tl.load(p + 4) * y + tl.load(p + 5) * z
            yz = tl.load(p + 6) * x + tl.load(p + 7) * y + tl.load(p + 8) * z
            b0 += E * (FOUR_PI2 * yx * yx - tl.load(s) / 2)
            b1 += E * (FOUR_PI2 * yy * yy - tl.load(s + 1) / 2)
            b2 += E * (FOUR_PI2 * yz * yz - tl.load(s + 2) / 2)
            b3 += E * (2 * FOUR_PI2 * yx * yy - tl.load(s + 3))
            b4 += E * (2 * FOUR_PI2 * yx * yz - tl.load(s + 4))
            b5 += E * (2 * FOUR_PI2 * yy * yz - tl.load(s + 5))
        slope = G * v * dw * inverse
        sx += slope * x
        sy += slope * y
        sz += slope * z
        s_value += G * v * w
        s_radius += slope * r2
    out = sums + 16 * j
    tl.store(out, tl.sum(sx, 0))
    tl.store(out + 1, tl.sum(sy, 0))
    tl.store(out + 2, tl.sum(sz, 0))
    tl.store(out + 3, tl.sum(s_value, 0))
    tl.store(out + 4, tl.sum(s_radius, 0))
    tl.store(out + 5, tl.sum(b0, 0))
    tl.store(out + 6, tl.sum(b1, 0))
    tl.store(out + 7, tl.sum(b2, 0))
    tl.store(out + 8, tl.sum(b3, 0))
    tl.store(out + 9, tl.sum(b4, 0))
    tl.store(out + 10, tl.sum(b5, 0))
    tl.store(out + 11, tl.sum(fx, 0))
    tl.store(out + 12, tl.sum(fy, 0))
    tl.store(out + 13, tl.sum(fz, 0))
