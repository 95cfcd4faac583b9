"""How unevenly a crystal diffracts: three principal B.

    ⟨I_h/ε⟩ = exp(c - sᵀ B s / 2),    s = h O⁻¹,    I ~ Gamma about its mean; B symmetric, Å²

Fitted by iteratively reweighted least squares (a generalised linear model with logarithmic link), after averaging B
over the point group, which holds some of its axes. Merged amplitudes have no fall-off of their own, so that only what
B differs from its mean means something: zero in every direction where the scale took all of it.
"""

from dataclasses import dataclass

import gemmi
import numpy as np
import torch

from bayesref.crystal.cell import reciprocal_vectors
from bayesref.structure_factors.scale import symmetrize

FEWEST = 50  # reflections


@dataclass(frozen=True)
class Anisotropy:
    """Principal B less their mean, Å², falling; their axes (3, 3), Cartesian rows; standard error of the first."""

    B: np.ndarray
    axes: np.ndarray
    error: float


def anisotropy(hkl, I, epsilon, cell: gemmi.UnitCell, spacegroup: gemmi.SpaceGroup) -> Anisotropy | None:
    """Principal B of merged intensities; None for too few.

    Parameters
    ----------
    hkl : (n, 3) int
    I : (n,) intensities, such as E[F²]; those not above zero are left out
    epsilon : (n,)
    """
    hkl, J = torch.as_tensor(np.asarray(hkl)).long(), np.asarray(I, dtype=float) / np.asarray(epsilon)
    known = np.isfinite(J) & (J > 0)
    if known.sum() < FEWEST:
        return None
    hkl, J = hkl[known], J[known]
    s = reciprocal_vectors(hkl, cell)
    basis = _basis(cell, spacegroup)  # (free, 6)
    columns = -0.5 * torch.stack([_quadratic(b, s) for b in basis], 1).numpy()
    X = np.column_stack([np.ones(len(J)), columns])
    beta = np.zeros(X.shape[1])
    beta[0] = np.log(J.mean())
    # The logarithmic link of a Gamma law has unit weights: plain least squares of a working response.
    for _ in range(30):
        eta = X @ beta
        step = np.linalg.lstsq(X, J * np.exp(-eta) - 1, rcond=None)[0]
        beta = beta + step
        if np.abs(step).max() < 1e-8:
            break
    residual = J * np.exp(-X @ beta) - 1
    C = np.linalg.inv(X.T @ X)[1:, 1:] * np.mean(residual**2)
    tensor = _matrix((basis.T @ torch.from_numpy(beta[1:])).numpy())
    values, vectors = np.linalg.eigh(tensor)
    v = vectors[:, -1]
    slope = np.array([v @ _matrix(b.numpy()) @ v - np.trace(_matrix(b.numpy())) / 3 for b in basis])
    error = float(np.sqrt(slope @ C @ slope))
    return Anisotropy(values[::-1] - values.mean(), vectors.T[::-1], error)


def _basis(cell, spacegroup) -> torch.Tensor:
    """Tensors that the point group allows, orthonormal, (free, 6), order 11 22 33 12 13 23."""
    projected = symmetrize(torch.eye(6, dtype=torch.float64), cell, spacegroup)
    _, S, V = torch.linalg.svd(projected)
    return V[S > 1e-6]


def _quadratic(b, s):
    return torch.einsum("hx,xy,hy->h", s, torch.from_numpy(_matrix(b.numpy())), s)


def _matrix(b) -> np.ndarray:
    xx, yy, zz, xy, xz, yz = b
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
