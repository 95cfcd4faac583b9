"""The density of atoms on a grid, differentiable.

    ρ(n) = Σ_j o_j w(r²/R_j²) Σ_i a_i (4π)^{3/2} det(M_ij)^{-1/2} exp(-4π² rᵀ M_ij⁻¹ r)       electrons / Å³
    M_ij = (b_i + B_j) I   isotropic,   b_i I + B_j   with a tensor B_j = 8π² U_j              Å²
    r = the vector from atom j to grid point n, Å;  w falls smoothly (C¹) from 1 to 0 at the radius R_j

Atoms repeat with the cell. The blur of the FFT method is part of B. Gradients: coordinates, occupancy, B and R².
Second derivatives exist in the `reference` backend only.

After Ten Eyck (1977), Acta Cryst. A33, 486, and Agarwal (1978), Acta Cryst. A34, 791.
"""

import math
from collections.abc import Sequence

import torch

from bayesref._checks import InputError, check_finite
from bayesref.fourier.density_reference import density_reference

_library = torch.library.Library("bayesref", "FRAGMENT")
_ATOMS = (
    "Tensor frac, Tensor occupancy, Tensor adp, Tensor radius2, Tensor a, Tensor b, Tensor index, Tensor orth"
)
_library.define(f"density({_ATOMS}, int[] shape, ScalarType dtype) -> Tensor")
_library.define(f"density_gradient(Tensor grad, {_ATOMS}) -> (Tensor, Tensor, Tensor, Tensor)")


def density(
    frac: torch.Tensor,
    occupancy: torch.Tensor,
    adp: torch.Tensor,
    radius2: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    index: torch.Tensor,
    orth: torch.Tensor,
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    backend: str | None = None,
) -> torch.Tensor:
    """Electrons per Å³ on a grid over the cell, (..., nx, ny, nz).

    Parameters
    ----------
    frac : (..., atom, 3) fractional coordinates
    occupancy : (..., atom)
    adp : (..., atom) isotropic B, or (..., atom, 6) B tensor 11 22 33 12 13 23, Å², blur included
    radius2 : (..., atom) R², Å²
    a, b : (scatterer, gauss) Gaussians of the form factors, electrons and Å²
    index : (atom,) int64, the scatterer of each atom
    orth : (3, 3) orthogonalisation matrix, Å
    shape : (nx, ny, nz)
    dtype : of the grid: float32 or float64
    backend : "reference" (torch, float64), "cpu" (numba), "cuda" (Triton); by default that of the device

    Raises
    ------
    InputError
        For shapes that disagree, numbers that are not finite, or Gaussians of width zero or below.
    """
    _check(frac, occupancy, adp, radius2, a, b, index, shape, dtype)
    tensor = adp.ndim > 1 and adp.shape[-2:] == (frac.shape[-2], 6)
    batch = torch.broadcast_shapes(
        frac.shape[:-2],
        occupancy.shape[:-1],
        radius2.shape[:-1],
        adp.shape[:-2] if tensor else adp.shape[:-1],
    )
    parts = [
        x.expand(batch + x.shape[x.ndim - k :]).reshape((math.prod(batch), *x.shape[x.ndim - k :]))
        for x, k in ((frac, 2), (occupancy, 1), (adp, 2 if tensor else 1), (radius2, 1))
    ]
    constants = (a, b, index, orth.to("cpu", torch.float64))
    shape = [int(n) for n in shape]
    if backend == "reference":
        grid = density_reference(*parts, *constants, shape)  # type: ignore[call-arg, arg-type]
    elif backend in (None, "cpu", "cuda"):
        if backend is not None and backend != frac.device.type:
            raise InputError(f"The atoms are on {frac.device}, but the backend asked for is {backend}.")
        grid = _Density.apply(*parts, *constants, shape, dtype)
    else:
        raise InputError(f"Unknown backend {backend!r}; choose reference, cpu or cuda.")
    return grid.reshape(batch + tuple(shape))


def _check(frac, occupancy, adp, radius2, a, b, index, shape, dtype) -> None:
    n = len(index)
    if frac.shape[-2:] != (n, 3) or occupancy.shape[-1:] != (n,) or radius2.shape[-1:] != (n,):
        raise InputError(
            f"{n} atoms, but frac {tuple(frac.shape)}, occupancy {tuple(occupancy.shape)}, "
            f"radius2 {tuple(radius2.shape)}."
        )
    if adp.shape[-1:] != (n,) and adp.shape[-2:] != (n, 6):
        raise InputError(f"adp has shape {tuple(adp.shape)}; expected (..., {n}) or (..., {n}, 6).")
    if a.ndim != 2 or a.shape != b.shape:
        raise InputError(f"a {tuple(a.shape)} and b {tuple(b.shape)} must both be (scatterer, gauss).")
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"The grid needs three sizes above zero; got {tuple(shape)}.")
    if dtype not in (torch.float32, torch.float64):
        raise InputError(f"The grid is float32 or float64, not {dtype}.")


