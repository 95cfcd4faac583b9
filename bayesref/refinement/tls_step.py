"""Rigid groups and atoms together in one Newton step: their U share what is common to a group.

    J_i = ∂U_i/∂p (6, group 21),  I_i: information of the data about U_i
    [[P, C], [Cᵀ, Q]]:    C = Σ (∂U/∂log B_i)ᵀ I_i J_i,   Q = Σ J_iᵀ I_i J_i + 1

I_i is the average over directions, as in `curvature`: a change c₀ 1/√3 + Σ c_k E_k of U has the information
(1/3, 2/15, ...) times Σ_h W F_i² (8π² s²)². Prior of p: a curvature of one, as that of its normal elements.
"""

import numpy as np
import torch

from bayesref.crystal.atoms import B_PER_U
from bayesref.refinement.atomic_model import of_atoms
from bayesref.refinement.curvature import _amplitudes, shell_weights, width
from bayesref.restraints.adp import BASIS

STEP = 1e-4
SIX = torch.cat([torch.tensor([[1.0, 1, 1, 0, 0, 0]], dtype=torch.float64) / 3**0.5, BASIS])
DIRECTIONS = np.array([1 / 3] + [2 / 15] * 5)  # mean over the sphere of (ŝᵀ E ŝ)²


def bordered(target, z, factor):
    """Function that solves [[P, C], [Cᵀ, Q]] x = g for the atoms' P of `factor` and the groups' borders."""
    C, Q = borders(target, z)
    PC = factor.solve(C)
    schur = np.linalg.inv(Q - C.T @ PC)
    n = len(C)

    def solve(g):
        a = factor.solve(g[:n])
        x = schur @ (g[n:] - C.T @ a)
        return np.concatenate([a - PC @ x, x])

    return solve


def borders(target, z) -> tuple[np.ndarray, np.ndarray]:
    """C (atoms, groups) and Q (groups, groups) at z; atoms' rows as in `curvature.precision`."""
    values = {k: v.detach() for k, v in target.latents.unpack(z).items()}
    groups, p = target.atoms.displacements.groups, values["tls"]
    s2, W = shell_weights(target, z)
    crystal = target.atoms.with_parameters(*of_atoms(values))
    A = _amplitudes(crystal, target.atoms.factors, s2)
    information = (A**2 @ (W * (B_PER_U * s2) ** 2))[:, None] * DIRECTIONS  # (atom, 6)
    J = _slopes(groups, p) @ _dual().numpy()  # (p, atom, 6)
    size, n = width(values), len(A)
    C = np.zeros((n, size, len(J)))
    own = values["B"].numpy() / B_PER_U
    C[:, 3] = (own * 3**0.5 * information[:, 0])[:, None] * J[:, :, 0].T
    if size > 4:  # to first order a shape moves U by B/8π² E_k
        C[:, 4:] = ((own[:, None] * information[:, 1:])[None] * J[:, :, 1:]).transpose(1, 2, 0)
    Q = np.einsum("pak,ak,qak->pq", J, information, J)
    return C.reshape(size * n, -1), Q + np.eye(len(Q))


def _slopes(groups, p) -> np.ndarray:
    """∂U/∂p, (group 21, atom, 6), by central differences: U is smooth and cheap."""
    out = []
    for k in range(p.numel()):
        e = torch.zeros(p.numel(), dtype=p.dtype)
        e[k] = STEP
        e = e.reshape(p.shape)
        out.append(((groups.U(p + e) - groups.U(p - e)) / (2 * STEP)).numpy())
    return np.stack(out)


def _dual() -> torch.Tensor:
    """From six elements of a symmetric matrix to its coefficients in SIX: an off-diagonal element counts twice."""
    return (SIX * torch.tensor([1.0, 1, 1, 2, 2, 2], dtype=torch.float64)).T
