"""Spots that several Laue harmonics share: a ray made by hand, and the PYP time points."""

import gemmi
import numpy as np
import pytest

from bayesref._checks import InputError
from bayesref.io.harmonics import wavelength_band
from bayesref.io.unmerged import read_unmerged

# The ray of (1, 1, 1) and neighbours, band 1.0 to 1.2 Å: order, wavelength, and why it is overlapped or not.
RAY = [
    ((2, 3, 4), 1.00, False),  # the ends of the band
    ((2, 3, 4), 1.20, False),
    ((5, 5, 5), 1.00, False),  # order 4 would be at 1.25 Å
    ((6, 6, 6), 1.00, True),  # order 5 at 1.2 Å, the very end
    ((5, 5, 5), 1.20, True),  # the same ray seen from the other side
    ((6, 6, 6), 1.19, True),  # order 7 at 1.02 Å, as far as the crystal diffracts
    ((7, 7, 7), 1.19, False),  # order 8 at 1.04 Å: beyond dmin
    ((-6, 6, -6), 1.00, True),  # whatever the signs
    ((0, 0, 10), 1.08, False),  # order 9 at 1.2 Å: absent, 2_1 axis
    ((0, 0, 12), 1.00, True),  # order 10 at 1.2 Å (order 11 is absent)
    ((0, 0, 14), np.nan, False),  # no wavelength: nothing is known against it
]


def ray_file(make_mtz, name="ray.mtz", wavelength=None, key="Wavelength", image=None):
    hkl = np.array([h for h, _, _ in RAY])
    columns = {label: ("H", hkl[:, i]) for i, label in enumerate("HKL")}
    wavelength = [w for _, w, _ in RAY] if wavelength is None else wavelength
    columns |= {"I": ("J", np.arange(1.0, 12.0)), "SIGI": ("Q", np.ones(11))}
    columns |= {"BATCH": ("B", np.ones(11) if image is None else image), key: ("R", wavelength)}
    return make_mtz(name, columns, cell=(30, 30.1, 50, 90, 90, 90))


def test_a_ray_made_by_hand(make_mtz):
    path = ray_file(make_mtz)
    obs = read_unmerged(path)
    assert sorted(obs.row.tolist()) == [i for i, (_, _, bad) in enumerate(RAY) if not bad]
    (report,) = obs.report.files
    assert report.left_out["overlapped harmonics"] == 5
    assert "5 overlapped harmonics" in str(obs.report)
    assert "polychromatic: Wavelength from 1 to 1.2 Å" in str(obs.report)


def test_orders_beyond_dmin_do_not_count(make_mtz):
    path = ray_file(make_mtz)
    d = gemmi.UnitCell(30, 30.1, 50, 90, 90, 90).calculate_d
    obs = read_unmerged(path, dmin=(d([6, 6, 6]) + d([7, 7, 7])) / 2)
    assert 5 in obs.row.tolist()
    assert 3 not in obs.row.tolist()


@pytest.mark.parametrize("options", [{"wavelength_key": ""}, {"keep_harmonics": True}])
def test_harmonics_kept_on_request(make_mtz, options):
    obs = read_unmerged(ray_file(make_mtz), **options)
    assert len(obs) == len(RAY)
    assert "overlapped harmonics" not in obs.report.files[0].left_out


def test_which_files_are_polychromatic(make_mtz):
    jitter = 1 + 0.001 * np.arange(11)
    assert len(read_unmerged(ray_file(make_mtz, "mono.mtz", jitter))) == len(RAY)
    # One wavelength per image, as in a scan over an absorption edge: nothing overlaps.
    scan = np.linspace(1.0, 1.2, 11)
    assert len(read_unmerged(ray_file(make_mtz, "scan.mtz", scan, image=np.arange(11)))) == len(RAY)
    assert len(read_unmerged(ray_file(make_mtz, "case.mtz", key="WAVELENGTH"))) == len(RAY) - 5
    other = ray_file(make_mtz, "other.mtz", key="LAM")
    assert len(read_unmerged(other)) == len(RAY)
    assert len(read_unmerged(other, wavelength_key="LAM")) == len(RAY) - 5


def test_wavelengths_that_cannot_be_used(make_mtz):
    path = ray_file(make_mtz, wavelength=np.zeros(11))
    with pytest.raises(InputError, match=r"ray\.mtz has no column 'LAM' for wavelengths; .*--wavelength-key"):
        read_unmerged(path, wavelength_key="LAM")
    with pytest.raises(InputError, match=r"column 'Wavelength' has no wavelength above zero"):
        read_unmerged(path, wavelength_key="Wavelength")
    assert len(read_unmerged(path)) == len(RAY)


@pytest.mark.data
def test_pyp_against_every_order_of_every_ray(data_dir):
    """Brute force, one ray after another; (0, 15, 15) at 1.13 Å is (0, 16, 16) at 1.06 Å."""
    path = data_dir / "pyp" / "off.mtz"
    mtz = gemmi.read_mtz_file(str(path))
    hkl, wavelength = mtz.make_miller_array(), mtz.column_with_label("Wavelength").array.astype(float)
    ops, dmin = mtz.spacegroup.operations(), mtz.cell.calculate_d_array(hkl).min()
    low, high = wavelength.min(), wavelength.max()
    expected = set()
    for row in np.flatnonzero(np.gcd.reduce(hkl, axis=1) > 1).tolist():
        n = int(np.gcd.reduce(hkl[row]))
        constant = n * float(wavelength[row])
        for m in (m for m in range(1, 60) if m != n and low <= constant / m <= high):
            order = [int(i) // n * m for i in hkl[row]]
            if mtz.cell.calculate_d(order) >= dmin and not ops.is_systematically_absent(order):
                expected.add(row)
    kept = read_unmerged(path).row.numpy()
    left_out = set(range(len(hkl))) - set(kept)
    assert left_out == expected
    assert len(expected) == 119
    known = np.flatnonzero((hkl == [0, 15, 15]).all(1) & (np.abs(wavelength - 1.13) < 0.01))
    assert len(known) == len(set(known) & left_out) > 0


@pytest.mark.data
def test_rotation_data_have_no_band(data_dir):
    from bayesref.io.formats import read_tables

    names = ("unmerged/brap_pk_6A.mtz", "readers/stills.refl")
    for table in read_tables([data_dir / name for name in names]):
        assert wavelength_band(table) is None
