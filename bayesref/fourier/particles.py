"""Particle images of one object in known poses, as the linear map from a volume to their Fourier coefficients.

    D_p(k) = √N e^{-2πi k·s_p/N} ρ̂(M_p (0, k)) + noise,   k over the Friedel-unique half of 0 < |k| ≤ radius
    ρ̂[h] = N^{-3/2} Σ ρ e^{-2πi h·r/N},   D[k] = N^{-1} Σ image e^{-2πi k·r/N}             both unitary

so that white noise of variance σ² per pixel has E|noise(k)|² = σ², half of it on the real part. Shell j holds
the indices whose length rounds to j + 1, shell 0 also the mean of the volume; the volume ends with the last
shell. The mean of an image is not used.
"""

from dataclasses import dataclass

import numpy as np
import torch

from bayesref._checks import InputError, check_finite, check_shape
from bayesref.fourier.kernels import Kernel
from bayesref.fourier.sample import sample
from bayesref.fourier.transform import fourier_volume, to_fourier


@dataclass(frozen=True)
class ParticleImages:
    """Images of one object, their poses and their Fourier shells.

    Attributes
    ----------
    D : (image, point) complex, unitary coefficients
    k : (point, 2) int64, Fourier indices
    M : (image, 3, 3), shifts : (image, 2) pixels or None, as in `project`
    shell_id : (point,) int64, voxel_shell : (N, N, N//2+1) int64, n_shell for indices beyond the last
    size : int, side N of an image
    n_shell : int, shells 0 .. n_shell - 1
    kernel, oversampling : how the volume is sampled
    """

    D: torch.Tensor
    k: torch.Tensor
    M: torch.Tensor
    shifts: torch.Tensor | None
    shell_id: torch.Tensor
    voxel_shell: torch.Tensor
    size: int
    n_shell: int
    kernel: str | Kernel = "kb4"
    oversampling: float = 1.25

    def __len__(self) -> int:
        return len(self.M)

    def predict(self, rho: torch.Tensor) -> torch.Tensor:
        """Noise-free coefficients (image, point) of a volume (N, N, N)."""
        volume = fourier_volume(rho, kernel=self.kernel, oversampling=self.oversampling)
        x = torch.nn.functional.pad(self.k.to(rho.dtype), (1, 0))
        t = None if self.shifts is None else torch.nn.functional.pad(self.shifts, (1, 0)) / self.size
        M = self.M * volume.oversampling
        return sample(volume.V, x, M, t, kernel=volume.kernel, n_last=volume.n) / self.size

    def colour(self, white: torch.Tensor, g: torch.Tensor, outside: float = 0.0) -> torch.Tensor:
        """White noise (..., N, N, N) times the amplitude g (..., shell) in Fourier space: ⟨|ρ̂|²⟩ = g².

        Real white noise has Friedel's symmetry built in, so no coefficient needs care of its own. Beyond the
        last shell the amplitude is `outside`.
        """
        gain = torch.cat((g, g.new_full((*g.shape[:-1], 1), outside)), -1)[..., self.voxel_shell]
        axes = (-3, -2, -1)
        return torch.fft.irfftn(torch.fft.rfftn(white, dim=axes) * gain, s=(self.size,) * 3, dim=axes)

    def shell_images(self, white: torch.Tensor) -> torch.Tensor:
        """Images of each shell of `white` alone, (shell, image, point): g · it are those of colour(white, g)."""
        unit = torch.eye(self.n_shell, dtype=white.dtype, device=white.device)
        return torch.stack([self.predict(self.colour(white, g)) for g in unit])

    def volume_power(self, rho: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Σ |ρ̂|² over each shell of the whole space, and the number of its coefficients: both (shell,)."""
        size = self.coefficients(rho).abs().square()
        return shell_sum(size, self), shell_sum(torch.ones_like(size), self)

    def residual_power(self, rho: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Σ |D - predicted|² over each shell, all images, and the number of terms: both (shell,)."""
        size = (self.D - self.predict(rho)).abs().square().sum(0)
        count = torch.bincount(self.shell_id, minlength=self.n_shell) * len(self)
        return size.new_zeros(self.n_shell).index_add(0, self.shell_id, size), count.to(size.dtype)

    def coefficients(self, rho: torch.Tensor) -> torch.Tensor:
        """Unitary transform (..., N, N, N//2+1) of a volume."""
        return to_fourier(rho, 3) / self.size**1.5


def particle_images(
    images: torch.Tensor,
    M: torch.Tensor,
    shifts: torch.Tensor | None = None,
    *,
    radius: int | None = None,
    kernel: str | Kernel = "kb4",
    oversampling: float = 1.25,
) -> ParticleImages:
    """Transform real images and lay out their Fourier shells.

    Parameters
    ----------
    images : (image, N, N) real
    M : (image, 3, 3), shifts : (image, 2) pixels, as in `project`
    radius : last shell, N//2 - 1 by default

    Raises
    ------
    InputError
        Shapes that do not fit, or values that are not finite.
    """
    size = images.shape[-1]
    check_shape("images", images, (None, size, size))
    check_shape("M", M, (len(images), 3, 3))
    for name, a in (("images", images), ("M", M), ("shifts", shifts)):
        if a is not None:
            check_finite(name, a)
    if shifts is not None:
        check_shape("shifts", shifts, (len(images), 2))
    last = size // 2 - 1 if radius is None else radius
    if not 0 < last < size / 2:
        raise InputError(
            f"radius is {last}; for images of side {size} it lies between 1 and {(size - 1) // 2}."
        )
    k = _unique_half(size, last)
    F = to_fourier(images, 2)[..., k[:, 0] % size, k[:, 1]] / size
    whole = np.fft.fftfreq(size, 1 / size)
    grid = np.meshgrid(whole, whole, np.arange(size // 2 + 1), indexing="ij")
    voxel_shell = _shell(np.stack(grid, -1)).clip(max=last)
    return ParticleImages(
        F,
        torch.from_numpy(k).to(images.device),
        M,
        shifts,
        torch.from_numpy(_shell(k)).to(images.device),
        torch.from_numpy(voxel_shell).to(images.device),
        size,
        last,
        kernel,
        oversampling,
    )


def fourier_shell_correlation(a: torch.Tensor, b: torch.Tensor, data: ParticleImages) -> torch.Tensor:
    """Correlation of two volumes shell by shell, (shell,); 1 means equal up to a positive factor."""
    A, B = data.coefficients(a), data.coefficients(b)
    sums = [shell_sum(x, data) for x in ((A * B.conj()).real, A.abs().square(), B.abs().square())]
    return sums[0] / (sums[1] * sums[2]).sqrt()


def shell_sum(x: torch.Tensor, data: ParticleImages) -> torch.Tensor:
    """Σ over each shell of the whole space (shell,) of a half-space array (N, N, N//2+1)."""
    twice = torch.full(x.shape[-1:], 2.0, dtype=x.dtype, device=x.device)
    twice[0] = 1
    if data.size % 2 == 0:
        twice[-1] = 1
    out = x.new_zeros(data.n_shell + 1).index_add(0, data.voxel_shell.flatten(), (x * twice).flatten())
    return out[:-1]


def _unique_half(size: int, radius: int) -> np.ndarray:
    """One of each pair k, -k with 0 < |k| within the shells, (point, 2) int64."""
    axis = np.arange(-radius - 1, radius + 2)
    k = np.stack(np.meshgrid(axis, axis[axis >= 0], indexing="ij"), -1).reshape(-1, 2)
    one = (k[:, 1] > 0) | (k[:, 0] > 0)
    return k[one & (_shell(k) < radius) & (np.abs(k) < size / 2).all(-1)]


def _shell(k: np.ndarray) -> np.ndarray:
    """Shell of Fourier indices k (..., dims)."""
    return np.rint(np.sqrt((k**2).sum(-1))).astype(np.int64).clip(min=1) - 1
