"""Rotations, Gaussian blobs and their closed-form transforms: the truth of the projection tests."""

import itertools
import math

import torch


def rotations(n: int, seed: int = 0) -> torch.Tensor:
    """(n, 3, 3) float64, uniformly distributed."""
    q = torch.randn(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    w, x, y, z = (q / q.norm(dim=1, keepdim=True)).T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(r, -1) for r in rows], -2)


def cube_rotations() -> torch.Tensor:
    """(24, 3, 3): signed permutation matrices of determinant +1."""
    out = []
    for order in itertools.permutations(range(3)):
        for sign in itertools.product((1.0, -1.0), repeat=3):
            M = torch.zeros(3, 3, dtype=torch.float64)
            M[range(3), order] = torch.tensor(sign, dtype=torch.float64)
            if torch.det(M) > 0:
                out.append(M)
    return torch.stack(out)


class Blobs:
    """ρ(r) = Σ_j a_j exp(-|r - c_j|² / 2σ_j²), r in voxels from the box centre ⌊N/2⌋."""

    def __init__(self, radius: float, n: int = 12, dims: int = 3):
        g = torch.Generator().manual_seed(7)
        c = torch.randn(n, dims, dtype=torch.float64, generator=g)
        r = torch.rand(n, 1, dtype=torch.float64, generator=g)
        self.c = c / c.norm(dim=1, keepdim=True) * r ** (1 / dims) * radius
        self.sigma = 1.6 + 0.4 * torch.rand(n, dtype=torch.float64, generator=g)
        self.a = torch.rand(n, dtype=torch.float64, generator=g)
        self.dims = dims

    def density(self, N: int) -> torch.Tensor:
        """(N,) * dims."""
        r = torch.arange(N, dtype=torch.float64) - N // 2
        grid = torch.stack(torch.meshgrid(*[r] * self.dims, indexing="ij"), -1)
        d2 = ((grid[..., None, :] - self.c) ** 2).sum(-1)
        return (self.a * torch.exp(-d2 / (2 * self.sigma**2))).sum(-1)

    def transform(self, k: torch.Tensor, N: int) -> torch.Tensor:
        """F at Fourier indices k (..., dims) of a box of side N, real-valued k too."""
        q = k / N
        width = (2 * math.pi * self.sigma**2) ** (self.dims / 2)
        fall = torch.exp(-2 * math.pi**2 * self.sigma**2 * (q**2).sum(-1, keepdim=True))
        phase = torch.exp(-2j * math.pi * (q[..., None, :] * self.c).sum(-1))
        return (self.a * width * fall * phase).sum(-1)


def half_plane(N: int, dims: int = 2) -> torch.Tensor:
    """Fourier indices (N, .., N//2+1, dims) of a half-space transform."""
    whole = torch.fft.fftfreq(N, 1 / N, dtype=torch.float64).round()
    axes = [whole] * (dims - 1) + [torch.arange(N // 2 + 1, dtype=torch.float64)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def transform_of_noise(*shape: int, dims: int = 3, dtype=torch.float64, device="cpu") -> torch.Tensor:
    """Half-space transform of a random real array."""
    rho = torch.randn(*shape, dtype=dtype)
    return torch.fft.rfftn(rho, dim=tuple(range(-dims, 0))).to(device)


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative L2 distance of a from the truth b."""
    return float((a - b).norm() / b.norm())
