"""Rigid bodies first: each chain moves as one.

    x' = c + exp([ω]×)(x - c) + t         c: centre of the chain;  ω, t: three numbers each, radians and Å

Fitted on the low-resolution reflections, which a model that is off by an ångström still explains.
"""

import numpy as np
import scipy.optimize
import torch

from bayesref.refinement.point_estimate import fit_globals
from bayesref.refinement.target import Target

PRIOR_ANGLE, PRIOR_SHIFT = 0.05, 1.0  # radians, Å: spread of ω and t


def bodies(crystal) -> torch.Tensor:
    """Index of the chain of each atom, (atom,) int64; waters and ligands move with the chain they are named after."""
    names = [n.split("/")[0] for n in crystal.name]
    index = {c: i for i, c in enumerate(dict.fromkeys(names))}
    return torch.tensor([index[c] for c in names])


def moved(xyz: torch.Tensor, body: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Coordinates (atom, 3) after motions p (body, 6) = (ω, t)."""
    n = len(p)
    count = torch.zeros(n, dtype=xyz.dtype).index_add(0, body, torch.ones_like(xyz[:, 0]))
    centre = torch.zeros(n, 3, dtype=xyz.dtype).index_add(0, body, xyz) / count[:, None]
    w = p[:, :3]
    zero = torch.zeros_like(w[:, 0])
    skew = torch.stack([
        torch.stack([zero, -w[:, 2], w[:, 1]], 1), torch.stack([w[:, 2], zero, -w[:, 0]], 1),
        torch.stack([-w[:, 1], w[:, 0], zero], 1),
    ], 1)  # fmt: skip
    R = torch.linalg.matrix_exp(skew)
    return centre[body] + torch.einsum("aij,aj->ai", R[body], xyz - centre[body]) + p[body, 3:]


def fit_bodies(
    target: Target, z: torch.Tensor, dmin: float = 3.0, steps: int = 30
) -> tuple[torch.Tensor, torch.Tensor]:
    """z with every chain moved to its best place, and the motions (body, 6).

    Parameters
    ----------
    dmin : Å, reflections beyond it do not count; where fewer than 500 are left, all count
    """
    rows = ~target.data.free & (target.data.asu.dHKL >= dmin)
    rows = rows if int(rows.sum()) >= 500 else ~target.data.free
    z = fit_globals(target, z)
    body = bodies(target.atoms.crystal)
    site = target.latents.sites["xyz"]
    start = z[site.where].reshape(-1, 3)
    spread = torch.tensor([PRIOR_ANGLE] * 3 + [PRIOR_SHIFT] * 3, dtype=z.dtype)

    def f(x):
        p = torch.from_numpy(x).reshape(-1, 6).requires_grad_()
        xyz = moved(start, body, p * spread)
        new = z.clone()
        new[site.where] = xyz.detach().reshape(-1)
        value, grad = target.value_and_grad(new, ["xyz"], rows)
        prior = 0.5 * (p**2).sum()
        (slope,) = torch.autograd.grad((grad[site.where].reshape(-1, 3) * xyz).sum() - prior, p)
        return -(value - float(prior.detach())), -slope.reshape(-1).numpy()

    n = int(body.max()) + 1
    found = scipy.optimize.minimize(
        f, np.zeros(6 * n), jac=True, method="L-BFGS-B", options={"maxiter": steps}
    )
    p = torch.from_numpy(found.x).reshape(-1, 6) * spread
    z = z.clone()
    z[site.where] = moved(start, body, p).reshape(-1)
    return z, p
