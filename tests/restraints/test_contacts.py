"""The list of contacts against brute force; minimal distances; what is left out."""

import itertools
from dataclasses import replace

import gemmi
import numpy as np
import pytest
import torch
from small_molecule import crystal, dictionary, structure

from bayesref.crystal.atoms import crystal_from_gemmi
from bayesref.restraints.geometry import distance
from bayesref.restraints.images import SPECIAL, cartesian, neighbours
from bayesref.restraints.restraints import build_restraints


def brute_force(xyz, cell, spacegroup, radius):
    """All distances below the radius, of atoms with their copies five cells around, sorted."""
    O, F = np.array(cell.orth.mat.tolist()), np.array(cell.frac.mat.tolist())
    found = []
    ops = list(spacegroup.operations())
    for n, op in enumerate(ops):
        for shift in itertools.product(range(-5, 6), repeat=3):
            if n == 0 and shift == (0, 0, 0):
                d = np.linalg.norm(xyz[:, None] - xyz, axis=-1)[np.triu_indices(len(xyz), 1)]
                found += [x for x in d if x < radius for _ in (0, 1)]
                continue
            copy = (xyz @ F.T @ (np.array(op.rot) / 24).T + np.array(op.tran) / 24 + shift) @ O.T
            d = np.linalg.norm(xyz[:, None] - copy, axis=-1)
            own = np.diagonal(d)
            d = np.concatenate([d[~np.eye(len(d), dtype=bool)], own[own > SPECIAL]])
            found += list(d[d < radius])
    return np.sort(found)


@pytest.mark.parametrize("group", ["P 1", "P 1 21 1", "C 1 2 1", "P 43 21 2", "P 63"])
def test_every_contact_is_found_once(group):
    spacegroup = gemmi.SpaceGroup(group)
    cell = {
        "P 43 21 2": gemmi.UnitCell(9, 9, 12, 90, 90, 90),
        "P 63": gemmi.UnitCell(9, 9, 12, 90, 90, 120),
    }.get(group, gemmi.UnitCell(8, 9, 10, 90, 105 if group != "P 1" else 100, 90))
    # Outside the cell, as models often are.
    xyz = np.random.default_rng(3).uniform([3, -18, -2], [12, -9, 7], (12, 3))
    atoms, image, d, operators = neighbours(xyz, cell, spacegroup, 4.0)
    two_fold = [
        k for k, (i, j) in enumerate(atoms) if i == j and _is_own_inverse(operators[image[k]], spacegroup)
    ]
    twice = np.sort(np.concatenate([d, np.delete(d, two_fold)]))
    np.testing.assert_allclose(twice, brute_force(xyz, cell, spacegroup, 4.0), atol=1e-9)
    maps = cartesian(cell, spacegroup, operators)
    torch.testing.assert_close(
        distance(torch.from_numpy(xyz), torch.from_numpy(atoms), torch.from_numpy(image), maps),
        torch.from_numpy(d),
    )


def _is_own_inverse(operator, spacegroup):
    op = list(spacegroup.operations())[operator[0]]
    rotation, t = np.array(op.rot) / 24, np.array(op.tran) / 24 + operator[1]
    return np.allclose(rotation @ rotation, np.eye(3)) and np.allclose(rotation @ t + t, 0)


def test_an_atom_on_a_rotation_axis_is_no_contact_of_itself():
    xyz = np.array([[0.1, 3.0, 0.2]])
    atoms, *_ = neighbours(xyz, gemmi.UnitCell(20, 20, 20, 90, 90, 90), gemmi.SpaceGroup("P 1 2 1"), 4.0)
    assert len(atoms) == 0
    xyz = np.array([[1.0, 3.0, 0.0]])
    atoms, _, d, _ = neighbours(xyz, gemmi.UnitCell(20, 20, 20, 90, 90, 90), gemmi.SpaceGroup("P 1 2 1"), 4.0)
    assert (atoms.tolist(), d.tolist()) == ([[0, 0]], [2.0])


