"""Merged data of a twinned crystal of known structure.

I_h = (1 - α) F_h² + α F_h'² + Normal(0, SIGI_h)            F as `simulate` makes them: the model has its errors
"""

from dataclasses import replace

import torch

from bayesref._checks import InputError
from bayesref.crystal.atoms import Crystal
from bayesref.crystal.free_flags import free_flags
from bayesref.crystal.twin_laws import TwinLaw
from bayesref.data.merged import MergedData
from bayesref.refinement.simulate import RefineOptions, simulate_refine, smooth_mean
from bayesref.refinement.twin_data import twinned


def simulate_twin(
    crystal: Crystal, law: TwinLaw, fraction: float, options: RefineOptions | None = None, seed: int = 0
) -> MergedData:
    """Intensities of a twin, MergedData of kind "I"; free flags are those of the lattice.

    Raises
    ------
    InputError : a fraction outside 0 to 1
    """
    options = options or RefineOptions()
    if not 0 <= fraction <= 1:
        raise InputError(f"The twin fraction is {fraction:g}; it must be from 0 to 1.")
    exact = simulate_refine(crystal, replace(options, noise=1e-6, relative=1e-6), seed)
    data = twinned(exact, law)
    J = data.total(data.F_obs, fraction) ** 2
    g = torch.Generator().manual_seed(seed + 1)
    asu = data.asu
    weak = options.noise * smooth_mean(J / asu.epsilon, asu.stol2) * asu.epsilon
    SIGI = (weak**2 + (options.relative * J) ** 2).sqrt()
    I = J + SIGI * torch.randn(len(J), generator=g, dtype=torch.float64)
    flags = free_flags(asu.hkl.numpy(), asu.cell, asu.spacegroup, options.free_fraction, seed)
    keep = data.present & data.present[data.mate]  # at the edge of a lattice that fits T but nearly
    made = replace(data, value=I, sigma=SIGI, free=torch.from_numpy(flags == 0))
    return made.subset(keep)
