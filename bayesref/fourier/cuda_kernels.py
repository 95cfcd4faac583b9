"""Triton kernels of `cuda`: points read their taps, grid points collect their samples.

Complex arrays come as real ones, real and imaginary parts in turn. Where a sample lies is said in `cpu_points`;
`table` (taps, degree + 1) holds the kernel's polynomials and `slope` those of its derivative. With `flat` the grid
has one plane and a single tap of weight 1 along it.
"""

import triton
import triton.language as tl

TWO_PI = tl.constexpr(6.283185307179586)


@triton.jit
def _wrap(i, n):
    """i modulo n for any sign."""
    r = i % n
    return tl.where(r < 0, r + n, r)


@triton.jit
def _axis(u, taps: tl.constexpr):
    """Index of the first tap, int64, and frac = f - ½."""
    lifted = u + 0.5 * (taps % 2)
    q = tl.floor(lifted)
    return q.to(tl.int64) - (taps - 1) // 2, lifted - q - 0.5


@triton.jit
def _weight(table, k, degree: tl.constexpr, f):
    """Σ_d table[k, d] f^d."""
    row = table + k * (degree + 1)
    w = tl.load(row + degree) + 0 * f
    for d in tl.static_range(degree):
        w = w * f + tl.load(row + degree - 1 - d)
    return w


@triton.jit
def _place(x0, x1, x2, M, N2):
    """Folded coordinates v and the side of u = M x."""
    u0 = tl.load(M) * x0 + tl.load(M + 1) * x1 + tl.load(M + 2) * x2
    u1 = tl.load(M + 3) * x0 + tl.load(M + 4) * x1 + tl.load(M + 5) * x2
    u2 = tl.load(M + 6) * x0 + tl.load(M + 7) * x1 + tl.load(M + 8) * x2
    u2 = u2 - N2 * tl.ceil(u2 / N2 - 0.5)
    side = tl.where(u2 >= 0, 1.0, -1.0).to(u2.dtype)
    return side * u0, side * u1, side * u2, side


@triton.jit
def _turn(x0, x1, x2, t):
    """cos and -sin of 2π x·t."""
    cycles = tl.load(t) * x0 + tl.load(t + 1) * x1 + tl.load(t + 2) * x2
    angle = (cycles - tl.floor(cycles + 0.5)) * TWO_PI
    return tl.cos(angle), -tl.sin(angle)


@triton.jit
def _read(V, n0, n1, n2, N0, N1, N2, mask):
    """Value at any grid point, through Friedel's law where it is not stored."""
    half = N2 // 2 + 1
    n2 = _wrap(n2, N2)
    folded = n2 > N2 // 2
    n0, n1 = _wrap(tl.where(folded, -n0, n0), N0), _wrap(tl.where(folded, -n1, n1), N1)
    at = V + 2 * ((n0 * N1 + n1) * half + tl.where(folded, N2 - n2, n2))
    re, im = tl.load(at, mask=mask, other=0.0), tl.load(at + 1, mask=mask, other=0.0)
    return re, tl.where(folded, -im, im)


@triton.jit
def _points(x, n_s, block: tl.constexpr):
    """Indices of this program's points, which of them exist, and their coordinates; x is (3, s)."""
    s = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    mask = s < n_s
    x0 = tl.load(x + s, mask=mask, other=0.0)
    x1 = tl.load(x + n_s + s, mask=mask, other=0.0)
    x2 = tl.load(x + 2 * n_s + s, mask=mask, other=0.0)
    return s, mask, x0, x1, x2


