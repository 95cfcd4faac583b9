"""A crystal of small molecules with restraints, simulated data, and its target."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bayesref.models import refine as page

sys.path.insert(0, str(Path(__file__).parents[1] / "restraints"))
import small_molecule

from bayesref.refinement.atomic_model import AtomicModel
from bayesref.refinement.point_estimate import fit_globals, start
from bayesref.refinement.refine import mean_intensity
from bayesref.refinement.simulate import RefineOptions, simulate_refine
from bayesref.refinement.target import Target
from bayesref.restraints.occupancy import occupancy_groups
from bayesref.restraints.restraints import build_restraints

CELL, GROUP = (20.0, 22.0, 28.0, 90, 90, 90), "P 21 21 21"
PLACES = [(x, y, z) for x in (3.0, 9.0) for y in (3.0, 9.0) for z in (3.0, 9.0)]  # no contacts


@pytest.fixture(scope="session")
def molecules():
    """Eight molecules, B from 8 to 20 Å², and their restraints."""
    crystal = small_molecule.crystal(PLACES, cell=CELL, spacegroup=GROUP)
    g = np.random.default_rng(0)
    B = torch.from_numpy(
        np.repeat(g.uniform(8, 20, len(PLACES)), 6) * np.exp(0.1 * g.standard_normal(6 * len(PLACES)))
    )
    return replace(crystal, B=B), small_molecule.dictionary()


@pytest.fixture(scope="session")
def problem(molecules):
    """(target, z): the true structure with scale and errors fitted."""
    crystal, library = molecules
    data = simulate_refine(crystal, RefineOptions(dmin=1.6, error=0.03, free_fraction=0.15), seed=1)
    restraints = build_restraints(crystal, library)
    atoms = AtomicModel.of(crystal, restraints, occupancy_groups(crystal), data, mean_intensity(data))
    target = Target.of(page.model, data, atoms)
    return target, fit_globals(target, start(target))
