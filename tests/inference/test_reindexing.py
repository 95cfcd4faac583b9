"""Ways of indexing: operators of the lattice, their effect on spots, and which one each image has."""

import gemmi
import numpy as np
import pytest
import torch
from serial_truth import small, true_choice

from bayesref._checks import InputError
from bayesref.crystal import symmetry
from bayesref.inference.reindexing import check_ways, closed, gauge, lattice_ways, reindexed, triplet
from bayesref.inference.reindexing_start import first_consensus

HEX = gemmi.UnitCell(40, 40, 30, 90, 90, 120)


@pytest.mark.parametrize(("group", "n"), [("P 63", 2), ("P 3", 4), ("P 3 1 2", 2), ("P 63 2 2", 1)])
def test_number_of_ways(group, n):
    """The lattice 6/mmm has 12 rotations; a crystal with m of them can be indexed in 12/m ways."""
    assert len(lattice_ways(HEX, gemmi.SpaceGroup(group))) == n


def test_an_operator_by_name():
    (_, R) = lattice_ways(HEX, gemmi.SpaceGroup("P 63"), "k,h,-l")
    assert triplet(R) == "k,h,-l"
    assert (np.array([1, 2, 3]) @ R == [2, 1, -3]).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-h,-k,l", "is no new way of indexing in P 63"),
        ("k,h,-l;-h-k,k,-l", "-h-k,k,-l is no new way"),
        ("hkl", "is not an operator"),
        ("h+k,h-k,l", "does not take whole indices to whole ones"),
    ],
)
def test_operators_that_are_none(text, message):
    with pytest.raises(InputError, match=message):
        lattice_ways(HEX, gemmi.SpaceGroup("P 63"), text)


def test_a_lattice_without_ambiguity():
    group = gemmi.SpaceGroup("P 63 2 2")
    with pytest.raises(InputError, match=r"no symmetry beyond that of P 63 2 2"):
        check_ways(len(lattice_ways(HEX, group)), group)


@pytest.mark.parametrize("spacegroup", ["P 63", "P 3"])
def test_reindexing_is_a_matrix_on_the_observed_indices(spacegroup):
    _, obs = small(spacegroup=spacegroup)
    obs, ways = closed(obs, lattice_ways(obs.asu.cell, obs.asu.spacegroup))
    choice = torch.randint(len(ways), (obs.n_image,), generator=torch.Generator().manual_seed(0))
    new = reindexed(obs, ways, choice)
    assert (new.hkl_id.diff() >= 0).all()
    before, after = obs.row.argsort(), new.row.argsort()
    for g, R in enumerate(ways.matrices):
        mine = choice[obs.image_id[before]] == g
        np.testing.assert_array_equal(obs.hkl[before][mine].numpy() @ R, new.hkl[after][mine])
    torch.testing.assert_close(obs.I[before], new.I[after])
    mapped, _ = symmetry.to_asu(new.hkl.numpy(), obs.asu.spacegroup)
    np.testing.assert_array_equal(mapped, new.asu.hkl[new.hkl_id])


def test_the_gauge_makes_the_commonest_way_the_identity():
    group = gemmi.SpaceGroup("P 3")

    class Four:
        matrices = lattice_ways(HEX, group)

        def __len__(self):
            return 4

    for most in range(4):
        choice = np.array([most] * 5 + [0, 1, 2, 3])
        new = gauge(choice, np.ones(9), Four(), group)
        assert new[most] == 0
        assert sorted(new) == [0, 1, 2, 3]


@pytest.mark.parametrize("spacegroup", ["P 63", "P 3"])
def test_first_consensus(spacegroup):
    """Images agree with the truth up to one operator for all; bad ones belong to nobody."""
    s, obs = small(spacegroup=spacegroup, images=300 if spacegroup == "P 3" else 120)
    obs, ways = closed(obs, lattice_ways(obs.asu.cell, obs.asu.spacegroup))
    start = first_consensus(obs, ways)
    np.testing.assert_allclose(start.probability.sum(1), 1)
    good = ~s.bad
    choice = start.probability[:, :-1].argmax(1)
    table = np.zeros((len(ways), len(ways)))
    np.add.at(table, (s.operator[good], choice[good]), 1)
    assert table.max(1).sum() > 0.97 * good.sum()
    assert len(set(table.argmax(1))) == len(ways)
    called_bad = start.probability[:, -1] > 0.5
    assert (called_bad & s.bad).sum() >= s.bad.sum() - 1
    assert (called_bad & good).sum() < 0.1 * good.sum()


def test_images_that_say_nothing_stay_undecided():
    """Noise alone: no way is preferred by more than chance would."""
    s, obs = small(G=1e-3, images=60)
    obs, ways = closed(obs, lattice_ways(obs.asu.cell, obs.asu.spacegroup))
    start = first_consensus(obs, ways, bad=0.0)
    choice = start.probability.argmax(1)
    agree = (choice == true_choice(s).numpy()).mean()
    assert 0.2 < agree < 0.8
