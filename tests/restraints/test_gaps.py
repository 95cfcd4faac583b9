"""A peptide whose second residue was pulled away: it stays one chain until a residue could be missing."""

import gemmi
import pytest

from bayesref.crystal.atoms import crystal_from_gemmi
from bayesref.restraints.dictionary import load_dictionary
from bayesref.restraints.hydrogens import add_riding, refresh_offsets
from bayesref.restraints.topology import read_topology

# Three glycines, extended, ideal bonds and angles; C - N 1.33 Å.
ATOMS = """
N 1 -1.46 0.00 0.00
CA 1 0.00 0.00 0.00
C 1 0.55 1.42 0.00
O 1 -0.20 2.40 0.00
N 2 1.87 1.53 0.00
CA 2 2.52 2.83 0.00
C 2 4.04 2.69 0.00
O 2 4.58 1.58 0.00
N 3 4.73 3.82 0.00
CA 3 6.19 3.81 0.00
C 3 6.75 5.23 0.00
O 3 6.00 6.21 0.00
"""


def pulled(by: float):
    """The crystal with the second and third residue further along x, Å."""
    chain, elements = gemmi.Chain("A"), {"N": "N", "CA": "C", "C": "C", "O": "O"}
    for line in ATOMS.split("\n")[1:-1]:
        name, number, x, y, z = line.split()
        if len(chain) < int(number):
            residue = gemmi.Residue()
            residue.name, residue.seqid, residue.het_flag = "GLY", gemmi.SeqId(number), "A"
            chain.add_residue(residue)
        atom = gemmi.Atom()
        atom.name, atom.element, atom.b_iso = name, gemmi.Element(elements[name]), 15.0
        atom.pos = gemmi.Position(float(x) + by * (int(number) > 1), float(y), float(z))
        chain[-1].add_atom(atom)
    structure = gemmi.Structure()
    structure.cell, structure.spacegroup_hm = gemmi.UnitCell(30, 30, 30, 90, 90, 90), "P 1"
    structure.add_model(gemmi.Model(1))
    structure[0].add_chain(chain)
    structure.setup_entities()
    return crystal_from_gemmi(structure)


def joints(crystal, monlib) -> int:
    """How many bonds join one residue to the next."""
    residue = [n.rsplit("/", 1)[0] for n in crystal.name]
    return sum(residue[i] != residue[j] for i, j in read_topology(crystal, monlib).bonds.atoms.tolist())


@pytest.fixture(scope="module")
def monlib():
    return load_dictionary(["GLY"]).monlib


@pytest.mark.parametrize(("by", "expected"), [(0.0, 2), (0.9, 2), (3.0, 1)])
def test_a_stretched_peptide_bond_is_a_bond(monlib, by, expected):
    crystal = pulled(by)
    assert joints(crystal, monlib) == expected
    assert len(crystal.structure.connections) == 0  # the model itself is left alone


def test_hydrogens_do_not_depend_on_the_stretch(monlib):
    names = [add_riding(pulled(by), monlib).crystal.name for by in (0.0, 0.9)]
    assert names[0] == names[1]
    assert "A/GLY 2/H" in names[0]


def test_a_hydrogen_that_is_no_longer_placed_keeps_its_offset(monlib):
    riding = add_riding(pulled(0.0), monlib)
    H = [riding.crystal.name[i] for i in riding.hydrogen].index("A/GLY 2/H")
    far = refresh_offsets(riding, pulled(3.0).xyz, monlib)
    assert far.offset[H].tolist() == riding.offset[H].tolist()
    assert far.crystal.name == riding.crystal.name