@triton.jit
def _gather_one(
    V, x0, x1, x2, mask, M, table, N0, N1, N2, flat: tl.constexpr, taps: tl.constexpr, degree: tl.constexpr
):
    """Σ K V for one pose, as (real, imaginary)."""
    v0, v1, v2, side = _place(x0, x1, x2, M, N2)
    b0, f0 = _axis(v0, 1 if flat else taps)
    b1, f1 = _axis(v1, taps)
    b2, f2 = _axis(v2, taps)
    re, im = tl.zeros_like(v0), tl.zeros_like(v0)
    for k0 in range(1 if flat else taps):
        w0 = 1.0 + 0 * f0 if flat else _weight(table, k0, degree, f0)
        for k1 in range(taps):
            w01 = w0 * _weight(table, k1, degree, f1)
            for k2 in range(taps):
                w = w01 * _weight(table, k2, degree, f2)
                a, b = _read(V, b0 + k0, b1 + k1, b2 + k2, N0, N1, N2, mask)
                re += w * a
                im += w * b
    return re, side * im


@triton.jit
def gather(
    V, x, M, t, columns, table, out, n_s, n_p, n_columns, M_stride, t_stride, N0, N1, N2,
    shifted: tl.constexpr, coherent: tl.constexpr, flat: tl.constexpr, taps: tl.constexpr,
    degree: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """One block of points of one volume and pose; with `coherent` of one volume and every pose in turn."""
    s, mask, x0, x1, x2 = _points(x, n_s, block)
    row = tl.program_id(1).to(tl.int64)
    b = row if coherent else row // n_p
    first = 0 if coherent else row % n_p
    total_re, total_im = tl.zeros_like(x0), tl.zeros_like(x0)
    grid = V + b * N0 * N1 * (N2 // 2 + 1) * 2
    for i in range(n_p if coherent else 1):
        p = first + i
        pose = M + b * M_stride + 9 * p
        re, im = _gather_one(grid, x0, x1, x2, mask, pose, table, N0, N1, N2, flat, taps, degree)
        if shifted:
            c, z = _turn(x0, x1, x2, t + b * t_stride + 3 * p)
            re, im = c * re - z * im, c * im + z * re
        total_re += re
        total_im += im
    at = out + 2 * (row * n_columns + tl.load(columns + s, mask=mask, other=0))
    tl.store(at, total_re, mask=mask)
    tl.store(at + 1, total_im, mask=mask)


@triton.jit
def locate(
    g, x, M, t, columns, cell, frac, value, n_s, n_columns, g_stride, N0, N1, N2,
    shifted: tl.constexpr, flat: tl.constexpr, taps: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """For every sample of one volume: the cell of its first tap, frac (3, n) and the value it adds, (n, 2)."""
    s, mask, x0, x1, x2 = _points(x, n_s, block)
    p = tl.program_id(1).to(tl.int64)
    n = tl.num_programs(1).to(tl.int64) * n_s
    v0, v1, v2, side = _place(x0, x1, x2, M + 9 * p, N2)
    b0, f0 = _axis(v0, 1 if flat else taps)
    b1, f1 = _axis(v1, taps)
    b2, f2 = _axis(v2, taps)
    at = g + p * g_stride + 2 * tl.load(columns + s, mask=mask, other=0)
    re, im = tl.load(at, mask=mask, other=0.0), tl.load(at + 1, mask=mask, other=0.0)
    if shifted:
        c, z = _turn(x0, x1, x2, t + 3 * p)
        re, im = c * re + z * im, c * im - z * re
    j = p * n_s + s
    deep = N2 // 2 + 2
    where = (_wrap(b0, N0) * N1 + _wrap(b1, N1)) * deep + b2 + (taps - 1) // 2
    tl.store(cell + j, where, mask=mask)
    tl.store(frac + j, f0, mask=mask)
    tl.store(frac + n + j, f1, mask=mask)
    tl.store(frac + 2 * n + j, f2, mask=mask)
    tl.store(value + 2 * j, re, mask=mask)
    tl.store(value + 2 * j + 1, side * im, mask=mask)


@triton.jit
def collect(
    V, start, order, frac, value, table, n, first_column, n_column, N0, N1, N2,
    mirrored: tl.constexpr, period: tl.constexpr, flat: tl.constexpr, taps: tl.constexpr,
    degree: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Add to a block of stored grid points the samples whose taps meet them, in the order of the samples.

    A tap meets the stored point n at n itself, or at -n where `mirrored`, `period` periods up along the last axis.
    """
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = i // (N1 * n_column) < N0
    n0, n1, n2 = i // (N1 * n_column), i // n_column % N1, first_column + i % n_column
    re, im = tl.zeros([block], V.dtype.element_ty), tl.zeros([block], V.dtype.element_ty)
    deep = N2 // 2 + 2
    sign = -1 if mirrored else 1
    m0, m1, m2 = sign * n0, sign * n1, period * N2 + sign * n2
    for k0 in range(1 if flat else taps):
        for k1 in range(taps):
            line = (_wrap(m0 - k0, N0) * N1 + _wrap(m1 - k1, N1)) * deep
            for k2 in range(taps):
                last = m2 - k2 + (taps - 1) // 2
                there = inside & (last >= 0) & (last < deep)
                low = tl.load(start + line + last, mask=there, other=0)
                high = tl.load(start + line + last + 1, mask=there, other=0)
                for e in range(tl.max(high - low, 0)):
                    live = low + e < high
                    j = tl.load(order + low + e, mask=live, other=0)
                    w = _weight(table, k1, degree, tl.load(frac + n + j, mask=live, other=0.0))
                    w *= _weight(table, k2, degree, tl.load(frac + 2 * n + j, mask=live, other=0.0))
                    if not flat:
                        w *= _weight(table, k0, degree, tl.load(frac + j, mask=live, other=0.0))
                    re += w * tl.load(value + 2 * j, mask=live, other=0.0)
                    im += w * tl.load(value + 2 * j + 1, mask=live, other=0.0)
    at = V + 2 * ((n0 * N1 + n1) * (N2 // 2 + 1) + n2)
    tl.store(at, tl.load(at, mask=inside, other=0.0) + re, mask=inside)
    tl.store(at + 1, tl.load(at + 1, mask=inside, other=0.0) + sign * im, mask=inside)


@triton.jit
def _slopes(
    V, g, x0, x1, x2, mask, M, t, table, slope, N0, N1, N2, shifted: tl.constexpr, flat: tl.constexpr,
    taps: tl.constexpr, degree: tl.constexpr, slope_degree: tl.constexpr,
):  # fmt: skip
    """a = Re(h̄ ∂c/∂u) (three) and τ = 2π Im(h̄ c) of `cpu_slope`; g points at the values of these points."""
    v0, v1, v2, side = _place(x0, x1, x2, M, N2)
    b0, f0 = _axis(v0, 1 if flat else taps)
    b1, f1 = _axis(v1, taps)
    b2, f2 = _axis(v2, taps)
    re, im = tl.load(g, mask=mask, other=0.0), tl.load(g + 1, mask=mask, other=0.0)
    if shifted:
        c, z = _turn(x0, x1, x2, t)
        re, im = c * re + z * im, c * im - z * re
    a0, a1, a2, tau = tl.zeros_like(v0), tl.zeros_like(v0), tl.zeros_like(v0), tl.zeros_like(v0)
    for k0 in range(1 if flat else taps):
        w0 = 1.0 + 0 * f0 if flat else _weight(table, k0, degree, f0)
        d0 = 0 * f0 if flat else _weight(slope, k0, slope_degree, f0)
        for k1 in range(taps):
            w1, d1 = _weight(table, k1, degree, f1), _weight(slope, k1, slope_degree, f1)
            for k2 in range(taps):
                w2, d2 = _weight(table, k2, degree, f2), _weight(slope, k2, slope_degree, f2)
                p, q = _read(V, b0 + k0, b1 + k1, b2 + k2, N0, N1, N2, mask)
                along = side * re * p + im * q
                a0 += d0 * w1 * w2 * along
                a1 += w0 * d1 * w2 * along
                a2 += w0 * w1 * d2 * along
                tau += w0 * w1 * w2 * (re * side * q - im * p)
    return a0, a1, a2, tau * TWO_PI


@triton.jit
def slope_sums(
    V, g, x, M, t, columns, table, slope, sums, n_s, n_p, n_columns, g_p, M_stride, t_stride, N0, N1, N2,
    shifted: tl.constexpr, coherent: tl.constexpr, flat: tl.constexpr, taps: tl.constexpr,
    degree: tl.constexpr, slope_degree: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """∂M (9) and ∂t (3) of one volume and pose, summed over one block of points: sums (block, b·p, 12)."""
    s, mask, x0, x1, x2 = _points(x, n_s, block)
    row = tl.program_id(1).to(tl.int64)
    b, p = row // n_p, row % n_p
    values = g + 2 * (
        (b * g_p + (0 if coherent else p)) * n_columns + tl.load(columns + s, mask=mask, other=0)
    )
    a0, a1, a2, tau = _slopes(
        V + b * N0 * N1 * (N2 // 2 + 1) * 2, values, x0, x1, x2, mask, M + b * M_stride + 9 * p,
        t + b * t_stride + 3 * p, table, slope, N0, N1, N2, shifted, flat, taps, degree, slope_degree,
    )  # fmt: skip
    at = sums + 12 * (tl.program_id(0).to(tl.int64) * tl.num_programs(1) + row)
    tl.store(at, tl.sum(a0 * x0, 0))
    tl.store(at + 1, tl.sum(a0 * x1, 0))
    tl.store(at + 2, tl.sum(a0 * x2, 0))
    tl.store(at + 3, tl.sum(a1 * x0, 0))
    tl.store(at + 4, tl.sum(a1 * x1, 0))
    tl.store(at + 5, tl.sum(a1 * x2, 0))
    tl.store(at + 6, tl.sum(a2 * x0, 0))
    tl.store(at + 7, tl.sum(a2 * x1, 0))
    tl.store(at + 8, tl.sum(a2 * x2, 0))
    tl.store(at + 9, tl.sum(tau * x0, 0))
    tl.store(at + 10, tl.sum(tau * x1, 0))
    tl.store(at + 11, tl.sum(tau * x2, 0))


@triton.jit
def slope_points(
    V, g, x, M, t, columns, table, slope, grad_x, n_s, n_b, n_p, n_columns, g_p, M_stride, t_stride, N0, N1, N2,
    shifted: tl.constexpr, coherent: tl.constexpr, flat: tl.constexpr, taps: tl.constexpr,
    degree: tl.constexpr, slope_degree: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """∂x (3, s) of one block of points, summed over volumes and poses in their order."""
    s, mask, x0, x1, x2 = _points(x, n_s, block)
    zero = tl.program_id(0).to(tl.int64) * 0  # makes offsets 64-bit
    g0, g1, g2 = tl.zeros_like(x0), tl.zeros_like(x0), tl.zeros_like(x0)
    column = tl.load(columns + s, mask=mask, other=0)
    for row in range(n_b * n_p):
        b, p = (zero + row) // n_p, (zero + row) % n_p
        pose, shift = M + b * M_stride + 9 * p, t + b * t_stride + 3 * p
        a0, a1, a2, tau = _slopes(
            V + b * N0 * N1 * (N2 // 2 + 1) * 2, g + 2 * ((b * g_p + (0 if coherent else p)) * n_columns + column),
            x0, x1, x2, mask, pose, shift, table, slope, N0, N1, N2, shifted, flat, taps, degree, slope_degree,
        )  # fmt: skip
        g0 += tl.load(pose) * a0 + tl.load(pose + 3) * a1 + tl.load(pose + 6) * a2
        g1 += tl.load(pose + 1) * a0 + tl.load(pose + 4) * a1 + tl.load(pose + 7) * a2
        g2 += tl.load(pose + 2) * a0 + tl.load(pose + 5) * a1 + tl.load(pose + 8) * a2
        if shifted:
            g0 += tau * tl.load(shift)
            g1 += tau * tl.load(shift + 1)
            g2 += tau * tl.load(shift + 2)
    tl.store(grad_x + s, g0, mask=mask)
    tl.store(grad_x + n_s + s, g1, mask=mask)
    tl.store(grad_x + 2 * n_s + s, g2, mask=mask)
