"""The CPU backend: tensors in, tensors out, around the compiled loops.

Layouts (contiguous): V (b, N₀, N₁, N₂/2+1) complex, x (s, 3), M (b or 1, p, 3, 3), t (b or 1, p, 3) or None,
columns (s,) or None, g (b, p, column); a coherent sum has one p in `g` and in the output.
A 2-D transform is a volume of one plane with N₀ = 1 and a single tap along it.
"""

from typing import Any

import numpy as np
import torch

from bayesref._checks import InputError
from bayesref.fourier import cpu_gather, cpu_scatter, cpu_slope
from bayesref.fourier.threads import run_tasks

# Untyped: the type checker does not follow unpacked arguments into compiled functions.
_gather: Any = cpu_gather.gather
_scatter: Any = cpu_scatter.scatter
_slope: Any = cpu_slope.slope

# Beyond this many grid units float32 no longer resolves a fraction of one.
FAR = 2.0**22


def sample(V, x, M, t, columns, table, n2, n_columns, coherent):
    """`sample` on the CPU: (b, p or 1, n_columns) complex."""
    grid = (V.shape[1], V.shape[2], n2)
    points = _points(x, M, t, columns, n_columns, table, grid[0])
    out = _zeros((V.shape[0], 1 if coherent else M.shape[1], n_columns), V)
    V_view, out_view = _real(V), _real(out)
    stretches = -(-x.shape[0] // cpu_gather.STRETCH)
    *leading, taps0, taps = points
    run_tasks(
        lambda a, b: _gather(V_view, *leading, grid, taps0, taps, coherent, out_view, a, b),
        out.shape[0] * out.shape[1] * stretches,
    )
    return out


def insert(g, x, M, t, columns, table, shape, coherent):
    """`insert` on the CPU: (b, N₀, N₁, N₂/2+1) complex."""
    *leading, taps0, taps = _points(x, M, t, columns, g.shape[2], table, shape[0])
    out = _zeros((g.shape[0], shape[0], shape[1], shape[2] // 2 + 1), g)
    borders = _borders(leading[0], leading[1], shape[0])
    g_view, out_view, grid = _real(g), _real(out), tuple(shape)
    n_tasks = g.shape[0] * (len(borders) - 1)
    run_tasks(
        lambda a, b: _scatter(g_view, *leading, grid, taps0, taps, coherent, borders, out_view, a, b),
        n_tasks,
        pieces=n_tasks,
    )
    return out


def pose_gradient(V, g, x, M, t, columns, table, n2, coherent, need_x):
    """(∂M (b, p, 3, 3), ∂t (b, p, 3), ∂x (s, 3) or empty), real, of Re Σ ḡ · sample."""
    grid, n_b, n_p = (V.shape[1], V.shape[2], n2), V.shape[0], M.shape[1]
    x_rows, *leading, table0, table1, taps0, taps = _points(x, M, t, columns, g.shape[2], table, grid[0])
    tables = (table0, table1, _derivative(table0), _derivative(table1))
    stretches = -(-x.shape[0] // cpu_slope.STRETCH)
    sums = np.zeros((stretches, n_b, n_p, 12))
    grad_x = np.zeros((3, x.shape[0] if need_x else 0), x_rows.dtype)
    V_view, g_view = _real(V), _real(g)
    run_tasks(
        lambda a, b: _slope(
            V_view, g_view, x_rows, *leading, tables, grid, taps0, taps, coherent, sums, grad_x, a, b
        ),
        stretches * (1 if need_x else n_b * n_p),
    )
    total = torch.from_numpy(sums.sum(0)).to(x.dtype)
    grad_M = total[..., :9].reshape(n_b, n_p, 3, 3).clone()
    return grad_M, total[..., 9:].clone(), torch.from_numpy(grad_x.T.copy())


def _points(x, M, t, columns, n_columns, table, n0):
    """Arrays that describe where samples lie, in the order the loops take them."""
    real = x.numpy().dtype
    x_rows = np.ascontiguousarray(x.numpy().T)
    M_rows = M.contiguous().numpy()
    t_rows = t.contiguous().numpy() if t is not None else np.zeros((1, 0, 3), real)
    _check_points(x_rows, M_rows, t_rows)
    cols = columns.contiguous().numpy() if columns is not None else np.arange(x.shape[0])
    _check_columns(cols, n_columns)
    table1 = np.ascontiguousarray(table.numpy(), real)
    table0 = np.ones((1, 1), real) if n0 == 1 else table1
    return x_rows, M_rows, t_rows, cols, table0, table1, (0,) * len(table0), (0,) * len(table1)


def _check_points(x, M, t):
    """Refuse coordinates that are not numbers or so large that a float no longer resolves a grid unit."""
    reach = np.abs(M).sum(-1).max(initial=0) * np.abs(x).max(initial=0) + 0 * np.abs(t).max(initial=0)
    if not reach < FAR:
        raise InputError(
            f"The coordinates M x reach {reach:g} grid units (nan: x, M or t is not finite somewhere); "
            f"they must stay below {FAR:g}."
        )


def _check_columns(columns, n_columns):
    """Refuse columns outside the output, or shared by two points: two tasks would write them at once."""
    if not len(columns):
        return
    if columns[0] < 0 or columns[-1] >= n_columns or (np.diff(columns) <= 0).any():
        raise InputError(f"columns must rise strictly and lie in 0 .. {n_columns - 1}.")


def _borders(x, M, n0):
    """Planes where ownership changes, about equal shares of the samples; any choice gives the same sums."""
    n_slabs = min(torch.get_num_threads(), n0)
    if n_slabs == 1:
        return np.array([0, n0])
    some, poses = x[:, :: max(1, x.shape[1] // 512)], M.reshape(-1, 3, 3)[:: max(1, M.shape[1] // 64)]
    u = np.einsum("pij,js->pis", poses, some)
    plane = np.where(u[:, 2] < 0, -u[:, 0], u[:, 0]) % n0
    inner = np.quantile(plane, np.arange(1, n_slabs) / n_slabs) if plane.size else np.zeros(n_slabs - 1)
    return np.concatenate(([0], np.sort(inner.astype(np.int64)), [n0]))


def _derivative(table):
    """Table of dK/du."""
    if table.shape[1] == 1:
        return np.zeros_like(table)
    return np.ascontiguousarray(table[:, 1:] * np.arange(1, table.shape[1], dtype=table.dtype))


def _zeros(shape, like):
    """A complex tensor of zeros. torch would fill it on all its threads, which then spin where ours are to run."""
    double = like.dtype == torch.complex128
    return torch.from_numpy(np.zeros(shape, np.complex128 if double else np.complex64))


def _real(z):
    """Real view: a complex grid (b, N₀, N₁, half) as (b, n), complex values (b, p, column) as (b, p, n)."""
    view = torch.view_as_real(z.resolve_conj().contiguous())
    return view.flatten(1 if z.ndim == 4 else 2).numpy()
