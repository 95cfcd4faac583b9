"""Small crystals with restraints of every kind."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import small_molecule

from bayesref.restraints.restraints import build_restraints


@pytest.fixture
def molecules():
    """Two molecules in contact with each other and with their symmetry copies: (crystal, restraints)."""
    crystal = small_molecule.crystal([(3.0, 2.0, 3.0), (6.0, 3.0, 4.0)], cell=(8.0, 7.0, 9.0, 90, 100, 90))
    return crystal, build_restraints(crystal, small_molecule.dictionary())
