"""The asymmetric unit against gemmi's own, one reflection at a time, in every space group."""

import gemmi
import numpy as np
import pytest
import torch

from bayesref._checks import InputError
from bayesref.crystal.asu import reciprocal_asu
from bayesref.crystal.lattice import as_cell, as_spacegroup, check_compatible, mean_cell
from bayesref.crystal.symmetry import is_absent, is_centric, pack, to_asu, unpack


def random_hkl(n, bound=7, seed=1):
    return np.random.default_rng(seed).integers(-bound, bound + 1, size=(n, 3)).astype(np.int32)


def test_to_asu_is_that_of_gemmi_in_every_space_group():
    hkl = random_hkl(30)
    for group in gemmi.spacegroup_table_itb():
        asu, operations = gemmi.ReciprocalAsu(group), group.operations()
        mapped, isym = to_asu(hkl, group)
        for h, ours, number in zip(hkl.tolist(), mapped.tolist(), isym, strict=True):
            theirs, _ = asu.to_asu(h, operations)
            assert ours == theirs, (group.xhm(), h)
            op = operations.sym_ops[(number - 1) // 2 % len(operations.sym_ops)]
            assert ours == [x if number % 2 else -x for x in op.apply_to_hkl(h)]


def test_epsilon_and_centric_by_counting_operators():
    for symbol in ("P 63", "P 4 2 2", "C 1 2 1", "I 4 3 2", "R 3 :H"):
        group = as_spacegroup(symbol)
        hkl = random_hkl(60, bound=3)
        asu, _ = reciprocal_asu(hkl[~is_absent(hkl, group)], _cell_for(group), group)
        for h, eps, centric in zip(asu.hkl.tolist(), asu.epsilon, asu.centric, strict=True):
            images = [op.apply_to_hkl(h) for op in group.operations().sym_ops]
            assert eps == sum(i == h for i in images)
            assert bool(centric) == ([-x for x in h] in images)


def _cell_for(group):
    system = group.crystal_system_str()
    if system in ("trigonal", "hexagonal"):
        return gemmi.UnitCell(50, 50, 70, 90, 90, 120)
    return gemmi.UnitCell(50, 50, 50, 90, 90, 90)


def test_rows_are_sorted_and_every_spot_finds_its_own():
    group, cell = as_spacegroup("P 63"), gemmi.UnitCell(60, 60, 40, 90, 90, 120)
    hkl = random_hkl(2000)
    hkl = hkl[~is_absent(hkl, group)]
    asu, hkl_id = reciprocal_asu(torch.from_numpy(hkl), cell, group)
    rows = [tuple(h) for h in asu.hkl.tolist()]
    assert rows == sorted(set(rows))
    np.testing.assert_array_equal(asu.hkl[hkl_id].numpy(), to_asu(hkl, group)[0])
    np.testing.assert_allclose(asu.dHKL[hkl_id], [cell.calculate_d(h.tolist()) for h in hkl], rtol=1e-12)
    np.testing.assert_allclose(asu.stol2, 1 / (4 * asu.dHKL**2))


def test_anomalous_keeps_friedel_mates_of_acentrics_apart():
    group, cell = as_spacegroup("P 21 21 21"), gemmi.UnitCell(30, 40, 50, 90, 90, 90)
    hkl = [[1, 2, 3], [-1, -2, 3], [-1, -2, -3], [1, 2, -3], [2, 0, 4], [-2, 0, -4]]
    asu, hkl_id = reciprocal_asu(hkl, cell, group, anomalous=True)
    assert asu.hkl[hkl_id].tolist() == [
        [1, 2, 3],
        [1, 2, 3],  # a twofold axis
        [-1, -2, -3],
        [-1, -2, -3],
        [2, 0, 4],  # centric: one row
        [2, 0, 4],
    ]
    mates = asu.friedel_mates()
    plus, minus = int(hkl_id[0]), int(hkl_id[2])
    assert mates[plus] == minus
    assert (mates >= 0).sum() == 1
    assert len(reciprocal_asu(hkl, cell, group)[0]) == 2


def test_friedel_mates_need_both_and_stay_within_their_dataset():
    group, cell = as_spacegroup("P 21 21 21"), gemmi.UnitCell(30, 40, 50, 90, 90, 90)
    hkl = [[1, 2, 3], [-1, -2, -3], [1, 2, 3], [3, 2, 1]]
    asu, hkl_id = reciprocal_asu(hkl, cell, group, anomalous=True, dataset_id=[0, 1, 1, 0])
    mates = asu.friedel_mates()
    assert mates[hkl_id[0]] == -1
    assert mates[hkl_id[2]] == hkl_id[1]
    assert mates[hkl_id[3]] == -1
    assert (reciprocal_asu(hkl, cell, group)[0].friedel_mates() == -1).all()


def test_one_row_per_dataset():
    group, cell = as_spacegroup("P 63"), gemmi.UnitCell(60, 60, 40, 90, 90, 120)
    hkl = random_hkl(500)
    hkl = hkl[~is_absent(hkl, group)]
    twice, dataset = np.concatenate([hkl, hkl]), np.repeat([0, 1], len(hkl))
    asu, hkl_id = reciprocal_asu(twice, cell, group, dataset_id=dataset)
    single, single_id = reciprocal_asu(hkl, cell, group)
    assert asu.n_dataset == 2
    assert len(asu) == 2 * len(single)
    np.testing.assert_array_equal(asu.dataset_id[hkl_id], dataset)
    np.testing.assert_array_equal(hkl_id[: len(hkl)], single_id)
    np.testing.assert_array_equal(hkl_id[len(hkl) :], single_id + len(single))


def test_absences_are_refused():
    group, cell = as_spacegroup("P 21 21 21"), gemmi.UnitCell(30, 40, 50, 90, 90, 90)
    assert is_absent([[1, 0, 0], [2, 0, 0], [0, 0, 0], [1, 2, 3]], group).tolist() == [
        True,
        False,
        True,
        False,
    ]
    with pytest.raises(InputError, match=r"1 indices are systematically absent in P 21 21 21.*\(3, 0, 0\)"):
        reciprocal_asu([[1, 2, 3], [3, 0, 0]], cell, group)
    with pytest.raises(InputError, match=r"shape \(2,\); expected \(n, 3\)"):
        reciprocal_asu([1, 2], cell, group)


def test_centrosymmetric_groups_are_centric_throughout():
    assert is_centric(random_hkl(50), as_spacegroup("P -1")).all()


def test_pack_sorts_as_indices_do():
    hkl = random_hkl(300, bound=5)
    dataset = np.random.default_rng(2).integers(0, 3, size=300)
    key = pack(hkl, 5, dataset)
    back, back_dataset = unpack(key, 5)
    np.testing.assert_array_equal(back, hkl)
    np.testing.assert_array_equal(back_dataset, dataset)
    order = np.lexsort((*hkl.T[::-1], dataset))
    assert (np.diff(key[order]) >= 0).all()


def test_subset_and_to(device):
    asu, _ = reciprocal_asu([[1, 2, 3], [2, 0, 4], [5, 5, 5]], [30, 40, 50, 90, 90, 90], "P 21 21 21")
    part = asu.subset(asu.centric)
    assert part.hkl.tolist() == [[2, 0, 4]]
    assert len(asu.subset(slice(0, 2))) == 2
    moved = asu.to(device, torch.float32)
    assert moved.dHKL.dtype == torch.float32
    assert moved.hkl.dtype == torch.int64
    assert moved.dHKL.device.type == device.type


@pytest.mark.parametrize(
    ("cell", "message"),
    [([30, 40, 50, 90, 90], "six numbers"), ([30, 40, 50, 90, 90, 180], "no volume"), ([0] * 6, "no volume")],
)
def test_bad_cells_are_refused(cell, message):
    with pytest.raises(InputError, match=message):
        as_cell(cell)


def test_bad_space_groups_are_refused():
    assert as_spacegroup(19).xhm() == as_spacegroup("19").xhm() == as_spacegroup("P212121").xhm()
    for bad in ("P 21 21 99", 231, "0"):
        with pytest.raises(InputError, match="is not a space group"):
            as_spacegroup(bad)
    with pytest.raises(InputError, match="P 63 does not fit the unit cell 30 40 50"):
        check_compatible(gemmi.UnitCell(30, 40, 50, 90, 90, 90), as_spacegroup("P 63"))
    for good in ("P 63", "P 3 2 1", "P 1"):
        check_compatible(gemmi.UnitCell(66.9, 66.91, 41, 90, 90, 120.01), as_spacegroup(good))


def test_mean_cell_needs_agreement():
    a, b = gemmi.UnitCell(50, 60, 70, 90, 90, 90), gemmi.UnitCell(50.5, 60, 70, 90, 91, 90)
    assert mean_cell([a, b], "ab").parameters == pytest.approx((50.25, 60, 70, 90, 90.5, 90))
    c = gemmi.UnitCell(50, 60, 72, 90, 90, 90)
    with pytest.raises(InputError, match=r"a .*50 60 70.*c .*50 60 72.*differ by more than 2%"):
        mean_cell([a, b, c], "abc")
