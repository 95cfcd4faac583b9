"""The reference backend: `sample` and `insert` in plain torch, written for truth instead of speed.

    out[b, p, column_s] = e^{-2πi x_s·t_p} Σ_n K(M_p x_s - n) V_b[n],   V[-n] = V̄[n], periodic in n

The half-space is unfolded to the whole grid and every tap is an ordinary index, so any derivative of any
order follows from torch's own rules, forward or backward. Memory grows with (poses × points).
"""

import math
from collections.abc import Iterator

import torch


def sample(V, x, M, t, columns, table, n2, n_columns, coherent):
    """`sample` with the layouts of `backend`: (b, p or 1, n_columns) complex."""
    grid = (V.shape[1], V.shape[2], n2)
    whole = unfold(V, n2).flatten(1)  # (b, n)
    side, taps = _stencil(x, M, table, grid)
    n_b = max(len(whole), len(M))
    value = torch.zeros((), dtype=V.dtype, device=V.device)
    for index, weight in taps:
        at = index.expand(n_b, *index.shape[1:]).flatten(1)
        value = value + weight * whole.expand(n_b, -1).gather(1, at).unflatten(1, index.shape[1:])
    value = torch.where(side > 0, value, value.conj()) * _phase(x, t, value)
    if coherent:
        value = value.sum(1, keepdim=True)
    if columns is None:
        return value
    return value.new_zeros(*value.shape[:2], n_columns).index_add(2, columns, value)


def insert(g, x, M, t, columns, table, shape, coherent):
    """`insert` with the layouts of `backend`: (b, N₀, N₁, N₂/2+1) complex."""
    side, taps = _stencil(x, M, table, shape)
    g = g if columns is None else g[..., columns]
    n_p = M.shape[1]
    g = g.expand(-1, n_p, -1) if coherent else g
    g = g * _phase(x, t, g).conj()
    g = torch.where(side > 0, g, g.conj())
    whole = g.new_zeros(len(g), math.prod(shape))
    for index, weight in taps:
        whole = whole.scatter_add(1, index.expand(g.shape).flatten(1), (weight * g).flatten(1))
    return refold(whole.unflatten(1, tuple(shape)))


def unfold(V, n2):
    """The whole grid (b, N₀, N₁, N₂) of a stored half (b, N₀, N₁, N₂/2+1)."""
    return torch.cat((V, _minus(V[..., 1 : n2 - n2 // 2]).conj()), -1)


def refold(whole):
    """The transpose of `unfold`, as real-linear maps."""
    n2 = whole.shape[-1]
    half = n2 // 2 + 1
    rest = _minus(whole[..., half:]).conj()
    return whole[..., :half] + torch.nn.functional.pad(rest, (1, half - 1 - rest.shape[-1]))


def _minus(V):
    """V at -n₀, -n₁ and with the last axis reversed."""
    return torch.roll(V.flip((1, 2, 3)), (1, 1), (1, 2))


def _stencil(x, M, table, grid):
    """The side (b, p, s) of every sample and an iterator over (index, weight) of its taps, each (b, p, s)."""
    u = torch.einsum("bpij,sj->bpsi", M, x)
    with torch.no_grad():
        turns = torch.ceil(u[..., 2] * (1 / grid[2]) - 0.5)
    last = u[..., 2] - grid[2] * turns
    side = torch.where(last >= 0, 1.0, -1.0).to(u.dtype)
    one = torch.ones(1, 1, dtype=table.dtype, device=table.device)
    axes = [
        _taps(side * along, one if n == 1 and i == 0 else table, n)
        for i, (along, n) in enumerate(zip((u[..., 0], u[..., 1], last), grid, strict=True))
    ]
    return side, _product(axes, grid)


def _taps(u, table, size):
    """Indices and weights along one axis, one pair per tap."""
    odd = len(table) % 2
    lifted = u + 0.5 * odd
    floor = torch.floor(lifted.detach())
    frac = lifted - floor - 0.5
    pairs = []
    for k, coefficients in enumerate(table):
        w = torch.zeros_like(frac)
        for c in coefficients.flip(0):
            w = w * frac + c
        pairs.append(((floor.long() - (len(table) - 1) // 2 + k) % size, w))
    return pairs


def _product(axes, grid) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for n0, w0 in axes[0]:
        for n1, w1 in axes[1]:
            for n2, w2 in axes[2]:
                yield (n0 * grid[1] + n1) * grid[2] + n2, w0 * w1 * w2


def _phase(x, t, like):
    """e^{-2πi x·t}, (b, p, s) or 1."""
    if t is None:
        return torch.ones((), dtype=like.dtype, device=like.device)
    angle = -2 * torch.pi * torch.einsum("sj,bpj->bps", x, t)
    return torch.polar(torch.ones_like(angle), angle)
