"""Smooth basis functions of one variable.

    φ_k(x) = exp(-(y - k)² / (2 · 1.3²)),     y = (n - 1)(x - lo)/(hi - lo),   k = 0 .. n-1

A width of 1.3 spacings lets sums of neighbours be flat to 1 %, and keeps the bumps far from collinear.
"""

import torch

WIDTH = 1.3


def bumps(x: torch.Tensor, n: int, limits: tuple[float, float]) -> torch.Tensor:
    """`n` Gaussian bumps evenly over `limits`, at x (spot,): (spot, n)."""
    lo, hi = limits
    y = (x - lo) * ((n - 1) / max(hi - lo, 1e-30))
    return torch.exp(-0.5 * ((y[:, None] - torch.arange(n, dtype=x.dtype, device=x.device)) / WIDTH) ** 2)
