"""A grid read at any points, and its exact transpose.

    sample   out[p, s] = e^{-2πi x_s·t_p} Σ_n K(M_p x_s - n) V[n]
    insert   V[n] = Σ_{p,s} K(M_p x_s - n) e^{+2πi x_s·t_p} g[p, s]
    Re⟨g, sample(V)⟩ = Re⟨insert(g), V⟩            over the stored elements, to rounding

V is the half-space (rfftn) transform of a real array whose origin is element 0: V[-n] = V̄[n], periodic in n.
Components of x, M and t follow the axes of V: x = (n₀, n₁, n₂). Three uses of the one pair:

    structure factors   x = hkl, M and t the symmetry operators, K nearest, coherent sum over p
    projections         x = the half plane of an image, M = rotation · oversampling, t = shift / box
    molecular transform x = any points, K a Kaiser-Bessel window
"""

import math
from dataclasses import dataclass

import torch

from bayesref._checks import InputError
from bayesref.fourier import reference
from bayesref.fourier.autograd import apply_insert, apply_sample
from bayesref.fourier.backend import choose
from bayesref.fourier.kernels import Kernel, get_kernel

REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def sample(
    V: torch.Tensor,
    x: torch.Tensor,
    M: torch.Tensor | None = None,
    t: torch.Tensor | None = None,
    *,
    kernel: str | Kernel = "linear",
    coherent: bool = False,
    n_last: int | None = None,
    columns: torch.Tensor | None = None,
    n_columns: int | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """Values of the transform V at the points M_p x_s.

    Parameters
    ----------
    V : (..., N₀, N₁, N₂/2+1) or (..., N₁, N₂/2+1) complex64 or complex128
    x : (s, 3) or (s, 2), grid units; integers are converted
    M : (..., p, d, d), identity by default; leading dimensions absent or those of V; real type of V
    t : (..., p, d), in turns per unit of x
    kernel : name or `Kernel`; a Kaiser-Bessel name means one shaped for oversampling 2
    coherent : sum over p
    n_last : N₂ where it is odd; 2 (V.shape[-1] - 1) by default
    columns : (s,) int64, where in the output point s goes; others of the `n_columns` stay zero
    backend : None (by device), "reference", "cpu" or "cuda"

    Returns
    -------
    (..., p, s), or (..., s) when `coherent`; complex as V

    Raises
    ------
    InputError
        Shapes, types, devices or ranges that do not fit.
    """
    frame = Frame.of(V.dtype, V.device, x, M, t, V.shape[: V.ndim - x.shape[-1]], columns, n_columns)
    grid = _grid(V, frame.d, n_last)
    kernel = get_kernel(kernel)
    check_taps(grid, kernel)
    volumes = V.reshape(math.prod(frame.batch), grid[0], grid[1], V.shape[-1])
    run = reference.sample if choose(backend, V) == "reference" else apply_sample
    table = _table(kernel, V)
    out = run(volumes, frame.x, frame.M, frame.t, columns, table, grid[2], frame.n_columns, coherent)
    return out.reshape(*frame.batch, out.shape[-1]) if coherent else out.reshape(*frame.batch, *out.shape[1:])


def insert(
    g: torch.Tensor,
    x: torch.Tensor,
    M: torch.Tensor | None = None,
    t: torch.Tensor | None = None,
    *,
    shape: tuple[int, ...],
    kernel: str | Kernel = "linear",
    coherent: bool = False,
    columns: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """The transpose of `sample`: values g (..., p, s), or (..., s) when `coherent`, added into a grid.

    Parameters
    ----------
    shape : (N₀, N₁, N₂) or (N₁, N₂) of the real array whose transform this is
    x, M, t, kernel, coherent, columns, backend : as in `sample`

    Returns
    -------
    (..., N₀, N₁, N₂/2+1) or (..., N₁, N₂/2+1), complex as g

    Raises
    ------
    InputError
        Shapes, types, devices or ranges that do not fit.
    """
    batch = g.shape[:-1] if coherent else g.shape[:-2]
    frame = Frame.of(g.dtype, g.device, x, M, t, batch, columns, g.shape[-1])
    if len(shape) != frame.d:
        raise InputError(f"shape has {len(shape)} axes and x {frame.d} components; they must agree.")
    n_p = 1 if coherent else frame.M.shape[1]
    if g.ndim < (1 if coherent else 2) or (not coherent and g.shape[-2] != n_p):
        raise InputError(f"g has shape {tuple(g.shape)}; expected (..., {n_p}, {frame.n_columns}).")
    kernel = get_kernel(kernel)
    grid = (1,) * (3 - frame.d) + tuple(shape)
    check_taps(grid, kernel)
    values = g.reshape(math.prod(batch), n_p, frame.n_columns)
    run = reference.insert if choose(backend, g) == "reference" else apply_insert
    out = run(values, frame.x, frame.M, frame.t, columns, _table(kernel, g), grid, coherent)
    return out.reshape(*batch, *out.shape[4 - frame.d :])


@dataclass(frozen=True)
class Frame:
    """Points and poses as the operators take them, checked.

    Attributes
    ----------
    x : (s, 3), M : (b or 1, p, 3, 3), t : (b or 1, p, 3) or None
    d : int, number of axes of the transform (2 or 3; of two, the first of three is a single plane)
    batch : leading dimensions of the transform
    n_columns : int, values per pose
    """

    x: torch.Tensor
    M: torch.Tensor
    t: torch.Tensor | None
    d: int
    batch: tuple[int, ...]
    n_columns: int

    @staticmethod
    def of(dtype, device, x, M, t, batch, columns, n_columns) -> "Frame":
        if dtype not in REAL:
            raise InputError(f"A transform has dtype complex64 or complex128; this one has {dtype}.")
        if x.ndim != 2 or x.shape[1] not in (2, 3):
            raise InputError(f"x has shape {tuple(x.shape)}; expected (points, 2) or (points, 3).")
        real, d = REAL[dtype], x.shape[1]
        x = x.to(real)
        if M is None:
            M = torch.eye(d, dtype=real, device=device)[None]
        M = _pose("M", M, (d, d), batch, real)
        if t is not None:
            t = _pose("t", t, (d,), batch, real)
            if t.shape[1] != M.shape[1]:
                raise InputError(f"t has {t.shape[1]} poses and M {M.shape[1]}; they must agree.")
        check_columns(columns, len(x), n_columns)
        for name, a in (("x", x), ("M", M), ("t", t), ("columns", columns)):
            if a is not None and a.device != device:
                raise InputError(f"{name} is on {a.device} and the values on {device}; move one of them.")
        if d == 2:
            pad = torch.nn.functional.pad
            x, M, t = pad(x, (1, 0)), pad(M, (1, 0, 1, 0)), None if t is None else pad(t, (1, 0))
        return Frame(x, M, t, d, tuple(batch), len(x) if columns is None else n_columns)


def _pose(name, a, tail, batch, real):
    """`a` as (b or 1, p, *tail)."""
    want = f"(p, {', '.join(map(str, tail))}) with leading dimensions absent or {tuple(batch)}"
    if a.ndim < len(tail) + 1 or a.shape[a.ndim - len(tail) :] != tail:
        raise InputError(f"{name} has shape {tuple(a.shape)}; expected {want}.")
    lead = a.shape[: a.ndim - len(tail) - 1]
    if len(lead) and tuple(lead) != tuple(batch):
        raise InputError(f"{name} has shape {tuple(a.shape)}; expected {want}.")
    if a.dtype != real:
        raise InputError(f"{name} has dtype {a.dtype}; the transform needs {real}.")
    return a.reshape(-1, *a.shape[a.ndim - len(tail) - 1 :]) if len(lead) else a[None]


def _grid(V, d, n_last):
    """(N₀, N₁, N₂) of the real array behind V."""
    if V.ndim < d:
        raise InputError(f"V has shape {tuple(V.shape)}; x has {d} components, so V needs {d} axes or more.")
    n2 = 2 * (V.shape[-1] - 1) if n_last is None else n_last
    if n2 < 1 or n2 // 2 + 1 != V.shape[-1]:
        raise InputError(
            f"n_last = {n2} does not fit V: its last axis has {V.shape[-1]} elements, not N/2+1."
        )
    return (V.shape[-3] if d == 3 else 1, V.shape[-2], n2)


def check_taps(grid: tuple[int, ...], kernel: Kernel) -> None:
    """InputError where the kernel is wider than the grid: a tap would wrap onto itself."""
    sides = grid if grid[0] > 1 else grid[1:]
    if min(sides) < kernel.taps:
        raise InputError(f"A grid of {tuple(sides)} is too small for {kernel.taps} taps ({kernel.name}).")


def check_columns(columns: torch.Tensor | None, n_points: int, n_columns: int | None) -> None:
    """InputError unless `columns` is one int64 per point; the backends check its range."""
    if columns is None:
        if n_columns is not None and n_columns != n_points:
            raise InputError(f"There are {n_columns} values per pose and {n_points} points; give `columns`.")
        return
    if columns.dtype != torch.int64 or columns.shape != (n_points,) or n_columns is None:
        raise InputError(f"columns must be ({n_points},) int64, with n_columns; got {tuple(columns.shape)}.")


def _table(kernel: Kernel, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(kernel.table, dtype=REAL[like.dtype], device=like.device)
