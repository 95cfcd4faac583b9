"""Unmerged intensities of a known structure.

    F_h as in `simulate`: the structure, solvent, and what the model misses
    I_i ~ Normal(K_i F_h²/Σ(s_h), sd_i), K and sd as in `data.simulate`

log Σ is a straight line in s², the Wilson line of the structure: spots fall off with resolution as K says, and have the
structure's departures from the line, those of solvent at low resolution among them.
"""

from dataclasses import dataclass, replace

import numpy as np
import reciprocalspaceship as rs
import torch

from bayesref.crystal.atoms import Crystal
from bayesref.crystal.free_flags import free_flags
from bayesref.data.simulate import MergeOptions, _measure, _Reflections
from bayesref.refinement.simulate import RefineOptions, simulate_refine, smooth_mean


@dataclass(frozen=True, eq=False)
class SpotSimulation:
    """Spots of a structure.

    Attributes
    ----------
    spots : H K L (as observed) I SIGI BATCH X Y, one row per spot
    truth : H K L (unique) FTRUE EPS CENTRIC N FreeR_flag (0 is free)
    """

    spots: rs.DataSet
    truth: rs.DataSet


def simulate_spots(crystal: Crystal, model: RefineOptions, spots: MergeOptions) -> SpotSimulation:
    """Spots that this crystal would give; cell, space group and resolution are those of crystal and `model`."""
    exact = simulate_refine(crystal, replace(model, noise=1e-9, relative=0.0), spots.seed)
    asu, J = exact.asu, exact.value.clamp(min=0)
    x = torch.stack([torch.ones_like(J), asu.stol2], 1)
    y = smooth_mean(J / asu.epsilon, asu.stol2).log()
    Sigma = (x @ torch.linalg.lstsq(x, y[:, None]).solution[:, 0]).exp()
    reflections = _Reflections(
        asu.hkl.numpy().astype(np.int32), asu.epsilon.numpy(), asu.centric.numpy(), asu.dHKL.numpy()
    )
    mine = replace(
        spots, cell=crystal.cell.parameters, spacegroup=crystal.spacegroup.hm, dmin=model.dmin, n_datasets=1
    )
    table, truth, _, _ = _measure(
        reflections, (J / Sigma).sqrt().numpy(), mine, np.random.default_rng(spots.seed)
    )
    flags = free_flags(asu.hkl.numpy(), asu.cell, asu.spacegroup, model.free_fraction or 0.05)
    truth["FTRUE"] = rs.DataSeries(J.sqrt().numpy(), index=truth.index, dtype="F")
    truth["FreeR_flag"] = rs.DataSeries(flags, index=truth.index, dtype="I")
    return SpotSimulation(table, truth)


def truth_of(simulation: SpotSimulation, hkl: torch.Tensor, column: str = "FTRUE") -> torch.Tensor:
    """A column of the truth for reflections (n, 3), (n,)."""
    at = simulation.truth.index.get_indexer([tuple(h) for h in hkl.tolist()])
    return torch.from_numpy(simulation.truth[column].to_numpy(float)[at])
