"""Hydrogens that ride, on a molecule with one known hydrogen."""

import gemmi
import numpy as np
import pytest
import torch
from small_molecule import DICTIONARY, crystal

from bayesref.restraints.hydrogens import add_riding, refresh_offsets
from bayesref.restraints.restraints import build_restraints


@pytest.fixture
def monlib():
    """XAL with the hydrogen of its CA."""
    text = DICTIONARY.format(sign="negativ")
    text = text.replace("XAL CB C CH3 0\n", "XAL CB C CH3 0\nXAL HA H HCH1 0\n")
    text = text.replace("XAL CA CB single", "XAL CA HA single 0.98 0.02\nXAL CA CB single")
    angles = "".join(f"XAL HA CA {a} 108.5 1.5\n" for a in ("N", "CB", "C"))
    text = text.replace("XAL N CA CB 109.5 1.5\n", f"XAL N CA CB 109.5 1.5\n{angles}")
    library = gemmi.MonLib()
    library.read_monomer_doc(gemmi.cif.read_string(text))
    return library


@pytest.fixture
def bare():
    return crystal([(5, 5, 5), (3.8, 0.8, 3.0)], cell=(40, 40, 40, 90, 90, 90), spacegroup="P 1")


def test_a_hydrogen_is_placed_on_its_parent(bare, monlib):
    riding = add_riding(bare, monlib)
    assert [riding.crystal.name[i] for i in riding.hydrogen] == ["A/XAL 1/HA", "A/XAL 2/HA"]
    assert [bare.name[i] for i in riding.parent] == ["A/XAL 1/CA", "A/XAL 2/CA"]
    assert [riding.crystal.name[i] for i in riding.heavy] == list(bare.name)
    torch.testing.assert_close(
        riding.offset.norm(dim=1), torch.full((2,), 0.98, dtype=torch.float64), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(riding.place(bare.xyz), riding.crystal.xyz)
    # Opposite to the sum of the three bonds of CA.
    bonds = torch.stack([bare.xyz[k] - bare.xyz[1] for k in (0, 2, 3)])
    away = -(bonds / bonds.norm(dim=1, keepdim=True)).sum(0)
    assert float(away @ riding.offset[0] / away.norm() / 0.98) > 0.99


def test_it_moves_with_its_parent_and_is_placed_anew(bare, monlib):
    riding = add_riding(bare, monlib)
    x = bare.xyz.clone().requires_grad_()
    placed = riding.place(x)
    (slope,) = torch.autograd.grad(placed[riding.hydrogen].sum(), x)
    assert slope.sum(1).nonzero().ravel().tolist() == [1, 7]
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    fresh = refresh_offsets(riding, bare.xyz @ turn.T, monlib)
    torch.testing.assert_close(fresh.offset, riding.offset @ turn.T, atol=1e-3, rtol=0)
    torch.testing.assert_close(riding.spread(bare.B), torch.full((14,), 20.0, dtype=torch.float64))


def test_riding_hydrogens_touch_and_nothing_else(bare, monlib):
    riding = add_riding(bare, monlib)
    size = {h: build_restraints(riding.crystal, monlib, hydrogens=h) for h in ("present", "riding", "none")}
    assert [len(size[h].bonds) for h in ("present", "riding", "none")] == [12, 10, 10]
    hydrogen = set(riding.hydrogen.tolist())

    def touching(r):
        return sum(bool(hydrogen & set(p)) for p in r.nonbonded.atoms.tolist())

    assert touching(size["riding"]) == touching(size["present"]) > 0
    assert touching(size["none"]) == 0


def test_hessian_folds_onto_parents(bare, monlib):
    riding = add_riding(bare, monlib)
    restraints = build_restraints(riding.crystal, monlib, hydrogens="riding")
    J = (
        torch.autograd.functional.jacobian(riding.place, bare.xyz)
        .reshape(3 * len(riding.crystal), -1)
        .numpy()
    )
    H = restraints.hessian(riding.crystal.xyz.numpy())
    np.testing.assert_allclose(riding.fold(H).toarray(), J.T @ H.toarray() @ J, atol=1e-9)
