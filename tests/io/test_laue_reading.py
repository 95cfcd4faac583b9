"""Laue files read by order: every order of every ray, against brute force."""

import gemmi
import numpy as np
import pytest

import bayesref as br
from bayesref._checks import InputError

CELL, GROUP = (30, 30.1, 50, 90, 90, 90), "P 21 21 21"


def rays(n=60, seed=0):
    """Indices, wavelengths and images of spots, each ray once on an image."""
    rng = np.random.default_rng(seed)
    hkl = rng.integers(1, 3, size=(n, 3)) * rng.integers(1, 6, size=(n, 1)) * rng.choice([-1, 1], size=(n, 3))
    return hkl, rng.uniform(0.6, 1.8, size=n), np.arange(n) % 40


def laue_file(make_mtz, hkl, wavelength, image, I=None, SIGI=None, key="Wavelength"):
    n = len(hkl)
    columns = {label: ("H", hkl[:, i]) for i, label in enumerate("HKL")}
    columns |= {"I": ("J", np.arange(1.0, n + 1) if I is None else I)}
    columns |= {
        "SIGI": ("Q", np.ones(n) if SIGI is None else SIGI),
        "BATCH": ("B", image),
        "X": ("R", image % 7),
    }
    return make_mtz("laue.mtz", columns | {key: ("R", wavelength)}, cell=CELL, spacegroup=GROUP)


def brute_force(hkl, wavelength, low, high, dmin):
    """{(order)} of each row, one after another."""
    cell, ops = gemmi.UnitCell(*CELL), gemmi.SpaceGroup(GROUP).operations()
    result = []
    for h, w in zip(hkl.tolist(), wavelength.astype(np.float32), strict=True):
        n = int(np.gcd.reduce(h))
        first, longest = [i // n for i in h], n * float(w)
        orders = {}
        for m in range(1, 40):
            index = [m * i for i in first]
            there = low <= longest / m <= high and cell.calculate_d(index) >= dmin
            if there and not ops.is_systematically_absent(index):
                orders[tuple(index)] = longest / m
        result.append(orders)
    return result


def by_row(obs):
    """{row: {index: wavelength}} of single spots and of overlaps."""
    result = {}
    for part in (obs, obs.overlaps.orders):
        for row, h, w in zip(part.row.tolist(), part.hkl.tolist(), part.wavelength.tolist(), strict=True):
            result.setdefault(row, {})[tuple(h)] = w
    return result


@pytest.mark.parametrize("band", [(0.7, 1.6), (0.5, 2.5)])
def test_every_order_of_every_ray(make_mtz, band):
    hkl, wavelength, image = rays()
    path = laue_file(make_mtz, hkl, wavelength, image)
    obs = br.read_unmerged(path, wavelength_range=band, dmin=1.9)
    d = gemmi.UnitCell(*CELL).calculate_d_array(hkl)
    expected = {
        i: orders
        for i, orders in enumerate(brute_force(hkl, wavelength, *band, 1.9))
        if orders and d[i] >= 1.9
    }
    found = by_row(obs)
    assert found.keys() == expected.keys()
    for row, orders in expected.items():
        assert found[row].keys() == orders.keys()
        np.testing.assert_allclose([found[row][h] for h in orders], list(orders.values()), rtol=1e-6)
    several = [i for i, orders in expected.items() if len(orders) > 1]
    assert len(several) > 5
    assert len(obs.overlaps) == len(several)
    assert len(obs) == len(expected) - len(several)
    assert sorted(obs.overlaps.I.tolist()) == sorted(i + 1.0 for i in several)
    assert f"{len(several)} of {len(expected)} spots hold several harmonics" in str(obs.report)


def test_rows_of_one_spot_add_up(make_mtz):
    obs = br.read_unmerged(
        laue_file(make_mtz, *rays()), wavelength_range=(0.5, 2.5), metadata_keys=["dHKL", "X"]
    )
    overlaps = obs.overlaps
    ones = overlaps.total(overlaps.orders.I * 0 + 1)
    assert ones.min() >= 2
    assert int(ones.sum()) == len(overlaps.orders)
    for i in range(len(overlaps)):
        rows = overlaps.orders.subset(overlaps.spot == i)
        assert len(set(rows.image_id.tolist())) == 1
        assert len(set(rows.I.tolist())) == 1
        assert len(set(rows.metadata[:, 0].tolist())) == len(rows)  # dHKL differs from order to order
        assert len(set(rows.metadata[:, 1].tolist())) == 1  # the place does not
    assert int(obs.counts().sum()) == len(obs) + len(overlaps.orders)


def test_a_ray_listed_twice_is_one_spot(make_mtz):
    hkl = np.array([[1, 1, 2], [2, 2, 4], [1, 1, 2], [1, 2, 3]])
    wavelength, image = np.array([1.8, 0.9, 1.7, 1.0]), np.array([1, 1, 2, 2])
    path = laue_file(make_mtz, hkl, wavelength, image, I=[10.0, 20.0, 5.0, 7.0], SIGI=[1.0, 2.0, 1.0, 1.0])
    obs = br.read_unmerged(path, wavelength_range=(0.8, 2.0), dmin=2.0)
    assert sorted(obs.overlaps.I.tolist()) == [5.0, pytest.approx((10 + 20 / 4) / (1 + 1 / 4))]
    assert obs.overlaps.SIGI.max() == 2.0
    assert obs.report.files[0].left_out["listed twice"] == 1
    assert "1 rows name a ray that its image has already" in str(obs.report)


def test_halves_of_the_images_take_overlaps_with_them(make_mtz):
    obs = br.read_unmerged(laue_file(make_mtz, *rays()), wavelength_range=(0.5, 2.5))
    side = np.arange(obs.n_image) % 2 == 0
    import torch

    halves = [obs.subset_images(torch.tensor(side == k)) for k in (True, False)]
    assert sum(len(h) for h in halves) == len(obs)
    assert sum(len(h.overlaps) for h in halves) == len(obs.overlaps)
    assert torch.equal(halves[0].counts() + halves[1].counts(), obs.counts())


def test_ranges_that_cannot_be_used(make_mtz):
    path = laue_file(make_mtz, *rays())
    with pytest.raises(
        InputError,
        match=r"only 0 of 60 spots have an order between 50 and 60 Å.*give a range that holds them",
    ):
        br.read_unmerged(path, wavelength_range=(50.0, 60.0))
    with pytest.raises(InputError, match="are no band"):
        br.read_unmerged(path, wavelength_range=(1.6, 0.7))
    mono = laue_file(make_mtz, *rays(), key="LAM")
    with pytest.raises(InputError, match=r"laue\.mtz has no column of wavelengths.*--wavelength-key"):
        br.read_unmerged(mono, wavelength_range="auto")
    obs = br.read_unmerged(mono, wavelength_range="auto", wavelength_key="LAM")
    assert obs.overlaps
