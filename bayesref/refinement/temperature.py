"""How tightly the restraints of this crystal should hold: learned, not tuned.

    p(xyz | τ) ∝ exp(-E/τ²),   2E = Σ z²                          z: deviation / σ of a restraint
    τ² ← E_q[Σ z²] / r = [Σ z(m)² + tr(JᵀJ P⁻¹)] / r              r = rank J: directions that restraints determine

The expectation under the posterior counts the spread of the atoms as well as their mean; the mean alone would
always ask for tighter restraints. One EM step, stretched, a cycle (Dempster et al., 1977, J. R. Stat. Soc. B 39, 1).
τ = 1 where dictionary and crystal agree; it is reported. Coordinates: from bonds and angles; B factors: from the
differences of log B along bonds.
"""

from dataclasses import replace

import numpy as np
import scipy.sparse as sparse
import torch
from scipy.sparse.linalg import splu

from bayesref.refinement.curvature import Factor
from bayesref.restraints import geometry

LIMITS = (0.25, 16.0)  # of τ²: restraints half to four times as wide as the dictionary says
SOFT = 1.0  # 1/Å², or of log B: directions less determined than this do not count as restrained
PROBES = 24
STRIDE = 2.0  # EM creeps where the data say little: steps of its logarithm are taken twice as long
OTHERS = ("torsions", "chirals", "planes", "nonbonded")


def geometry_only(restraints):
    """The same restraints with nothing but bonds and angles."""
    none = torch.zeros(0, dtype=torch.int64)
    few = {k: getattr(restraints, k).pick(none) for k in OTHERS}
    return replace(restraints, **few, ramachandran=None, ncs=None)


def temperatures(target, z, factor: Factor, seed: int = 0) -> tuple[float, float]:
    """τ² of the coordinates and of the B factors at z, given the factor of the posterior precision."""
    values, restraints = target.latents.unpack(z), target.atoms.restraints
    xyz, B = values["xyz"].detach(), values["B"].detach()
    x = factor.draw(PROBES, np.random.default_rng(seed)).reshape(PROBES, len(B), -1)
    few = geometry_only(restraints)
    chi2 = float(_z2(few, xyz))
    H = few.hessian(xyz.numpy())
    similar = restraints.similar
    step = (B.log()[similar.atoms[:, 0]] - B.log()[similar.atoms[:, 1]]) / similar.sigma
    H_B = restraints.hessian_B(B.numpy())
    found = (
        _update(chi2, H, x[:, :, :3].reshape(PROBES, -1), seed),
        _update(float((step**2).sum()), H_B, x[:, :, 3], seed),
    )
    now = target.atoms.temperature
    return stretched(now[0], found[0]), stretched(now[1], found[1])


def stretched(now: float, found: float) -> float:
    """The next τ², from the present one and that of an EM step."""
    return float(np.clip(now * (found / now) ** STRIDE, *LIMITS))


def _z2(restraints, xyz):
    """Σ z² of bonds and angles."""
    b, a = restraints.bonds, restraints.angles
    bond = (geometry.distance(xyz, b.atoms, b.image, restraints.images) - b.value) / b.sigma
    angle = (geometry.angle(xyz, a.atoms) - a.value) / a.sigma
    return (bond**2).sum() + (angle**2).sum()


def _update(chi2, H, draws, seed):
    spread = float(np.einsum("da,da->", draws, (H @ draws.T).T)) / len(draws)
    probe = np.random.default_rng(seed).choice([-1.0, 1.0], (H.shape[0], PROBES))
    regular = splu((H + SOFT * sparse.identity(H.shape[0])).tocsc())
    rank = float((probe * (H @ regular.solve(probe))).sum()) / PROBES
    return (chi2 + spread) / max(rank, 1.0)