def minimum(restraints, first, second):
    """Minimal distance of two atoms by the ends of their names, over all images."""
    for atoms, value in zip(
        restraints.nonbonded.atoms.tolist(), restraints.nonbonded.minimum.tolist(), strict=True
    ):
        ends = {restraints.name[i].split("/", 1)[1] for i in atoms}
        if ends == {first, second}:
            return value
    return None


@pytest.fixture
def pair():
    """Two molecules in a large cell, so that the nitrogen of one is near oxygens of the other."""
    c = crystal([(5, 5, 5), (3.8, 0.8, 3.0)], cell=(40, 40, 40, 90, 90, 90), spacegroup="P 1")
    return c, build_restraints(c, dictionary())


def test_minimal_distances_are_sums_of_radii(pair):
    """Without an energy library: van der Waals radii of `radii`; nitrogen and oxygen may share a hydrogen."""
    c, restraints = pair
    assert minimum(restraints, "XAL 1/O", "XAL 2/N") == pytest.approx(1.50 + 1.55 - 0.3)
    rules = restraints.rules
    none = replace(rules, donor=np.zeros(12, dtype=bool))
    apart = replace(restraints, rules=none).refresh(c.xyz)
    assert minimum(apart, "XAL 1/O", "XAL 2/N") == pytest.approx(1.50 + 1.55)
    for i, j in restraints.nonbonded.atoms.tolist():
        assert c.name[i].split("/")[1] != c.name[j].split("/")[1], (
            "all pairs within XAL are 1-3, 1-4 or planar"
        )


def test_hydrogen_bonds_and_metals_come_closer(pair):
    c, restraints = pair
    rules = restraints.rules
    n, o = c.name.index("A/XAL 1/O"), c.name.index("A/XAL 2/N")
    donor, acceptor = np.zeros(12, dtype=bool), np.zeros(12, dtype=bool)
    donor[n], acceptor[o] = True, True
    bonded = replace(restraints, rules=replace(rules, donor=donor, acceptor=acceptor)).refresh(c.xyz)
    assert minimum(bonded, "XAL 1/O", "XAL 2/N") == pytest.approx(3.05 - 0.3)
    ion = rules.ion_radius.copy()
    ion[[n, o]] = 0.6, 1.3
    metal = replace(restraints, rules=replace(rules, metal=donor, ion_radius=ion)).refresh(c.xyz)
    assert minimum(metal, "XAL 1/O", "XAL 2/N") == pytest.approx(1.9)


def test_refreshing_follows_the_atoms(pair):
    c, restraints = pair
    assert len(restraints.refresh(c.xyz).nonbonded) == len(restraints.nonbonded) > 0
    apart = c.xyz.clone()
    apart[6:] += 12
    assert len(restraints.refresh(apart).nonbonded) == 0
    assert len(restraints.refresh(apart).refresh(c.xyz).nonbonded) == len(restraints.nonbonded)


def test_conformers_and_alternatives_do_not_repel():
    c = crystal([(5, 5, 5), (3.8, 0.8, 3.0)], conformers=("A", "B"), cell=(40, 40, 40, 90, 90, 90))
    pairs = build_restraints(c, dictionary()).nonbonded.atoms.tolist()
    letters = [{c.altloc[i] for i in p} - {""} for p in pairs]
    assert all(len(s) <= 1 for s in letters)
    assert {"A"} in letters
    assert {"B"} in letters
    # Two molecules that exclude one another by occupancy, without letters.
    st = structure([np.array([5.0, 5, 5]), np.array([3.8, 0.8, 3.0])], cell=(40, 40, 40, 90, 90, 90))
    for cra in st[0].all():
        cra.atom.occ = 0.5
    assert len(build_restraints(crystal_from_gemmi(st), dictionary()).nonbonded) == 0
