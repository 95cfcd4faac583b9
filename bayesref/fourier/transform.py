"""Real arrays and their half-space transforms, with the origin at the box centre.

    F[k] = Σ_r ρ[r] e^{-2πi k·(r - c)/N},   c = ⌊N/2⌋,   k in FFT order, 0 ≤ k_last ≤ N/2

A volume to be sampled between grid points is padded to n = oversampling · N and, where the kernel asks for
it, divided by the kernel's own transform A (kernels.py):

    ρ'[r] = ρ[r] / Π_axes A((r - c)/n)
"""

from dataclasses import dataclass

import torch

from bayesref._checks import InputError
from bayesref.fourier.kernels import Kernel, get_kernel


@dataclass(frozen=True)
class FourierVolume:
    """A transform ready to be sampled between its grid points.

    Attributes
    ----------
    V : (..., n, n, n//2+1) or (..., n, n//2+1) complex, origin of real space at element 0
    n : int, side of the padded box
    size : int, side of the box before padding
    kernel : Kernel, what V must be read with
    dims : int, 2 or 3
    """

    V: torch.Tensor
    n: int
    size: int
    kernel: Kernel
    dims: int = 3

    @property
    def oversampling(self) -> float:
        """Grid units per Fourier index of the original box."""
        return self.n / self.size


def to_fourier(rho: torch.Tensor, dims: int) -> torch.Tensor:
    """F of a real array (..., N, .., N) over its last `dims` axes: (..., N, .., N//2+1)."""
    axes = tuple(range(-dims, 0))
    return torch.fft.rfftn(torch.fft.ifftshift(rho, dim=axes), dim=axes)


def to_real(F: torch.Tensor, size: int, dims: int) -> torch.Tensor:
    """The inverse of `to_fourier` for a box of side `size`."""
    axes = tuple(range(-dims, 0))
    return torch.fft.fftshift(torch.fft.irfftn(F, s=(size,) * dims, dim=axes), dim=axes)


def fourier_volume(
    rho: torch.Tensor,
    *,
    kernel: str | Kernel = "kb4",
    oversampling: float = 1.25,
    dims: int = 3,
    deapodise: bool | None = None,
) -> FourierVolume:
    """Pad, de-apodise and transform a real volume (or image) for `project`.

    Parameters
    ----------
    rho : (..., N, N, N), or (..., N, N) with dims = 2; real, N even or odd
    kernel : name or `Kernel`
    oversampling : n/N at the least; n is the next even number without large prime factors. 1 pads nothing.
    deapodise : by default what the kernel asks for: Kaiser-Bessel yes, interpolating kernels no

    Returns
    -------
    FourierVolume

    Raises
    ------
    InputError
        A box that is not a cube (square), or an oversampling below 1.
    """
    size = rho.shape[-1]
    if dims not in (2, 3) or rho.ndim < dims or any(s != size for s in rho.shape[-dims:]):
        raise InputError(f"The last {dims} axes of shape {tuple(rho.shape)} are not equal sides of a box.")
    if oversampling < 1:
        raise InputError(f"oversampling is {oversampling:g}; it pads the box, so give 1 or more.")
    n = size if oversampling == 1 else _good_size(size * oversampling)
    kernel = get_kernel(kernel, max(n / size, 1.05))
    if kernel.deapodise if deapodise is None else deapodise:
        rho = rho / _shape_factor(kernel, n, size, dims).to(rho)
    before = n // 2 - size // 2
    padded = torch.nn.functional.pad(rho, (before, n - size - before) * dims)
    return FourierVolume(to_fourier(padded, dims), n, size, kernel, dims)


def _shape_factor(kernel, n, size, dims):
    """Π A((r - c)/n) over the box, (size,)*dims."""
    r = (torch.arange(size, dtype=torch.float64) - size // 2) / n
    A = torch.from_numpy(kernel.apodisation(r.numpy()))
    out = A
    for _ in range(dims - 1):
        out = out[..., None] * A
    return out


def _good_size(least: float) -> int:
    """The smallest even n ≥ `least` made of 2, 3 and 5: FFTs of other lengths are slow."""
    n = 2 * int(-(-least // 2))
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 2