def _check_numbers(frac, occupancy, adp, radius2, a, b, index) -> None:
    """The checks that read numbers run inside the kernels' wrappers, where torch.compile does not look."""
    for name, x in (("coordinates", frac), ("occupancy", occupancy), ("B", adp), ("radius2", radius2)):
        check_finite(name, x)
    if index.numel() == 0:
        return
    if int(index.min()) < 0 or int(index.max()) >= len(a):
        raise InputError(f"index must lie in 0 .. {len(a) - 1}, the rows of the form factors.")
    narrowest = (adp if adp.ndim == 2 else _smallest(adp)).amin(0) + b[index].amin(-1)
    if (narrowest <= 0).any():
        raise InputError(
            f"Atom {int(narrowest.argmin())} has a width b + B of {float(narrowest.min()):g} Å² with its "
            "blur; widths must be above zero. Prepare again with these B factors, or restrain B."
        )
    if (radius2 <= 0).any():
        raise InputError("Cut-off radii must be above zero.")


def _smallest(adp: torch.Tensor) -> torch.Tensor:
    return torch.linalg.eigvalsh(adp.double()[..., [0, 3, 4, 3, 1, 5, 4, 5, 2]].unflatten(-1, (3, 3)))[..., 0]


def _splat(backend):
    def op(frac, occupancy, adp, radius2, a, b, index, orth, shape, dtype):
        _check_numbers(frac, occupancy, adp, radius2, a, b, index)
        return backend().splat(frac, occupancy, adp, radius2, a, b, index, orth, tuple(shape), dtype)

    return op


def _gather(backend):
    def op(grad, *atoms):
        return backend().gather(grad.contiguous(), *atoms)

    return op


def _cpu():
    from bayesref.fourier import density_cpu  # numba is imported at the first use

    return density_cpu


def _cuda():
    from bayesref.fourier import density_cuda

    return density_cuda


for _key, _backend in (("CPU", _cpu), ("CUDA", _cuda)):
    _library.impl("density", _splat(_backend), _key)
    _library.impl("density_gradient", _gather(_backend), _key)


@torch.library.register_fake("bayesref::density", lib=_library)
def _(frac, occupancy, adp, radius2, a, b, index, orth, shape, dtype):
    return frac.new_empty((len(frac), *shape), dtype=dtype)


@torch.library.register_fake("bayesref::density_gradient", lib=_library)
def _(grad, frac, occupancy, adp, radius2, a, b, index, orth):
    return tuple(
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (frac, occupancy, adp, radius2)
    )


def _merge(info, dims, inputs):
    """Inputs (state, ...) under vmap as one batch (vmap * state, ...)."""
    return [
        (x.movedim(d, 0) if d is not None else x.expand((info.batch_size, *x.shape))).flatten(0, 1)
        for x, d in zip(inputs, dims, strict=True)
    ]


def _constant(dims) -> None:
    if any(d is not None for d in dims):
        raise InputError("vmap may not run over form factors, the cell or the grid.")


class _Density(torch.autograd.Function):
    @staticmethod
    def forward(frac, occupancy, adp, radius2, a, b, index, orth, shape, dtype):
        return torch.ops.bayesref.density(frac, occupancy, adp, radius2, a, b, index, orth, shape, dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:8])

    @staticmethod
    def backward(ctx, grad):
        return *_Gradient.apply(grad, *ctx.saved_tensors), None, None, None, None, None, None

    @staticmethod
    def vmap(info, dims, *inputs):
        _constant(dims[4:8])
        out = _Density.apply(*_merge(info, dims[:4], inputs[:4]), *inputs[4:])
        return out.unflatten(0, (info.batch_size, -1)), 0


class _Gradient(torch.autograd.Function):
    @staticmethod
    def forward(
        grad, frac, occupancy, adp, radius2, a, b, index, orth
    ):  # torch.compile takes no *arguments here
        return torch.ops.bayesref.density_gradient(grad, frac, occupancy, adp, radius2, a, b, index, orth)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *grads):
        raise NotImplementedError(
            "Second derivatives of the splatted density are not offered; use "
            "structure_factors(..., method='direct') or backend='reference'."
        )

    @staticmethod
    def vmap(info, dims, *inputs):
        _constant(dims[5:])
        out = _Gradient.apply(*_merge(info, dims[:5], inputs[:5]), *inputs[5:])
        return tuple(x.unflatten(0, (info.batch_size, -1)) for x in out), (0, 0, 0, 0)
