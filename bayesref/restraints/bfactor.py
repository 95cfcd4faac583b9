"""Atoms that are bonded move alike.

    log B_i - log B_j ~ Normal(0, s)            s = 0.2 across one bond, 0.3 across two
    U_i - U_j, each of six elements ~ Normal(0, σ_alike)             as SHELXL's SIMU
    lᵀ U_i l - lᵀ U_j l ~ Normal(0, σ_rigid), l along the pair       the rigid bond of Hirshfeld (1976), as DELU
    U_i - 1 tr(U_i)/3, each of six elements ~ Normal(0, σ_round)     as ISOR

The spread of B grows with B: a ratio of B factors means the same in a rigid core and in a loop, and the sum of
log densities is flat along a common factor. Ratios across one bond scatter by about 20 % in well refined models
(Tronrud (1996), J. Appl. Cryst. 29, 100, for how they depend on the kind of atoms). Anisotropic restraints:
Thorn, Dittrich & Sheldrick (2012), Acta Cryst. A68, 448.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from bayesref.restraints.geometry import log_normal, norm
from bayesref.restraints.terms import Angles, Bonds, Table

ONE_BOND = 0.2
TWO_BONDS = 0.3
U_ALIKE = 0.04  # Å², SIMU of SHELXL
U_RIGID = 0.01  # Å², DELU of SHELXL
U_ROUND = 0.1  # Å², ISOR of SHELXL


@dataclass(frozen=True)
class Similar(Table):
    """atoms (n, 2) whose displacements are alike; sigma (n,) of the difference of log B."""

    atoms: torch.Tensor
    sigma: torch.Tensor


def similar_pairs(bonds: Bonds, angles: Angles, n_atom: int) -> Similar:
    """Atoms one or two bonds apart, each pair once."""
    one = bonds.atoms[bonds.image == 0]
    pairs = torch.cat([one, angles.atoms[:, [0, 2]]]).sort(1).values
    sigma = torch.full((len(pairs),), TWO_BONDS, dtype=torch.float64)
    sigma[: len(one)] = ONE_BOND
    key = (pairs[:, 0] * n_atom + pairs[:, 1]).numpy()
    first = np.sort(np.unique(key, return_index=True)[1])  # the tighter of the two: bonds come before angles
    rows = torch.from_numpy(first[(pairs[first, 0] != pairs[first, 1]).numpy()])
    return Similar(pairs[rows], sigma[rows])


def log_density_B(B: torch.Tensor, similar: Similar) -> torch.Tensor:
    """(...,) of B (..., atom) Å²; a density of the differences of log B, without the Jacobian to B."""
    x = B.log()
    return log_normal(x[..., similar.atoms[:, 0]] - x[..., similar.atoms[:, 1]], 0.0, similar.sigma).sum(-1)


def hessian_B(similar: Similar, n_atom: int) -> sparse.csc_matrix:
    """Exact Hessian of -log density with respect to log B, (atom, atom)."""
    i, j = similar.atoms.cpu().numpy().T
    w = similar.sigma.cpu().numpy() ** -2.0
    values, rows, columns = np.r_[w, w, -w, -w], np.r_[i, j, i, j], np.r_[i, j, j, i]
    return sparse.coo_matrix((values, (rows, columns)), (n_atom, n_atom)).tocsc()


def log_density_U(U, xyz, anisotropic, similar: Similar) -> torch.Tensor:
    """(...,) of U (..., atom, 6) Å², order 11 22 33 12 13 23, of the anisotropic atoms.

    Parameters
    ----------
    xyz : (..., atom, 3) Å
    anisotropic : (atom,) bool
    """
    pairs = similar.atoms[anisotropic[similar.atoms].all(1)]
    i, j = pairs.T
    # The wider pairs of `similar` are as much wider here.
    scale = (similar.sigma / ONE_BOND)[anisotropic[similar.atoms].all(1)]
    difference = U[..., i, :] - U[..., j, :]
    l = xyz[..., j, :] - xyz[..., i, :]
    l = l / norm(l)[..., None]
    x, y, z = l.unbind(-1)
    along = torch.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], -1)
    own = U[..., anisotropic.nonzero()[:, 0], :]
    mean = own[..., :3].mean(-1, keepdim=True)
    departure = torch.cat([own[..., :3] - mean, own[..., 3:]], -1)
    return (
        log_normal(difference, 0.0, U_ALIKE * scale[:, None]).sum((-1, -2))
        + log_normal((difference * along).sum(-1), 0.0, U_RIGID * scale).sum(-1)
        + log_normal(departure, 0.0, torch.full_like(departure, U_ROUND)).sum((-1, -2))
    )
