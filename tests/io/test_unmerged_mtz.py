"""Unmerged MTZ: the real files, and small ones made here with each convention."""

import gemmi
import numpy as np
import pytest

from bayesref._checks import InputError
from bayesref.io.unmerged import read_unmerged


@pytest.mark.data
def test_pyp_time_points_kept_apart(data_dir):
    keys = ("X", "Y", "Wavelength", "dHKL", "Hobs", "Kobs", "Lobs")
    files = [data_dir / "pyp" / name for name in ("off.mtz", "2ms.mtz")]
    obs = read_unmerged(files, metadata_keys=keys, separate=True)
    assert len(obs) == 48069 + 48055 - 239  # spots that several harmonics share
    assert [f.left_out["overlapped harmonics"] for f in obs.report.files] == [119, 120]
    whole = read_unmerged(files, separate=True, keep_harmonics=True)
    assert (len(whole), len(whole.asu)) == (48069 + 48055, 24668)
    assert set(map(tuple, obs.asu.hkl.tolist())) <= set(map(tuple, whole.asu.hkl.tolist()))
    assert (obs.n_image, obs.asu.n_dataset, obs.metadata_keys) == (40, 2, keys)
    np.testing.assert_allclose(obs.metadata.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(obs.metadata.std(0, correction=0), 1, rtol=1e-9)
    assert (obs.asu.dataset_id[obs.hkl_id] == obs.file_id).all()
    assert (obs.hkl_id.diff() >= 0).all()
    together = read_unmerged(files)
    assert together.asu.n_dataset == 1
    assert len(together.asu) < 24668 / 1.9


@pytest.mark.data
def test_pyp_spot_by_spot(data_dir):
    import reciprocalspaceship as rs

    truth = rs.read_mtz(str(data_dir / "pyp" / "off.mtz")).reset_index()
    obs = read_unmerged(data_dir / "pyp" / "off.mtz", metadata_keys=["Wavelength"])
    row = obs.row.numpy()
    np.testing.assert_array_equal(obs.hkl, truth[["H", "K", "L"]].to_numpy()[row])
    np.testing.assert_allclose(obs.I, truth["I"].to_numpy()[row])
    np.testing.assert_allclose(obs.SIGI, truth["SigI"].to_numpy()[row])
    np.testing.assert_array_equal(obs.image_number[obs.image_id], truth["BATCH"].to_numpy()[row])
    wavelength = truth["Wavelength"].to_numpy(float)[row]
    np.testing.assert_allclose(
        obs.metadata[:, 0] * obs.transform.sd[0] + obs.transform.mean[0], wavelength, rtol=1e-9
    )


def test_reduced_indices_are_brought_back_to_those_observed(make_mtz, tmp_path):
    import reciprocalspaceship as rs

    observed = read_unmerged(make_mtz("observed.mtz"))
    reduced = rs.read_mtz(str(tmp_path / "observed.mtz"))
    reduced.merged = False
    reduced.write_mtz(str(tmp_path / "reduced.mtz"))  # writes indices in the asu, with M/ISYM
    on_disk = gemmi.read_mtz_file(str(tmp_path / "reduced.mtz"))
    assert (on_disk.make_miller_array() >= 0).all()
    back = read_unmerged(tmp_path / "reduced.mtz")
    for name in ("hkl", "hkl_id", "I", "SIGI", "image_id", "row"):
        np.testing.assert_array_equal(getattr(back, name), getattr(observed, name))
    assert observed.image_number.tolist() == [2, 4, 6, 8, 10]


def test_columns_are_found_by_type_and_can_be_named(make_mtz):
    extra = {
        "IPR": ("J", np.full(200, 7.0)),
        "SIGIPR": ("Q", np.full(200, 3.0)),
        "FRAME": ("I", np.arange(200)),
    }
    path = make_mtz(columns=make_mtz.spots(**extra))
    obs = read_unmerged(path)
    assert float(obs.I.std()) > 0
    assert "intensity I (also there: IPR), sigma SIGI" in str(obs.report)
    obs = read_unmerged(path, intensity_key="IPR")
    assert (obs.I == 7).all()
    assert (obs.SIGI == 3).all()
    obs = read_unmerged(path, sigma_key="SIGIPR", image_key="FRAME")
    assert (obs.SIGI == 3).all()
    assert obs.n_image == 200


def test_rows_left_out_are_counted_under_one_cause_each(make_mtz):
    columns = make_mtz.spots()
    h, I, sigma, batch = (np.array(columns[k][1], dtype=float) for k in ("H", "I", "SIGI", "BATCH"))
    I[0], sigma[1], sigma[2:4], I[4], batch[5] = np.nan, np.inf, 0, -3.0, np.nan
    sigma[5] = -1  # and no image: counted once
    hkl = np.stack([columns[k][1] for k in "HKL"], axis=1)
    hkl = hkl.astype(float)
    hkl[9, 1] = np.nan
    hkl[6:9] = [3, 0, 0], [0, 0, 0], [0, 5, 0]
    values = [*hkl.T, I, sigma, batch, h]
    path = make_mtz(columns={k: (v[0], x) for (k, v), x in zip(columns.items(), values, strict=True)})
    obs = read_unmerged(path)
    (report,) = obs.report.files
    expected = {
        "without indices": 1,
        "without image": 1,
        "not finite": 2,
        "sigma <= 0": 2,
        "systematically absent": 3,
    }
    assert report.left_out == expected
    assert report.n_read == 200 == report.n_spot + sum(report.left_out.values())
    assert len(obs) == report.n_spot == 191
    assert not set(obs.row.tolist()) & {0, 1, 2, 3, 5, 6, 7, 8, 9}
    assert 4 in obs.row.tolist()  # negative intensities stay
    assert "2 sigma <= 0" in str(obs.report)


def test_cutoffs(make_mtz):
    path = make_mtz()
    whole = read_unmerged(path)
    d = whole.asu.dHKL[whole.hkl_id]
    part = read_unmerged(path, dmin=9.0, dmax=15.0)
    assert len(part) == int(((d >= 9) & (d <= 15)).sum())
    assert part.report.files[0].left_out["beyond dmin"] == int((d < 9).sum())
    part = read_unmerged(path, isigi_cutoff=10)
    assert len(part) == int((whole.I / whole.SIGI >= 10).sum())


def test_files_share_images_cell_and_reflections(make_mtz):
    a = make_mtz("a.mtz", make_mtz.spots(seed=1))
    b = make_mtz("b.mtz", make_mtz.spots(seed=2), cell=(30.3, 40, 50, 90, 90, 90))
    obs = read_unmerged([a, b], metadata_keys=["BATCH", "file_id", "image_id"])
    assert obs.n_image == 10
    assert obs.image_file.tolist() == [0] * 5 + [1] * 5
    assert (obs.image_file[obs.image_id] == obs.file_id).all()
    assert obs.asu.cell.a == pytest.approx(30.15)
    assert obs.files == (str(a), str(b))
    assert read_unmerged([a, b], cell=[31, 40, 50, 90, 90, 90]).asu.cell.a == 31


def test_anomalous_and_space_group_override(make_mtz):
    path = make_mtz(columns=make_mtz.spots(n=2000))
    merged, anomalous = read_unmerged(path), read_unmerged(path, anomalous=True)
    assert len(merged.asu) == 64
    assert len(anomalous.asu) == 128
    assert (anomalous.asu.friedel_mates() >= 0).sum() == 64
    assert read_unmerged(path, spacegroup="P 2 2 2").asu.spacegroup.xhm() == "P 2 2 2"
    with pytest.raises(InputError, match="P 63 does not fit the unit cell"):
        read_unmerged(path, spacegroup="P 63")
