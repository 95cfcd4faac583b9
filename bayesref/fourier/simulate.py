"""Particle images of a model, with known truth: density in a cubic box, random poses, coloured noise.

    ρ̂(h) = Σ_j o_j f_j(s) exp(-B s²) e^{-2πi h·x_j/a},   |h| ≤ N/2 - 1, a = N · pixel

The noise of shell j has variance σ²_j ∝ 1 + 3 e^{-j/4}: more at low resolution, as from solvent and detector.
"""

import math
from dataclasses import dataclass

import torch

from bayesref.fourier.particles import ParticleImages, particle_images
from bayesref.fourier.project import project
from bayesref.fourier.transform import fourier_volume, to_fourier, to_real


@dataclass(frozen=True)
class Simulation:
    """Images with their truth.

    Attributes
    ----------
    data : ParticleImages
    rho : (N, N, N), the volume that was imaged
    sigma2 : (shell,) variance of the noise
    """

    data: ParticleImages
    rho: torch.Tensor
    sigma2: torch.Tensor


def random_rotations(n: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """(n, 3, 3) float64 rotations, uniform over the group: unit quaternions of Gaussian direction."""
    q = torch.randn(n, 4, dtype=torch.float64, generator=generator)
    w, x, y, z = (q / q.norm(dim=1, keepdim=True)).T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(r, -1) for r in rows], -2)


def simulate_images(
    rho: torch.Tensor,
    n_images: int,
    snr: float,
    *,
    shift: float = 2.0,
    generator: torch.Generator | None = None,
) -> Simulation:
    """Noisy projections of a volume in random known poses.

    Parameters
    ----------
    rho : (N, N, N) real
    n_images : int
    snr : variance of the signal over that of the noise, per pixel
    shift : standard deviation of the shifts, pixels
    """
    size = rho.shape[-1]
    M = random_rotations(n_images, generator).to(rho)
    shifts = shift * torch.randn(n_images, 2, dtype=rho.dtype, generator=generator)
    clean = to_real(project(fourier_volume(rho, kernel="kb6", oversampling=1.5), M, shifts), size, 2)
    layout = particle_images(clean, M, shifts)
    colour = 1 + 3 * torch.exp(-torch.arange(layout.n_shell, dtype=rho.dtype) / 4)
    white = to_fourier(torch.randn(clean.shape, dtype=rho.dtype, generator=generator), 2)
    spectrum = colour[_plane_shell(size, layout.n_shell)]
    noise = to_real(white * spectrum.sqrt(), size, 2)
    scale = math.sqrt(float(clean.var() / noise.var()) / snr)
    data = particle_images(clean + scale * noise, M, shifts)
    return Simulation(data, rho, colour * scale**2)


def _plane_shell(size, n_shell):
    """Shell of every stored coefficient of an image, the last for those beyond."""
    k0 = torch.fft.fftfreq(size, 1 / size)
    k1 = torch.arange(size // 2 + 1)
    length = (k0[:, None] ** 2 + k1**2).sqrt().round().long()
    return (length.clamp(min=1) - 1).clamp(max=n_shell - 1)
