"""Draws of a structure by a Markov chain: what the Gaussian posterior is checked against.

    z = m + L u,     L Lᵀ = covariance of the Gaussian posterior,     u ~ exp(log p(y, m + L u))
    p ~ Normal(0, 1);   leapfrog steps of length ε about a quarter of the period 2π;   accept by exp(-ΔH)

In u the posterior is about round with unit curvature, so that a quarter period makes a draw nearly independent of the
one before (Neal, 2011, Handbook of Markov Chain Monte Carlo, chapter 5). ε is tuned before the draws are kept. Atoms,
conformers, scale and solvent move; the errors of the model and the widths of restraints stay, as they do in the
Gaussian. For small structures: L is dense.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bayesref._checks import InputError
from bayesref.refinement.posterior import StructurePosterior

LARGEST = 4000  # parameters whose covariance is kept dense
ACCEPT = 0.8  # share of moves to be accepted, near the best for many parameters
PERIOD = 0.5 * math.pi  # of a quarter turn, on average
JITTER = 0.3  # of the length of a trajectory: none may return to where it began


@dataclass(frozen=True, eq=False)
class Chain:
    """Draws of z.

    Attributes
    ----------
    z : (chain, draw, latent)
    rows : places in z that moved
    accepted : share of moves
    evaluations : of log p and its gradient
    """

    z: torch.Tensor
    rows: torch.Tensor
    accepted: float
    evaluations: int

    def split_r_hat(self) -> torch.Tensor:
        """R-hat of each row from halves of chains, (row,); Gelman et al. (2013), Bayesian Data Analysis, 11.4."""
        x = self.z[..., self.rows]
        half = x.shape[1] // 2
        x = torch.cat([x[:, :half], x[:, half : 2 * half]])
        within, between = x.var(1).mean(0), x.mean(1).var(0)
        return ((half - 1) / half + between / within).sqrt()


def dense_root(posterior: StructurePosterior) -> tuple[torch.Tensor, torch.Tensor]:
    """L (row, row) and the places of its rows in z: atoms, then scale, solvent and conformers.

    Raises
    ------
    InputError : too many parameters
    """
    rows = posterior.rows
    if len(rows) > LARGEST:
        raise InputError(f"{len(rows)} parameters are too many for a dense covariance; at most {LARGEST}.")
    return torch.from_numpy(posterior.law.dense_root()), rows


def sample_structure(
    posterior: StructurePosterior,
    draws: int = 500,
    warmup: int = 60,
    chains: int = 2,
    seed: int = 0,
    report: Callable = lambda row: None,
) -> Chain:
    """Draws of the exact posterior of a small structure.

    Parameters
    ----------
    draws : of each chain
    warmup : moves of each chain that set the length of steps
    chains : each starts at a draw of the Gaussian
    report : called with a dict after every move: chain, move, accept, step
    """
    L, rows = dense_root(posterior)
    target = posterior.target
    errors = set(posterior.error_rows.tolist())
    sites = [k for k in target.latents.sites if not errors & set(target.latents.columns([k]).tolist())]

    def density(u):
        z = posterior.mean.index_copy(0, rows, posterior.mean[rows] + L @ u)
        value, slope = target.value_and_grad(z, sites)
        return value, slope[rows] @ L

    out, accepted, evaluations = [], 0.0, 0
    for k in range(chains):
        g = torch.Generator().manual_seed(seed + k)
        u, share, n = _chain(
            density, len(rows), draws, warmup, g, lambda row, k=k: report({"chain": k} | row)
        )
        z = posterior.mean.repeat(draws, 1)
        z[:, rows] += u @ L.T
        out.append(z)
        accepted, evaluations = accepted + share / chains, evaluations + n
    return Chain(torch.stack(out), rows, accepted, evaluations)


def _chain(density, n, draws, warmup, g, report):
    """Draws of u (draw, n), share accepted, evaluations."""
    u = 0.5 * torch.randn(n, generator=g, dtype=torch.float64)
    value, slope = density(u)
    step, kept, share, evaluations = 0.8 * n**-0.25, [], 0.0, 1
    for move in range(warmup + draws):
        length = PERIOD * (1 + JITTER * (2 * float(torch.rand(1, generator=g)) - 1))
        steps = max(1, round(length / step))
        p = torch.randn(n, generator=g, dtype=torch.float64)
        new, q, new_value, new_slope = u, p, value, slope
        for _ in range(steps):
            q = q + 0.5 * step * new_slope
            new = new + step * q
            new_value, new_slope = density(new)
            q = q + 0.5 * step * new_slope
        evaluations += steps
        change = new_value - 0.5 * float(q @ q) - value + 0.5 * float(p @ p)
        accept = math.exp(min(0.0, change)) if math.isfinite(change) else 0.0
        if float(torch.rand(1, generator=g)) < accept:
            u, value, slope = new, new_value, new_slope
        if move < warmup:  # Robbins and Monro's averages: ever smaller corrections towards ACCEPT
            step *= math.exp((accept - ACCEPT) / (1 + move) ** 0.6)
        else:
            kept.append(u)
            share += accept / draws
        report({"move": move, "accept": accept, "step": step})
    return torch.stack(kept), share, evaluations
