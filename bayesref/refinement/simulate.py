"""Merged data of a known structure.

    F_h = |k [F_atoms + k_sol exp(-B_sol s²) F_mask] + δ_h|,    E|δ_h|² = ε β(s), complex (centric: real)
    I_h = F_h² + Normal(0, SIGI_h),    SIGI² = (noise ⟨I⟩ at its resolution)² + (relative I)²

β = share × ⟨F²/ε⟩ × exp(rise × s²/s²_max): model errors grow with resolution.
"""

from dataclasses import dataclass

import gemmi
import torch

from bayesref.crystal.asu import reciprocal_asu
from bayesref.crystal.atoms import Crystal
from bayesref.crystal.lattice import check_resolution
from bayesref.data.merged import MergedData
from bayesref.structure_factors.calculate import structure_factors
from bayesref.structure_factors.scale import add_solvent
from bayesref.structure_factors.solvent import SolventMask


@dataclass(frozen=True)
class RefineOptions:
    """What is simulated.

    Attributes
    ----------
    dmin : Å
    error : share of ⟨F²/ε⟩ that the model misses, at low resolution
    rise : log of its growth up to dmin
    noise : SIGI of a weak reflection / ⟨I⟩ of its resolution
    relative : relative error of strong reflections
    k_sol, B_sol : electrons/Å³, Å²
    free_fraction : of the reflections, R-free
    scale : on F
    """

    dmin: float = 2.0
    error: float = 0.08
    rise: float = 1.0
    noise: float = 0.05
    relative: float = 0.03
    k_sol: float = 0.35
    B_sol: float = 46.0
    free_fraction: float = 0.05
    scale: float = 1.0


def simulate_refine(crystal: Crystal, options: RefineOptions = RefineOptions(), seed: int = 0) -> MergedData:
    """Intensities that this crystal would give, MergedData of kind "I" with a free set."""
    g = torch.Generator().manual_seed(seed)
    check_resolution(crystal.cell, crystal.spacegroup, options.dmin)
    hkl = torch.tensor(
        gemmi.make_miller_array(crystal.cell, crystal.spacegroup, options.dmin), dtype=torch.int64
    )
    asu, _ = reciprocal_asu(hkl, crystal.cell, crystal.spacegroup)
    with torch.no_grad():
        F = structure_factors(crystal, asu.hkl, rel_error=1e-4).to(torch.complex128)
    F = options.scale * add_solvent(F, SolventMask(asu.hkl)(crystal), asu.stol2, options.k_sol, options.B_sol)
    Sigma = smooth_mean(F.abs() ** 2 / asu.epsilon, asu.stol2)
    beta = options.error * Sigma * torch.exp(options.rise * asu.stol2 / asu.stol2.max())
    e = torch.randn(2, len(asu), generator=g, dtype=torch.float64)
    direction = F / F.abs().clamp(min=1e-12)  # a centric error keeps to the line of F
    delta = torch.where(asu.centric, e[0] * direction, torch.complex(e[0], e[1]) * 0.5**0.5)
    J = (F + (asu.epsilon * beta).sqrt() * delta).abs() ** 2
    SIGI = ((options.noise * Sigma * asu.epsilon) ** 2 + (options.relative * J) ** 2).sqrt()
    I = J + SIGI * torch.randn(len(asu), generator=g, dtype=torch.float64)
    free = torch.rand(len(asu), generator=g) < options.free_fraction
    return MergedData(asu, "I", I, SIGI, free, {"value": "I", "sigma": "SIGI", "free": "FreeR_flag"}, ())


def smooth_mean(x, stol2, n_bin=20):
    """Mean of x in bins of resolution, interpolated, (hkl,)."""
    order = stol2.argsort()
    bins = order.tensor_split(max(1, min(n_bin, len(order) // 20)))
    at = torch.stack([stol2[b].mean() for b in bins])
    mean = torch.stack([x[b].mean() for b in bins]).log()
    k = torch.searchsorted(at, stol2).clamp(1, len(at) - 1) if len(at) > 1 else torch.zeros_like(stol2).long()
    if len(at) == 1:
        return mean.exp().expand_as(stol2)
    t = ((stol2 - at[k - 1]) / (at[k] - at[k - 1])).clamp(-0.5, 1.5)
    return (mean[k - 1] + t * (mean[k] - mean[k - 1])).exp()
