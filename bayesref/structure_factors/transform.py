"""From the density of one asymmetric unit to structure factors of the crystal, and back: exact adjoints.

    F(h) = k_h V/N Σ_g e^{2πi h·t_g} Σ_n ρ(n) e^{2πi (h R_g)·n}          n = grid point / grid size, N points, cell V

One real FFT of the whole cell, then a gather at the symmetry-equivalent integer indices. The weights k_h carry the
unblurring. Symmetry enters in reciprocal space, so the grid need not be compatible with it.
The gradient of the density is the transpose: coefficients inserted at the same indices and one inverse FFT. Both
maps are linear and each is the other's backward, so derivatives of any order exist.
"""

from dataclasses import dataclass

import torch

from bayesref._checks import InputError
from bayesref.crystal.operators import TRANSLATION_UNIT, Operators

_library = torch.library.Library("bayesref", "FRAGMENT")
_INDICES = "Tensor hkl, Tensor rot, Tensor tran, Tensor weight"
_library.define(f"cell_transform(Tensor grid, {_INDICES}) -> Tensor")
_library.define(f"cell_transform_adjoint(Tensor F, {_INDICES}, int[] shape) -> Tensor")


@dataclass(frozen=True)
class Gather:
    """Where a list of reflections is read from the transform of one asymmetric unit.

    Attributes
    ----------
    hkl : (hkl, 3) int64
    rot, tran : operators, (op, 3, 3) and (op, 3) int64, translations in 1/24
    weight : (hkl,) float64, k_h V/N
    """

    hkl: torch.Tensor
    rot: torch.Tensor
    tran: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def of(cls, hkl: torch.Tensor, ops: Operators, weight: torch.Tensor, shape: tuple[int, ...]) -> "Gather":
        """Checked against the grid: every equivalent index must lie below its Nyquist index.

        Raises
        ------
        InputError
            Where the grid is too coarse for the reflections.
        """
        rot, tran = ops.rot.to(hkl.device), ops.tran.to(hkl.device)
        for R in rot:
            h = (hkl[:, :, None] * R).sum(1).abs()
            if len(h) and (2 * h >= torch.tensor(shape, device=h.device)).any():
                raise InputError(
                    f"A grid of {tuple(shape)} does not reach reflection "
                    f"{tuple(hkl[int(h.amax(1).argmax())].tolist())}; prepare with these reflections."
                )
        return cls(hkl.contiguous(), rot, tran, weight)


def cell_transform(grid: torch.Tensor, at: Gather) -> torch.Tensor:
    """F(h), (..., hkl) complex, of real densities (..., nx, ny, nz)."""
    flat = grid.reshape(-1, *grid.shape[-3:])
    return _Transform.apply(flat, at.hkl, at.rot, at.tran, at.weight).reshape(*grid.shape[:-3], len(at.hkl))


class _Transform(torch.autograd.Function):
    @staticmethod
    def forward(grid, hkl, rot, tran, weight):
        return torch.ops.bayesref.cell_transform(grid, hkl, rot, tran, weight)

    @staticmethod
    def setup_context(ctx, inputs, output):
        grid, *at = inputs
        ctx.save_for_backward(*at)
        ctx.shape = list(grid.shape[-3:])

    @staticmethod
    def backward(ctx, grad):
        return _Adjoint.apply(grad, *ctx.saved_tensors, ctx.shape), None, None, None, None

    @staticmethod
    def vmap(info, dims, grid, *at):
        out = _Transform.apply(grid.movedim(dims[0], 0).flatten(0, 1), *at)
        return out.unflatten(0, (info.batch_size, -1)), 0


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(F, hkl, rot, tran, weight, shape):
        return torch.ops.bayesref.cell_transform_adjoint(F, hkl, rot, tran, weight, shape)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[1:5])

    @staticmethod
    def backward(ctx, grad):
        return _Transform.apply(grad, *ctx.saved_tensors), None, None, None, None, None

    @staticmethod
    def vmap(info, dims, F, *at):
        out = _Adjoint.apply(F.movedim(dims[0], 0).flatten(0, 1), *at)
        return out.unflatten(0, (info.batch_size, -1)), 0


def _complex(dtype: torch.dtype) -> torch.dtype:
    return torch.complex64 if dtype == torch.float32 else torch.complex128


def _forward_cpu(grid, hkl, rot, tran, weight):
    from bayesref.structure_factors import transform_cpu

    return transform_cpu.gather(torch.fft.rfftn(grid, dim=(1, 2, 3)), hkl, rot, tran, weight, grid.shape[-1])


def _adjoint_cpu(F, hkl, rot, tran, weight, shape):
    from bayesref.structure_factors import transform_cpu

    half = transform_cpu.insert(F, hkl, rot, tran, weight, shape)
    return torch.fft.irfftn(half, s=shape, dim=(1, 2, 3), norm="forward")


def _equivalents(hkl, rot, tran, sizes):
    """Per operator: index into the half-space, whether -h' is stored instead, phase."""
    nx, ny, nz = sizes
    for R, t in zip(rot, tran, strict=True):
        h = (hkl[:, :, None] * R).sum(1)
        flip = h[:, 2] < 0
        h = torch.where(flip[:, None], -h, h)
        turn = ((hkl * t).sum(1) % TRANSLATION_UNIT).double() * (2 * torch.pi / TRANSLATION_UNIT)
        yield (
            (h[:, 0] % nx * ny + h[:, 1] % ny) * (nz // 2 + 1) + h[:, 2],
            flip,
            torch.polar(turn * 0 + 1, turn),
            h,
        )


def _forward_torch(grid, hkl, rot, tran, weight):
    half = torch.fft.rfftn(grid, dim=(1, 2, 3)).flatten(1)
    total = 0
    for where, flip, phase, _ in _equivalents(hkl, rot, tran, grid.shape[-3:]):
        value = half[:, where]
        total = total + phase * torch.where(flip, value, value.conj())
    return (total * weight).to(half.dtype)


def _adjoint_torch(F, hkl, rot, tran, weight, shape):
    nx, ny, nz = shape
    half = torch.zeros((len(F), nx * ny * (nz // 2 + 1)), dtype=torch.complex128, device=F.device)
    for where, flip, phase, h in _equivalents(hkl, rot, tran, shape):
        c = F.conj() * weight * phase / 2
        half.index_add_(1, where, torch.where(flip, c.conj(), c))
        edge = h[:, 2] == 0  # on the plane l = 0 both h and -h are stored
        mate = (-h[edge, 0] % nx * ny + -h[edge, 1] % ny) * (nz // 2 + 1)
        half.index_add_(1, mate, c[:, edge].conj())
    half = half.to(F.dtype).reshape(len(F), nx, ny, nz // 2 + 1)
    return torch.fft.irfftn(half, s=shape, dim=(1, 2, 3), norm="forward")


_library.impl("cell_transform", _forward_cpu, "CPU")
_library.impl("cell_transform_adjoint", _adjoint_cpu, "CPU")
_library.impl("cell_transform", _forward_torch, "CUDA")
_library.impl("cell_transform_adjoint", _adjoint_torch, "CUDA")


@torch.library.register_fake("bayesref::cell_transform", lib=_library)
def _(grid, hkl, rot, tran, weight):
    return grid.new_empty((len(grid), len(hkl)), dtype=_complex(grid.dtype))


@torch.library.register_fake("bayesref::cell_transform_adjoint", lib=_library)
def _(F, hkl, rot, tran, weight, shape):
    return F.real.new_empty((len(F), *shape))
