"""Restraints that are there on demand: backbone torsions and local symmetry; slopes by torch.

Their Gauss-Newton blocks: a torsion pair has J (2, 15) and the precision of its regions, an equality of two
distances has J (1, 12) and the weight 1/σ² · (1 + z²/c²)⁻².
"""

import numpy as np
import torch

from bayesref.restraints import compiled, ncs, ramachandran


def log_density(restraints, xyz: torch.Tensor) -> dict[str, torch.Tensor]:
    """log p of each kind that the restraints have, (..., n)."""
    out = {}
    if restraints.ramachandran is not None:
        table = restraints.ramachandran
        out["ramachandran"] = ramachandran.log_density(*ramachandran.torsions(xyz, table), table.kind)
    if restraints.ncs is not None:
        out["ncs"] = ncs.log_density(xyz, restraints.ncs)
    return out


def value_and_grad(restraints, xyz: np.ndarray) -> tuple[float, np.ndarray]:
    """log p of the optional restraints and its slope, (atom, 3)."""
    x = torch.from_numpy(xyz).requires_grad_()
    with torch.enable_grad():
        total = torch.stack([v.sum() for v in log_density(restraints, x).values()]).sum()
        (slope,) = torch.autograd.grad(total, x)
    return float(total.detach()), slope.numpy()


def slopes(restraints, xyz: np.ndarray) -> dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """kind -> rows of (atoms (n, k), J (n, k, 3), weight (n,)) whose squares make up the Gauss-Newton Hessian."""
    out = {}
    if restraints.ramachandran is not None:
        out["ramachandran"] = _backbone(restraints.ramachandran, xyz)
    if restraints.ncs is not None:
        out["ncs"] = _local(restraints.ncs.atoms.cpu().numpy(), xyz)
    return out


def _backbone(table, xyz):
    atoms = table.atoms.cpu().numpy()
    phi, J_phi = compiled.torsions(xyz, np.ascontiguousarray(atoms[:, :4]))
    psi, J_psi = compiled.torsions(xyz, np.ascontiguousarray(atoms[:, 1:]))
    J = np.zeros((len(atoms), 2, 5, 3))
    J[:, 0, :4], J[:, 1, 1:] = J_phi, J_psi
    P = ramachandran.precision(torch.from_numpy(phi), torch.from_numpy(psi), table.kind.cpu()).numpy()
    rows = np.einsum("nji,njac->niac", np.linalg.cholesky(P), J)  # P = L Lᵀ
    one = np.ones(len(atoms))
    return [(atoms, np.ascontiguousarray(rows[:, k]), one) for k in range(2)]


def _local(atoms, xyz):
    u, v = xyz[atoms[:, 1]] - xyz[atoms[:, 0]], xyz[atoms[:, 3]] - xyz[atoms[:, 2]]
    d, e = (np.linalg.norm(w, axis=1).clip(1e-6) for w in (u, v))  # Å; coincident atoms have no direction
    J = np.stack([-u / d[:, None], u / d[:, None], v / e[:, None], -v / e[:, None]], 1)
    z2 = ((d - e) / ncs.SIGMA) ** 2
    return [(atoms, J, (1 + z2 / ncs.SOFTNESS**2) ** -2 / ncs.SIGMA**2)]
