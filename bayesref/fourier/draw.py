"""Exact draws from a linear Gaussian posterior too large for a matrix.

    z ~ N(0, I),   d = A z + n,   n complex with E|n|² = noise
    Q = I + Aᵀ W A,   W = 2 / noise                       precision of z given d
    Q z = Aᵀ W d + Aᵀ W^{1/2} ε₁ + ε₂                     ε white: z is a draw; ε = 0: z is the mean

(perturbation and optimisation: Papandreou & Yuille, 2010, Adv. Neural Inf. Process. Syst. 23). The system is
solved by preconditioned conjugate gradients; A is only ever applied, its transpose by backpropagation.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from bayesref.fourier.particles import ParticleImages


@dataclass(frozen=True)
class Solution:
    """A solved system: z, the iterations it took, and the relative residual it reached."""

    z: torch.Tensor
    iterations: int
    residual: float


def gaussian_draw(
    A: Callable[[torch.Tensor], torch.Tensor],
    d: torch.Tensor,
    noise: torch.Tensor,
    start: torch.Tensor,
    *,
    precondition: Callable[[torch.Tensor], torch.Tensor] = lambda r: r,
    mean: bool = False,
    generator: torch.Generator | None = None,
    tolerance: float = 1e-4,
    most: int = 500,
) -> Solution:
    """A draw of z given d, or its mean.

    Parameters
    ----------
    A : linear map from z (any real shape) to complex numbers shaped like d
    d : complex; noise : E|n|², broadcast against d
    start : first guess, shape and type of z
    precondition : applies an approximate inverse of Q, symmetric and positive
    mean : the posterior mean instead of a draw
    tolerance : relative residual at which to stop
    """
    weight = 2 / noise
    target = weight * d
    if not mean:
        white = torch.randn(*d.shape, 2, dtype=start.dtype, device=d.device, generator=generator)
        target = target + weight.sqrt() * torch.view_as_complex(white)
    b = transpose(A, target, start)
    if not mean:
        b = b + torch.randn(*start.shape, dtype=start.dtype, device=start.device, generator=generator)
    return conjugate_gradients(lambda z: z + normal(A, weight, z), b, start, precondition, tolerance, most)


def draw_density(
    data: ParticleImages, g: torch.Tensor, sigma2: torch.Tensor, *, start: torch.Tensor | None = None, **how
) -> torch.Tensor:
    """A draw (or with mean=True the mean) of a volume given its images, and amplitude and noise of every shell.

    Parameters
    ----------
    data : ParticleImages
    g, sigma2 : (shell,) prior amplitude of the volume, nowhere zero; variance of the noise
    start : (N, N, N), a volume to start from
    how : options of `gaussian_draw`

    Returns
    -------
    (N, N, N), the volume
    """
    # In Fourier space Q is nearly diagonal: slices fill a shell evenly.
    _, plane = data.residual_power(data.M.new_zeros([data.size] * 3))
    _, space = data.volume_power(data.M.new_zeros([data.size] * 3))
    inverse = 1 / (1 + 2 * data.size * g**2 * plane / (space * sigma2))
    white = data.M.new_zeros([data.size] * 3) if start is None else data.colour(start, 1 / g)
    solution = gaussian_draw(
        lambda z: data.predict(data.colour(z, g)),
        data.D,
        sigma2[data.shell_id],
        white,
        precondition=lambda r: data.colour(r, inverse, outside=1.0),
        **how,
    )
    return data.colour(solution.z, g)


def transpose(A: Callable, g: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Aᵀ g as a real-linear map: the gradient of Re⟨g, A z⟩."""
    with torch.enable_grad():
        z = like.detach().requires_grad_()
        return torch.autograd.grad(A(z), z, g)[0]


def normal(A: Callable, weight: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Aᵀ W A z, with one pass forward and one back."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        out = A(z)
        return torch.autograd.grad(out, z, weight * out.detach())[0]


def conjugate_gradients(Q, b, start, precondition, tolerance, most) -> Solution:
    """Solve Q z = b for symmetric positive Q; stops early only by the residual, |Q z - b| ≤ tolerance |b|."""
    z, r = start.clone(), b - Q(start)
    p = y = precondition(r)
    ry, goal, i = torch.sum(r * y), tolerance * b.norm(), 0
    while r.norm() > goal and i < most:
        Qp = Q(p)
        step = ry / torch.sum(p * Qp)
        z, r = z + step * p, r - step * Qp
        y = precondition(r)
        previous, ry = ry, torch.sum(r * y)
        p, i = y + ry / previous * p, i + 1
    return Solution(z, i, float(r.norm() / b.norm()))
