"""The CUDA backend: the operators of `backend` as launches of Triton kernels.

sample          one program per block of points and pose
insert          every stored grid point collects the samples whose taps meet it. Samples are sorted by the cell of
                their first tap (a stable sort), so that each cell is a run in sample order: no atomics, and the same
                bits in every run
pose_gradient   sums per block of points, added up in float64 by torch

Layouts as in `backend`; one volume at a time where samples are sorted, which bounds the memory.
"""

import torch

from bayesref._checks import InputError
from bayesref.fourier import cuda_kernels as kernels
from bayesref.fourier.cpu import FAR

BLOCK = 128  # points or grid points of one program


def sample(V, x, M, t, columns, table, n2, n_columns, coherent):
    """`sample` on the GPU: (b, p or 1, n_columns) complex."""
    n_b, n_p, grid = V.shape[0], M.shape[1], (V.shape[1], V.shape[2], n2)
    x_rows, columns = _points(x, M, t, columns, n_columns)
    out = V.new_zeros(n_b, 1 if coherent else n_p, n_columns)
    if out.numel() and n_p and len(columns):
        kernels.gather[(_blocks(len(columns)), n_b * out.shape[1])](
            _real(V), x_rows, *_poses(M, t, x), columns, table.contiguous(), torch.view_as_real(out),
            len(columns), n_p, n_columns, *_strides(M, t), *grid,
            shifted=t is not None, coherent=coherent, block=BLOCK, **_shape(table, grid),
        )  # fmt: skip
    return out


def insert(g, x, M, t, columns, table, shape, coherent):
    """`insert` on the GPU: (b, N₀, N₁, N₂/2+1) complex."""
    n_p, grid = M.shape[1], tuple(shape)
    x_rows, columns = _points(x, M, t, columns, g.shape[2])
    V = g.new_zeros(g.shape[0], grid[0], grid[1], grid[2] // 2 + 1)
    if n_p and len(columns):
        for b in range(len(g)):
            pose = M[b % len(M)], None if t is None else t[b % len(t)]
            _insert_one(V[b], g[b], x_rows, *pose, columns, table.contiguous(), grid, coherent)
    return V


def pose_gradient(V, g, x, M, t, columns, table, n2, coherent, need_x):
    """(∂M (b, p, 3, 3), ∂t (b, p, 3), ∂x (s, 3) or empty), real, of Re Σ ḡ · sample."""
    n_b, n_p, grid = V.shape[0], M.shape[1], (V.shape[1], V.shape[2], n2)
    x_rows, columns = _points(x, M, t, columns, g.shape[2])
    table = table.contiguous()
    slope = _derivative(table)
    n_s = len(columns)
    sums = x.new_zeros(_blocks(n_s), n_b * n_p, 12)
    grad_x = x.new_zeros(3, n_s if need_x else 0)
    arrays = (_real(V), _real(g), x_rows, *_poses(M, t, x), columns, table, slope)
    how = {
        "shifted": t is not None,
        "coherent": coherent,
        "block": BLOCK,
        "slope_degree": slope.shape[1] - 1,
        **_shape(table, grid),
    }
    strides = (g.shape[2], g.shape[1], *_strides(M, t), *grid)
    if n_s and n_b * n_p:
        kernels.slope_sums[(_blocks(n_s), n_b * n_p)](*arrays, sums, n_s, n_p, *strides, **how)
        if need_x:
            kernels.slope_points[(_blocks(n_s),)](*arrays, grad_x, n_s, n_b, n_p, *strides, **how)
    total = sums.double().sum(0).to(x.dtype).reshape(n_b, n_p, 12)
    grad_M = total[..., :9].reshape(n_b, n_p, 3, 3).clone()
    return grad_M, total[..., 9:].clone(), grad_x.T.contiguous()


def _insert_one(V, g, x_rows, M, t, columns, table, grid, coherent):
    """Add the samples of one volume to V (N₀, N₁, N₂/2+1)."""
    n_p, n_s, (N0, N1, N2) = len(M), len(columns), grid
    n, how = n_p * n_s, _shape(table, grid)
    cell = torch.empty(n, dtype=torch.int64, device=g.device)
    frac, value = x_rows.new_empty(3, n), x_rows.new_empty(n, 2)
    kernels.locate[(_blocks(n_s), n_p)](
        _real(g), x_rows, *_poses(M, t, x_rows), columns, cell, frac, value, n_s, g.shape[1],
        0 if coherent else 2 * g.shape[1], *grid,
        shifted=t is not None, flat=how["flat"], taps=how["taps"], block=BLOCK,
    )  # fmt: skip
    cell, order = torch.sort(cell, stable=True)
    start = torch.searchsorted(cell, torch.arange(N0 * N1 * (N2 // 2 + 2) + 1, device=g.device))
    half, taps = N2 // 2 + 1, how["taps"]
    out = torch.view_as_real(V)
    # Where a tap can meet a stored point: at the point; a period up; at its mirror image below plane 0 or past N₂/2.
    ranges = (
        (False, 0, 0, half),
        (False, 1, 0, min(half, taps)),
        (True, 0, 1, min((N2 + 1) // 2, taps)),
        (True, 1, max(1, half - taps), (N2 + 1) // 2),
    )
    for mirrored, period, first, last in ranges:
        if last > first:
            kernels.collect[(_blocks(N0 * N1 * (last - first)),)](
                out, start, order, frac, value, table, n, first, last - first, *grid,
                mirrored=mirrored, period=period, block=BLOCK, **how,
            )  # fmt: skip


def _points(x, M, t, columns, n_columns):
    """x as (3, s) and the column of every point; InputError where coordinates or columns are out of range."""
    finite = M.isfinite().all() & x.isfinite().all() & (t is None or t.isfinite().all())
    reach = M.abs().sum(-1).max() * x.abs().max() if M.numel() and x.numel() else M.new_zeros(())
    if not (bool(finite) and float(reach) < FAR):
        raise InputError(
            f"x, M and t must be finite, and M x within {FAR:g} grid units; M x reaches {reach:g}."
        )
    if columns is None:
        columns = torch.arange(len(x), device=x.device)
    elif len(x) and (columns[0] < 0 or columns[-1] >= n_columns or (columns.diff() <= 0).any()):
        raise InputError(f"columns must rise strictly and lie in 0 .. {n_columns - 1}.")
    return x.T.contiguous(), columns.contiguous()


def _poses(M, t, like):
    """M and t as the kernels read them; without shifts any array stands for t."""
    M = M.contiguous()
    return M, like if t is None else t.contiguous()


def _strides(M, t):
    """Step from one volume's poses to the next, 0 where one set serves all."""
    return (9 * M.shape[1] if len(M) > 1 else 0), (3 * t.shape[1] if t is not None and len(t) > 1 else 0)


def _shape(table, grid):
    """What the kernels are specialised for."""
    return {"flat": grid[0] == 1, "taps": table.shape[0], "degree": table.shape[1] - 1}


def _derivative(table):
    if table.shape[1] == 1:
        return torch.zeros_like(table)
    powers = torch.arange(1, table.shape[1], dtype=table.dtype, device=table.device)
    return (table[:, 1:] * powers).contiguous()


def _real(z):
    return torch.view_as_real(z.resolve_conj().contiguous())


def _blocks(n):
    return -(-n // BLOCK)
