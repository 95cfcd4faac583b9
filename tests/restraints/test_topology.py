"""Which atoms are restrained."""

import sys
import types

import gemmi
import numpy as np
import pytest
import torch
from small_molecule import crystal, dictionary, structure

from bayesref._checks import InputError
from bayesref.crystal.atoms import crystal_from_gemmi
from bayesref.restraints.geometry import distance
from bayesref.restraints.occupancy import occupancy_groups
from bayesref.restraints.restraints import build_restraints
from bayesref.restraints.topology import read_topology


def names(table, c):
    return [tuple(c.name[i].split("/", 2)[2] for i in atoms if i >= 0) for atoms in table.atoms.tolist()]


def test_values_are_those_of_the_dictionary():
    c = crystal()
    t = read_topology(c, dictionary())
    bonds = {
        n: (float(v), float(s))
        for n, v, s in zip(names(t.bonds, c), t.bonds.value, t.bonds.sigma, strict=True)
    }
    assert bonds[("CA", "CB")] == (1.52, 0.012)
    assert len(bonds) == 5
    angles = dict(zip(names(t.angles, c), t.angles.value.rad2deg().tolist(), strict=True))
    assert angles[("O", "C", "OXT")] == pytest.approx(125.5)
    # The torsion without σ is left to the plane.
    assert names(t.torsions, c) == [("N", "CA", "C", "O")]
    assert float(t.torsions.period[0]) == 2
    assert sorted(names(t.planes, c)[0]) == ["C", "CA", "O", "OXT"]
    assert t.energy_type == ("NT3", "CH1", "CH3", "C", "O", "OC")


def test_the_ideal_volume_follows_from_bonds_and_angles():
    c = crystal()
    (volume,) = read_topology(c, dictionary()).chirals.value.tolist()
    cosines = np.cos(np.radians([109.5, 109.0, 111.5]))
    gram = 1 - (cosines**2).sum() + 2 * cosines.prod()
    assert volume == pytest.approx(-1.48 * 1.52 * 1.53 * np.sqrt(gram), rel=1e-6)


def test_conformers_are_restrained_each_with_the_common_atoms():
    c = crystal(conformers=("A", "B"))
    t = read_topology(c, dictionary())
    bonds = names(t.bonds, c)
    assert ("CA", "CB/A") in bonds
    assert ("CA", "CB/B") in bonds
    assert len(bonds) == 7
    assert len(t.chirals) == 2
    for table in (t.bonds, t.angles, t.torsions, t.chirals, t.planes):
        for atoms in table.atoms.tolist():
            assert len({c.altloc[i] for i in atoms if i >= 0} - {""}) <= 1


def test_occupancies_of_conformers_form_groups():
    c = crystal([(5, 5, 5), (9, 9, 9)], conformers=("A", "B"))
    groups = occupancy_groups(c)
    assert len(groups) == 2
    assert [letter for letter, _ in groups[0]] == ["A", "B"]
    assert [c.name[i] for i in groups[1][1][1]] == ["A/XAL 2/N/B", "A/XAL 2/CB/B"]
    assert occupancy_groups(crystal()) == []


def test_unrestrained_residues_are_counted():
    c = crystal([(5, 5, 5), (9, 9, 9)])
    restraints = build_restraints(c, gemmi.MonLib(), unrestrained=("XAL",))
    assert restraints.topology.unrestrained == {"XAL": 2}
    assert len(restraints) == 0
    value, slope = restraints.value_and_grad(c.xyz.numpy())
    assert value == 0
    assert not slope.any()
    assert restraints.hessian(c.xyz.numpy()).nnz == 36 * 3  # zeros on the diagonal blocks


def test_a_residue_without_a_description_is_an_error():
    with pytest.raises(InputError, match=r"XAL \(1\)"):
        build_restraints(crystal(), gemmi.MonLib())
    with pytest.raises(InputError, match="no residue LIG"):
        build_restraints(crystal(), dictionary(), unrestrained=("LIG",))


def test_an_atom_outside_the_description_is_named():
    st = structure([np.array([5.0, 5, 5])])
    st[0][0][0][2].name = "CX"
    c = crystal_from_gemmi(st)
    restraints = build_restraints(c, dictionary())
    assert restraints.topology.unknown_atoms == ("A/XAL 1/CX",)
    assert restraints.topology.missing_atoms == ("A/XAL 1/CB",)
    assert not (restraints.bonds.atoms == 2).any()


@pytest.mark.parametrize("asu", [gemmi.Asu.Different, gemmi.Asu.Any])
def test_a_link_to_a_symmetry_copy(asu):
    """A bond across the screw axis of P 21, given in the file."""
    st = structure([np.array([2.0, 3.0, 4.0]), np.array([9.0, 3.0, 4.0])], cell=(20, 21, 22, 90, 90, 90))
    first, second = ({a.name: a for a in residue} for residue in st[0][0])
    # The image of O under (-x, y + 1/2, -z), moved by one lattice vector, shall lie 1.5 Å from CB.
    x = second["O"].pos
    first["CB"].pos = gemmi.Position(20 - x.x, x.y + 10.5, 1.5 - x.z)
    link = gemmi.Connection()
    link.name, link.type, link.asu = "one", gemmi.ConnectionType.Covale, asu
    for side, atom, number in (("partner1", "CB", "1"), ("partner2", "O", "2")):
        address = gemmi.AtomAddress()
        address.chain_name, address.res_id, address.atom_name = "A", gemmi.ResidueId(), atom
        address.res_id.name, address.res_id.seqid = "XAL", gemmi.SeqId(number)
        setattr(link, side, address)
    st.connections.append(link)
    c = crystal_from_gemmi(st)
    restraints = build_restraints(c, dictionary())
    far = restraints.bonds.image > 0
    assert int(far.sum()) == 1
    # Nobody described this link: gemmi's guess, with a wide σ.
    assert float(restraints.bonds.sigma[far]) == pytest.approx(3 * 0.02)
    d = distance(c.xyz, restraints.bonds.atoms, restraints.bonds.image, restraints.images)
    torch.testing.assert_close(d[far], torch.tensor([1.5], dtype=torch.float64), atol=1e-6, rtol=0)
    pairs = {frozenset(p) for p in restraints.nonbonded.atoms[restraints.nonbonded.image > 0].tolist()}
    assert frozenset((2, 10)) not in pairs


def test_a_guessed_description_replaces_the_missing_one(monkeypatch):
    """Whatever `guess_monomer` says of the first such residue holds for all."""
    c = crystal([(5, 5, 5), (9, 9, 9)])
    asked = []

    def guess_monomer(residue):
        asked.append([a.name for a in residue])
        return dictionary().monomers["XAL"]

    module = types.ModuleType("bayesref.restraints.dictionary")
    module.guess_monomer = guess_monomer
    monkeypatch.setitem(sys.modules, module.__name__, module)
    empty = gemmi.MonLib()
    restraints = build_restraints(c, empty, guess=("XAL",))
    assert asked == [["N", "CA", "CB", "C", "O", "OXT"]]
    assert len(restraints) == len(build_restraints(c, dictionary()))
    assert "XAL" not in empty.monomers
    with pytest.raises(InputError, match="no residue LIG"):
        build_restraints(c, empty, guess=("LIG",))
