"""Densities of φ and ψ: normalised, smooth, and where the regions are; local symmetry; their Hessians."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_molecule import crystal, dictionary

from bayesref.crystal.atoms import crystal_from_gemmi
from bayesref.restraints import ncs, optional, ramachandran
from bayesref.restraints.restraints import build_restraints
from bayesref.restraints.terms import Bonds


@pytest.mark.parametrize("kind", range(3))
def test_density_integrates_to_one_and_is_periodic(kind):
    x = torch.deg2rad(torch.arange(0, 360, 2, dtype=torch.float64) - 180)
    phi, psi = (t.ravel() for t in torch.meshgrid(x, x, indexing="ij"))
    kinds = torch.full((len(phi),), kind)
    log_p = ramachandran.log_density(phi, psi, kinds)
    assert float(log_p.exp().sum() * math.radians(2) ** 2) == pytest.approx(1, abs=1e-4)
    edge = torch.tensor([math.pi, -math.pi], dtype=torch.float64)
    one, other = ramachandran.log_density(edge, edge.flip(0), torch.full((2,), kind)).tolist()
    assert one == pytest.approx(other, abs=1e-2)


@pytest.mark.parametrize(
    ("kind", "phi", "psi", "expected"),
    [
        (ramachandran.GENERAL, -60, -45, 2),
        (ramachandran.GENERAL, -120, 130, 2),
        (ramachandran.GENERAL, 57, 42, 2),
        (ramachandran.GENERAL, 60, -120, 0),
        (ramachandran.GLYCINE, 85, 0, 2),
        (ramachandran.GLYCINE, 63, 40, 2),
        (ramachandran.PROLINE, -65, 145, 2),
        (ramachandran.PROLINE, 60, 40, 0),
        (ramachandran.PROLINE, -140, 140, 0),
    ],
)
def test_regions(kind, phi, psi, expected):
    angles = (torch.tensor([math.radians(a)], dtype=torch.float64) for a in (phi, psi))
    assert int(ramachandran.classify(*angles, torch.tensor([kind]))) == expected


def test_glycine_is_symmetric():
    phi, psi = torch.rand(2, 50, dtype=torch.float64) * 6 - 3
    kind = torch.full((50,), ramachandran.GLYCINE)
    torch.testing.assert_close(
        ramachandran.log_density(phi, psi, kind), ramachandran.log_density(-phi, -psi, kind)
    )


def test_residues_are_found_along_the_bonds():
    """N CA C of three residues, the second with two conformers of its CA."""
    atoms = ["N", "CA", "C", "N", "CA/A", "CA/B", "C", "N", "CA", "C"]
    residue = ["ALA 1"] * 3 + ["GLY 2"] * 4 + ["PRO 3"] * 3
    name = tuple(f"A/{r}/{a}" for r, a in zip(residue, atoms, strict=True))
    altloc = tuple(a[3:] for a in atoms)
    pairs = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 4], [3, 5], [4, 6], [5, 6], [6, 7], [7, 8], [8, 9]])
    bonds = Bonds(pairs, torch.zeros(10, dtype=torch.int64), torch.ones(10), torch.ones(10))
    table = ramachandran.backbone(bonds, name, altloc)
    assert table.atoms.tolist() == [[2, 3, 4, 6, 7], [2, 3, 5, 6, 7]]
    assert table.kind.tolist() == [ramachandran.GLYCINE] * 2
    assert ramachandran.peptides(bonds, name, altloc).tolist() == [
        [1, 2, 3, 4],
        [1, 2, 3, 5],
        [4, 6, 7, 8],
        [5, 6, 7, 8],
    ]


@pytest.fixture
def equipped(molecules):
    """Restraints with both kinds that are optional, on atoms chosen for the purpose."""
    table = ramachandran.Ramachandran(
        torch.tensor([[0, 1, 3, 4, 6], [7, 9, 10, 0, 2]]),
        torch.tensor([ramachandran.GENERAL, ramachandran.PROLINE]),
    )
    alike = ncs.LocalSymmetry(torch.tensor([[0, 5, 6, 11], [2, 8, 1, 9]]))
    return replace(molecules[1], ramachandran=table, ncs=alike)


def test_optional_restraints_have_their_slopes(molecules, equipped):
    xyz = molecules[0].xyz + 0.1 * torch.randn(12, 3, dtype=torch.float64)
    x = xyz.clone().requires_grad_()
    assert {"ramachandran", "ncs"} <= set(equipped.log_density(x))
    log_p = equipped.log_prob(x)
    (slope,) = torch.autograd.grad(log_p, x)
    value, compiled = equipped.value_and_grad(xyz.numpy())
    assert value == pytest.approx(float(log_p.detach()))
    np.testing.assert_allclose(compiled, slope, atol=1e-9)


def test_optional_restraints_have_their_hessian(molecules, equipped):
    xyz = molecules[0].xyz + 0.1 * torch.randn(12, 3, dtype=torch.float64)
    more = (equipped.hessian(xyz.numpy()) - molecules[1].hessian(xyz.numpy())).toarray()
    phi, psi = ramachandran.torsions(xyz, equipped.ramachandran)
    P = ramachandran.precision(phi, psi, equipped.ramachandran.kind)
    J = torch.autograd.functional.jacobian(
        lambda x: torch.stack(ramachandran.torsions(x, equipped.ramachandran), -1), xyz
    ).flatten(2)
    expected = torch.einsum("nia,nij,njb->ab", J, P, J)

    def differences(x):
        a = equipped.ncs.atoms
        return ((x[a[:, 0]] - x[a[:, 1]]).norm(dim=1) - (x[a[:, 2]] - x[a[:, 3]]).norm(dim=1)) / ncs.SIGMA

    z, K = differences(xyz), torch.autograd.functional.jacobian(differences, xyz).flatten(1)
    expected += K.T @ (K / (1 + z[:, None] ** 2 / ncs.SOFTNESS**2) ** 2)
    np.testing.assert_allclose(more, expected, atol=1e-6)
    assert set(optional.slopes(molecules[1], xyz.numpy())) == set()


def test_copies_of_a_chain_are_alike():
    places = [(4 * k, 5.0, 5.0) for k in range(6)]
    one = crystal(places, cell=(60, 60, 60, 90, 90, 90), spacegroup="P 1")
    structure = one.structure.clone()
    second = structure[0][0].clone()
    second.name = "B"
    for residue in second:
        for atom in residue:
            atom.pos.y += 20
    structure[0].add_chain(second)
    two = crystal_from_gemmi(structure)
    restraints = build_restraints(two, dictionary(), ncs=True)
    assert len(restraints.ncs) > 0
    torch.testing.assert_close(restraints.ncs.atoms[:, 2:], restraints.ncs.atoms[:, :2] + 36)
    torch.testing.assert_close(restraints.log_density(two.xyz)["ncs"], torch.zeros((), dtype=torch.float64))
    far = two.xyz.clone()
    far[36:42] += 3  # a residue that differs costs a bounded amount
    cost = -ncs.log_density(far, restraints.ncs)
    assert cost.max() > 1
    assert cost.max() < ncs.SOFTNESS**2 / 2
    assert len(build_restraints(one, dictionary(), ncs=True).ncs) == 0
