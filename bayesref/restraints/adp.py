"""Ellipsoids of atoms: near to spheres, alike along bonds, and equal along the line of a bond.

    U_i = (B_i / 8π²) exp(A_i),   A_i = Σ_k a_ik E_k          E_k: five orthonormal traceless symmetric matrices
    a_ik ~ Normal(0, ROUND τ_A)                                   atoms without a bond: LOOSE
    a_ik - a_jk ~ Normal(0, s τ_A)                                s: ALIKE across one bond, 1.5 of it across two
    log lᵀ U_i l - log lᵀ U_j l ~ Normal(0, RIGID τ_R)            the rigid bond: l along the pair; 1.5 across two

U is positive definite for every A. Logarithms make similarity relative, as that of B: a difference in Å² would draw all
U towards zero, since the constant of such a density depends on their size. Both τ are learned
(`refinement.adp_width`). LOOSE: the ratio of the smallest to the largest axis is 0.45 ± 0.15 in proteins (Merritt
(1999), Acta Cryst. D55, 1109), logarithms of about (0.4, 0, -0.4), 0.25 in each of five directions. Bonded atoms come
to that by their neighbours; ROUND, a product over all of them, is wider, or it would hold a molecule as a whole round.
Hirshfeld (1976), Acta Cryst. A32, 239; Sheldrick & Schneider (1997), Methods Enzymol. 277, 319: SIMU, DELU of SHELXL.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from bayesref.crystal.atoms import B_PER_U
from bayesref.restraints.bfactor import ONE_BOND, Similar
from bayesref.restraints.geometry import norm

ROUND, LOOSE = 1.0, 0.25
ALIKE = 0.15
RIGID = 0.08  # 0.02 Å² where U is 0.25 Å²
ROOT2, ROOT6 = 2**-0.5, 6**-0.5
# E_k, elements 11 22 33 12 13 23
BASIS = torch.tensor(
    [
        [ROOT2, -ROOT2, 0, 0, 0, 0], [-ROOT6, -ROOT6, 2 * ROOT6, 0, 0, 0], [0, 0, 0, ROOT2, 0, 0],
        [0, 0, 0, 0, ROOT2, 0], [0, 0, 0, 0, 0, ROOT2],
    ], dtype=torch.float64,
)  # fmt: skip
FULL = [0, 3, 4, 3, 1, 5, 4, 5, 2]  # of six elements, the nine of the matrix
SIX = [0, 4, 8, 1, 2, 5]  # and back


@dataclass(frozen=True, eq=False)
class EllipsoidRestraints:
    """What the ellipsoids of one model are held by.

    Attributes
    ----------
    similar : Similar, pairs one and two bonds apart
    direction : (pair, 3), unit vectors along them
    round : (atom,), spread of each a about 0
    """

    similar: Similar
    direction: torch.Tensor
    round: torch.Tensor

    @classmethod
    def of(cls, similar: Similar, xyz: torch.Tensor, loose: torch.Tensor) -> "EllipsoidRestraints":
        """Of pairs and coordinates (atom, 3), Å; `loose` (atom,) bool have no bond."""
        l = xyz[similar.atoms[:, 1]] - xyz[similar.atoms[:, 0]]
        wide = torch.where(loose, LOOSE, ROUND).to(xyz.dtype)
        return cls(similar, l / norm(l)[:, None], wide)

    @property
    def wider(self) -> torch.Tensor:
        """(pair,), 1 across one bond and 1.5 across two."""
        return self.similar.sigma / ONE_BOND

    def scores(self, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Departures over their spread with τ = 1: of pairs (..., pair, 5) and from the sphere (..., atom, 5)."""
        i, j = self.similar.atoms.T
        return (a[..., i, :] - a[..., j, :]) / (ALIKE * self.wider[:, None]), a / self.round[:, None]

    def rigid_scores(self, B: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        """Differences of logarithms along the pairs over their spread, (..., pair)."""
        i, j = self.similar.atoms.T
        l, U = self.direction, tensors(B, a)
        along = [torch.einsum("...pxy,px,py->...p", U[..., k, :, :], l, l).log() for k in (i, j)]
        return (along[0] - along[1]) / (RIGID * self.wider)

    def log_density(self, B: torch.Tensor, a: torch.Tensor, width2=(1.0, 1.0)) -> torch.Tensor:
        """log p but for a constant, (...,), for B (..., atom) Å² and a (..., atom, 5).

        width2 holds τ² of shapes and of rigid bonds.
        """
        alike, round_ = self.scores(a)
        own = alike.square().sum((-1, -2)) + round_.square().sum((-1, -2))
        return -0.5 * (own / width2[0] + self.rigid_scores(B, a).square().sum(-1) / width2[1])

    def hessian_shape(self, n_atom: int) -> sparse.csc_matrix:
        """Of similarity and roundness with τ = 1, (atom, atom), the same for each of the five directions."""
        i, j = self.similar.atoms.numpy().T
        w = (ALIKE * self.wider.numpy()) ** -2.0
        here, own = np.arange(n_atom), self.round.numpy() ** -2.0
        values = np.r_[w, w, -w, -w, own]
        rows, columns = np.r_[i, j, i, j, here], np.r_[i, j, j, i, here]
        return sparse.coo_matrix((values, (rows, columns)), (n_atom, n_atom)).tocsc()

    def hessian_rigid(self, B: torch.Tensor, a: torch.Tensor) -> sparse.csc_matrix:
        """Gauss-Newton, of the rigid bonds with respect to (log B, a), (6 atom, 6 atom)."""
        n, (i, j) = len(B), self.similar.atoms.T
        rows, values = np.arange(len(i)), []
        for k in (i, j):
            x = torch.cat([B[k].log()[:, None], a[k]], 1).detach().requires_grad_()
            with torch.enable_grad():
                U = tensors(x[:, 0].exp(), x[:, 1:])
                along = torch.einsum("pxy,px,py->p", U, self.direction, self.direction).log()
                score = along / (RIGID * self.wider)
                values.append(torch.autograd.grad(score.sum(), x)[0].numpy())
        J = np.concatenate([values[0], -values[1]], 1)  # (pair, 12)
        six = np.arange(6)
        columns = np.concatenate([6 * k.numpy()[:, None] + six for k in (i, j)], 1)
        row = np.broadcast_to(rows[:, None], columns.shape)
        M = sparse.coo_matrix((J.ravel(), (row.ravel(), columns.ravel())), (len(i), 6 * n)).tocsr()
        return (M.T @ M).tocsc()


def tensors(B: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """U (..., atom, 3, 3), Å², of B (..., atom) and a (..., atom, 5)."""
    A = (a @ BASIS)[..., FULL].unflatten(-1, (3, 3))
    return (B / B_PER_U)[..., None, None] * torch.linalg.matrix_exp(A)


def six(U: torch.Tensor) -> torch.Tensor:
    """Elements 11 22 33 12 13 23 of symmetric matrices, (..., 6)."""
    return U.flatten(-2)[..., SIX]


def logarithm(U: torch.Tensor, floor: float = 0.01) -> tuple[torch.Tensor, torch.Tensor]:
    """B (..., atom) and a (..., atom, 5) of U (..., atom, 6); axes below `floor` Å² are raised to it."""
    values, axes = torch.linalg.eigh(U[..., FULL].unflatten(-1, (3, 3)))
    logs = values.clamp(min=floor).log()
    mean = logs.mean(-1, keepdim=True)
    A = six((axes * (logs - mean)[..., None, :]) @ axes.mT)
    weight = torch.tensor([1.0, 1, 1, 2, 2, 2], dtype=A.dtype)  # an element off the diagonal is there twice
    return B_PER_U * mean[..., 0].exp(), (A * weight) @ BASIS.T
