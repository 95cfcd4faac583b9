"""How tightly the restraints of ellipsoids should hold: learned, as those of `temperature`.

    log p(B, A) = -½ [Q_B/τ_B² + Q_A/τ_A² + Q_R/τ_R² + ...]        Q: Σ z² of sizes, shapes, rigid bonds
    τ_k² ← τ_k² E_post[Q_k] / E_prior[Q_k]                          EM: both expectations at the present τ

The three overlap: a rigid bond holds sizes and shapes too, so none of them has directions of its own that could be
counted. Drawing from the prior, a Gaussian with a sparse precision, counts them.
"""

from dataclasses import replace

import numpy as np
import scipy.sparse as sparse
import torch

from bayesref.refinement.curvature import Factor, ellipsoid_precision
from bayesref.refinement.temperature import PROBES, stretched


def with_widths(target, z, factor: Factor, seed: int = 0):
    """The atomic model of `target` with τ² of sizes, shapes and rigid bonds after a step at z.

    Parameters
    ----------
    factor : of the posterior precision of the atoms
    """
    atoms, values = target.atoms, target.latents.unpack(z)
    B, A = values["B"].detach(), values["A"].detach()
    Q = forms(atoms, B, A)
    at = torch.cat([B.log()[:, None], A], 1).reshape(-1).numpy()
    n = len(B)
    posterior = (
        factor.draw(PROBES, np.random.default_rng(seed)).reshape(PROBES, n, 9)[:, :, 3:].reshape(PROBES, -1)
    )
    prior = Factor(ellipsoid_precision(atoms, B, A)).draw(PROBES, np.random.default_rng(seed))
    shapes = atoms.shape_restraints
    score = float(shapes.rigid_scores(B, A).square().sum())  # exact; its form is that of small changes
    now = (atoms.temperature[1], *atoms.displacements.width2)
    new = []
    for k, (H, t) in enumerate(zip(Q, now, strict=True)):
        mean = score if k == 2 else float(at @ (H @ at))
        found = mean + _expected(H, posterior)
        new.append(stretched(t, t * found / max(_expected(H, prior), 1e-6)))
    displacements = replace(atoms.displacements, width2=(new[1], new[2]))
    return replace(atoms, temperature=(atoms.temperature[0], new[0]), displacements=displacements)


def forms(atoms, B, A) -> tuple[sparse.csc_matrix, sparse.csc_matrix, sparse.csc_matrix]:
    """Second derivatives of ½ Q_B, ½ Q_A, ½ Q_R at (log B, A), each (6 atom, 6 atom)."""
    n, shapes = len(B), atoms.shape_restraints
    first, rest = sparse.diags([1.0] + [0.0] * 5), sparse.diags([0.0] + [1.0] * 5)
    H_B, H_A = atoms.restraints.hessian_B(), shapes.hessian_shape(n)
    return sparse.kron(H_B, first).tocsc(), sparse.kron(H_A, rest).tocsc(), shapes.hessian_rigid(B, A)


def _expected(H, draws) -> float:
    return float(np.einsum("da,da->", draws, (H @ draws.T).T)) / len(draws)
