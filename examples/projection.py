"""Project a density, add noise, and bring the images back together.

    python examples/projection.py --size 32 --images 200

Back-projection divided by its weights is the usual estimate; `bayesref project` gives the posterior.
"""

import argparse

import torch

import bayesref as br
from bayesref.fourier.simulate import random_rotations


def blobs(size: int, seed: int = 0) -> torch.Tensor:
    """A volume of a few Gaussian blobs, (size, size, size)."""
    g = torch.Generator().manual_seed(seed)
    x = torch.arange(size, dtype=torch.float64) - size // 2
    grid = torch.stack(torch.meshgrid(x, x, x, indexing="ij"), -1)
    centres = (torch.rand(12, 3, generator=g, dtype=torch.float64) - 0.5) * size * 0.5
    return sum(torch.exp(-((grid - c) ** 2).sum(-1) / (2 * 1.8**2)) for c in centres)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--size", type=int, default=32)
    p.add_argument("--images", type=int, default=200)
    p.add_argument("--noise", type=float, default=0.5, help="of a pixel, in units of the images' spread")
    a = p.parse_args()
    rho = blobs(a.size)
    g = torch.Generator().manual_seed(1)
    M = random_rotations(a.images, g)

    V = br.fourier_volume(rho)  # padded, de-apodised, transformed: once
    slices = br.project(V, M)
    images = br.to_real(slices, a.size, 2)
    noisy = images + a.noise * images.std() * torch.randn(images.shape, generator=g, dtype=images.dtype)

    data = br.to_fourier(noisy, 2)
    back = br.back_project(data, M, weights=torch.ones_like(data.real))
    found = br.to_real(back.data / (back.weight + 1), a.size, 3)  # 1: Wiener's, where no slice came near
    print(f"{a.images} images of {a.size}² pixels; correlation {float(correlation(found, rho)):.3f}")


def correlation(x, y):
    x, y = (v.double().flatten() - v.double().mean() for v in (x, y))
    return (x @ y) / (x.norm() * y.norm())


if __name__ == "__main__":
    main()
