"""Projections: central slices of a transform, and their adjoint, back-projection.

    image[p](k) = e^{-2πi k·s_p/N} V(o M_p (0, k)),        |k| ≤ radius

V is sampled with a kernel; o is its oversampling, N the side of the image, s_p the shift in pixels towards
higher indices, M_p a rotation (times a magnification, if any). All vectors follow the array axes: with
volumes indexed [z, y, x], M_p acts on (z, y, x), the beam is axis 0 of the rotated frame and an image is
indexed [y, x]. A matrix R that acts on (x, y, z) is `R.flip(-1, -2)` here.

The Ewald sphere of curvature κ bends the slice: k -> (κ|k|²/2, k), κ = ± wavelength / (N · pixel). The image
of a bent slice is complex, so all of the plane is returned.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from bayesref._checks import InputError
from bayesref.fourier.kernels import Kernel, get_kernel, squared
from bayesref.fourier.sample import REAL, insert, sample
from bayesref.fourier.transform import FourierVolume


@dataclass(frozen=True)
class BackProjection:
    """What images say about a transform.

    Attributes
    ----------
    data : (..., n, .., n//2+1) complex, the adjoint of `project` applied to the images
    weight : like `data` but real, the weights inserted alike; None without weights
    """

    data: torch.Tensor
    weight: torch.Tensor | None


def project(
    V: torch.Tensor | FourierVolume,
    M: torch.Tensor,
    shifts: torch.Tensor | None = None,
    *,
    size: int | None = None,
    dims: int | None = None,
    kernel: str | Kernel = "linear",
    oversampling: float = 1.0,
    radius: float | None = None,
    curvature: float = 0.0,
    backend: str | None = None,
) -> torch.Tensor:
    """Transforms of the projections of a volume (3-D to 2-D), an image (2-D to 1-D), or of rotated volumes.

    Parameters
    ----------
    V : FourierVolume, or a transform (..., n, n, n//2+1) or (..., n, n//2+1) of even n with its origin at 0.
        A FourierVolume brings its own kernel, oversampling and size.
    M : (..., p, d, d) with d = 3 or 2 axes of V; leading dimensions absent or those of V
    shifts : (..., p, dims) or (..., p, d), pixels of the output
    size : side N of the output, n / oversampling by default; a smaller one crops the transform
    dims : axes of the output, d - 1 by default; d rotates without projecting
    radius : largest |k| that is not left zero, N/2 by default
    curvature : κ of the Ewald sphere, in inverse Fourier indices of the output

    Returns
    -------
    (..., p, N, .., N//2+1) complex; (..., p, N, N) with a curvature

    Raises
    ------
    InputError
        Shapes, types or ranges that do not fit.
    """
    volume = V if isinstance(V, FourierVolume) else _wrap(V, M, kernel, oversampling, size)
    d = volume.dims
    plane = Plane.of(size or volume.size, d, d - 1 if dims is None else dims, radius, curvature, volume.V)
    out = sample(
        volume.V, plane.x, _scaled(M, volume.oversampling, d), plane.turns(shifts), kernel=volume.kernel,
        n_last=volume.n, columns=plane.columns, n_columns=plane.n_columns, backend=backend,
    )  # fmt: skip
    return out.unflatten(-1, plane.shape)


def back_project(
    images: torch.Tensor,
    M: torch.Tensor,
    shifts: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
    *,
    size: int | None = None,
    dims: int | None = None,
    n: int | None = None,
    kernel: str | Kernel = "linear",
    oversampling: float = 1.0,
    radius: float | None = None,
    curvature: float = 0.0,
    diagonal: bool = False,
    backend: str | None = None,
) -> BackProjection:
    """The exact adjoint of `project`, and the same insertion of real weights.

    Parameters
    ----------
    images : (..., p, N, .., N//2+1) complex, in the shape that `project` returns
    weights : like `images` but real, for example |CTF|²/σ²; inserted without shifts
    size : side N of the images; 2 (last axis - 1) by default
    dims : axes of an image, d - 1 by default
    n : side of the transform, N · oversampling by default
    diagonal : insert the weights with K² instead of K: the exact diagonal of (adjoint · weights · project)
    M, shifts, kernel, oversampling, radius, curvature, backend : as in `project`

    Returns
    -------
    BackProjection

    Raises
    ------
    InputError
        Shapes, types or ranges that do not fit.
    """
    d = M.shape[-1]
    dims = d - 1 if dims is None else dims
    size = size or (images.shape[-1] if curvature else 2 * (images.shape[-1] - 1))
    n = n or round(size * oversampling)
    plane = Plane.of(size, d, dims, radius, curvature, images)
    if images.shape[images.ndim - dims :] != plane.shape:
        raise InputError(f"images have shape {tuple(images.shape)}; the last axes should be {plane.shape}.")
    if weights is not None and (weights.shape != images.shape or weights.is_complex()):
        raise InputError(f"weights must be real and shaped as the images, {tuple(images.shape)}.")
    kernel = get_kernel(kernel, max(oversampling, 1.05))
    shape, M = (n,) * d, _scaled(M, oversampling, d)

    def spread(values, kernel, turns):
        flat = values.flatten(images.ndim - dims)
        return insert(
            flat, plane.x, M, turns, shape=shape, kernel=kernel, columns=plane.columns, backend=backend
        )

    data = spread(images, kernel, plane.turns(shifts))
    if weights is None:
        return BackProjection(data, None)
    weight_kernel = squared(kernel) if diagonal else kernel
    return BackProjection(data, spread(weights.to(images.dtype), weight_kernel, None).real)


@dataclass(frozen=True)
class Plane:
    """The Fourier indices of an output image that lie within its radius.

    Attributes
    ----------
    x : (s, d) real, columns : (s,) int64 or None where all of the plane is kept
    shape : axes of one output, d : axes of the transform, size : side N
    """

    x: torch.Tensor
    columns: torch.Tensor | None
    shape: tuple[int, ...]
    d: int
    size: int

    @staticmethod
    def of(size: int, d: int, dims: int, radius: float | None, curvature: float, like) -> "Plane":
        if d not in (2, 3) or not 1 <= dims <= d or (curvature and (d, dims) != (3, 2)):
            raise InputError(f"{d} axes cannot be projected to {dims} (curvature {curvature:g}).")
        if like.dtype not in REAL:
            raise InputError(f"A transform has dtype complex64 or complex128; this one has {like.dtype}.")
        radius = size / 2 if radius is None else radius
        shape = (size,) * (dims - 1) + (size if curvature else size // 2 + 1,)
        x, columns = _points(size, d, dims, float(radius), float(curvature), like.dtype, like.device)
        return Plane(x, columns, shape, d, size)

    @property
    def n_columns(self) -> int:
        return math.prod(self.shape)

    def turns(self, shifts: torch.Tensor | None) -> torch.Tensor | None:
        """t = s/N on all d axes; the beam's component is zero unless given."""
        if shifts is None:
            return None
        missing = self.d - shifts.shape[-1]
        if missing not in (0, self.d - len(self.shape)):
            n = shifts.shape[-1]
            raise InputError(f"shifts have {n} components; give {len(self.shape)} or {self.d}.")
        return torch.nn.functional.pad(shifts, (missing, 0)) / self.size


def _points(size, d, dims, radius, curvature, dtype, device):
    """`_stencil` as tensors."""
    x, columns = _stencil(size, d, dims, radius, curvature, dtype == torch.complex128)
    return torch.from_numpy(x).to(device), torch.from_numpy(columns).to(device)


# What torch.compiler.assume_constant_result sets; calling it would import the compiler with this module.
_points._dynamo_marked_constant = True  # type: ignore[attr-defined]


@lru_cache(maxsize=32)
def _stencil(size, d, dims, radius, curvature, double):
    """numpy x (s, d) and columns (s,). Cached: images of one size share them."""
    whole = np.rint(np.fft.fftfreq(size, 1 / size))
    last = whole if curvature else np.arange(size // 2 + 1.0)
    axes = [whole] * (dims - 1) + [last]
    k = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    k = k.reshape(-1, dims)
    k2 = (k**2).sum(-1)
    columns = np.flatnonzero(k2 <= radius**2)
    x = np.zeros((len(columns), d))
    x[:, d - dims :] = k[columns]
    if curvature:
        x[:, 0] = 0.5 * curvature * k2[columns]
    return x.astype(np.float64 if double else np.float32), columns


def _wrap(V, M, kernel, oversampling, size):
    """A bare transform with the geometry that its caller states."""
    d = M.shape[-1]
    if V.ndim < d or d not in (2, 3):
        raise InputError(
            f"M has shape {tuple(M.shape)}; expected (..., poses, d, d) with d = 2 or 3 axes of V."
        )
    n = V.shape[-2]
    if V.shape[-1] != n // 2 + 1 or (d == 3 and V.shape[-3] != n):
        raise InputError(f"V has shape {tuple(V.shape)}; expected equal sides n and a last axis of n//2+1.")
    if not oversampling > 0:
        raise InputError(f"oversampling is {oversampling:g}; it must be above zero.")
    natural = round(n / oversampling)
    return FourierVolume(V, n, natural, get_kernel(kernel, max(oversampling, 1.05)), d)


def _scaled(M, oversampling, d):
    if M.ndim < 3 or M.shape[-2:] != (d, d):
        raise InputError(f"M has shape {tuple(M.shape)}; expected (..., poses, {d}, {d}).")
    return M if oversampling == 1 else M * oversampling
