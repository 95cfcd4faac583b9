"""What restraints measure, and their log densities, in torch; differentiable, with finite slopes everywhere.

    bond      d = |x_j - x_i|                        d ~ Normal(d₀, σ)
    angle     θ = atan2(|u×v|, u·v)                  θ ~ Normal(θ₀, σ)
    torsion   φ = atan2(|b₂| b₁·n, m·n)              φ ~ vonMises, log p = κ cos n(φ-φ₀) - log 2π I₀(κ)
    chiral    V = a·(b×c)                            V ~ Normal(V₀, σ), or half each of ±V₀
    plane     λ = min_n Σ (n·(x-x̄))²                 the k-3 free distances ~ Normal(0, σ): λ is their Σ r²
    contact   d                                      log p = -½ (max(0, d₀-d)/σ)²

u, v run from the vertex; b₁, b₂, b₃ along the chain, m = b₁×b₂, n = b₂×b₃; a, b, c from the chiral centre.
κ = 1/(nσ)² gives the torsion the curvature 1/σ² of a Normal at each of its n maxima. A contact has no
constant: its factor is 1 beyond d₀, so that pairs may enter and leave the list without a step.
"""

import math

import torch

LOG_2PI = math.log(2 * math.pi)
TINY = 1e-12  # Å²; below it two atoms coincide and the slope is set to zero


def norm(v: torch.Tensor) -> torch.Tensor:
    """Length of (..., 3), with slope zero at zero."""
    return v.square().sum(-1).clamp_min(TINY).sqrt()


def distance(xyz, atoms, image, images) -> torch.Tensor:
    """(..., n) Å from the first atom to the image of the second."""
    a, b = xyz[..., atoms[:, 0], :], xyz[..., atoms[:, 1], :]
    moved = image != 0
    if bool(moved.any()):
        b = (images.R[image] @ b[..., None])[..., 0] + images.t[image]
    return norm(b - a)


def angle(xyz, atoms) -> torch.Tensor:
    """(..., n) radians in [0, π]."""
    a, b, c = (xyz[..., atoms[:, k], :] for k in range(3))
    u, v = a - b, c - b
    return torch.atan2(norm(torch.linalg.cross(u, v)), (u * v).sum(-1))


def torsion(xyz, atoms) -> torch.Tensor:
    """(..., n) radians in [-π, π], IUPAC sign; 0 without a slope where three atoms are in line."""
    a, b, c, d = (xyz[..., atoms[:, k], :] for k in range(4))
    b1, b2, b3 = b - a, c - b, d - c
    m, n = torch.linalg.cross(b1, b2), torch.linalg.cross(b2, b3)
    y, x = norm(b2) * (b1 * n).sum(-1), (m * n).sum(-1)
    flat = x.square() + y.square() < TINY
    return torch.atan2(torch.where(flat, 0.0, y), torch.where(flat, 1.0, x))


def volume(xyz, atoms) -> torch.Tensor:
    """(..., n) Å³, signed."""
    centre = xyz[..., atoms[:, 0], :]
    a, b, c = (xyz[..., atoms[:, k], :] - centre for k in (1, 2, 3))
    return (a * torch.linalg.cross(b, c)).sum(-1)


def flatness(xyz, atoms) -> torch.Tensor:
    """(..., n) Å²: Σ of squared distances from the best plane of each group; -1 in `atoms` fills up."""
    exists = (atoms >= 0).to(xyz.dtype)[..., None]  # (n, most, 1)
    x = xyz[..., atoms.clamp_min(0), :] * exists
    x = (x - x.sum(-2, keepdim=True) / exists.sum(-2, keepdim=True)) * exists
    return torch.linalg.eigvalsh(x.mT @ x)[..., 0]


def log_normal(x, value, sigma) -> torch.Tensor:
    """log Normal(x; value, sigma)."""
    return -0.5 * ((x - value) / sigma).square() - sigma.log() - 0.5 * LOG_2PI


def log_von_mises(x, value, sigma, period) -> torch.Tensor:
    """log density of an angle with `period` equal maxima of width `sigma`."""
    kappa = (period * sigma) ** -2.0
    return kappa * (torch.cos(period * (x - value)) - 1) - torch.special.i0e(kappa).log() - LOG_2PI


def log_chiral(x, value, sigma, both) -> torch.Tensor:
    """log density of a volume; where `both`, half of it lies at -value."""
    here, mirror = log_normal(x, value, sigma), log_normal(x, -value, sigma)
    return torch.where(both, torch.logaddexp(here, mirror) - math.log(2), here)


def log_plane(flat, atoms, sigma) -> torch.Tensor:
    """log density of the k-3 free distances of k atoms from their best plane."""
    free = (atoms >= 0).sum(-1) - 3
    return -0.5 * flat / sigma.square() - free * (sigma.log() + 0.5 * LOG_2PI)


def log_contact(d, minimum, sigma) -> torch.Tensor:
    """log of the factor of a pair that may not come closer than `minimum`."""
    return -0.5 * ((minimum - d).clamp_min(0) / sigma).square()
