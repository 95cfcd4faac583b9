"""E values, free flags, differences of Friedel mates, scaled spots, outliers."""

from types import SimpleNamespace

import gemmi
import numpy as np
import pytest
import reciprocalspaceship as rs
import torch

from bayesref._checks import InputError
from bayesref.crystal.asu import reciprocal_asu
from bayesref.crystal.free_flags import free_flags
from bayesref.inference.posterior import _difference_sd
from bayesref.io.unmerged import read_unmerged
from bayesref.io.write_mtz import write_mtz
from bayesref.results.extras import Extras, add_columns, fall_off, fall_off_of
from bayesref.results.mtz import merged_table
from bayesref.results.scaled import scaled_table

CELL = (66.9, 66.9, 41.0, 90, 90, 120)


def table(dmin=3.0, group="P 63", B=0.0, seed=0):
    """Merged amplitudes of a Wilson crystal, with a fall-off."""
    rng, cell = np.random.default_rng(seed), gemmi.UnitCell(*CELL)
    hkl = gemmi.make_miller_array(cell, gemmi.SpaceGroup(group), dmin)
    asu, _ = reciprocal_asu(hkl, CELL, group)
    eps = asu.epsilon.numpy()
    I = eps * rng.exponential(size=len(asu)) * np.exp(-2 * B * asu.stol2.numpy())
    F = torch.from_numpy(np.sqrt(I))
    return merged_table(
        asu, SimpleNamespace(F=F, SIGF=0.1 * F, I=F**2, SIGI=F, N=torch.ones(len(asu)).long(), SIGD=None)
    )


def test_e_values():
    plain = table(dmin=2.5, B=15)
    data = add_columns(plain, Extras(e_values=True))
    E, d = data["E"].to_numpy(float), data.compute_dHKL()["dHKL"].to_numpy(float)
    eps = data.spacegroup.operations().epsilon_factor_without_centering_array(
        data.get_hkls().astype(np.int32)
    )
    for shell in np.array_split(np.argsort(d), 8):
        assert np.mean(E[shell] ** 2) == pytest.approx(1, abs=0.05)
    special = eps > 1
    assert np.mean(E[special] ** 2) == pytest.approx(1, abs=0.6)
    np.testing.assert_allclose(data["SIGE"] / data["E"], data["SIGF"] / data["F"], rtol=1e-5)
    assert str(data["E"].dtype) == "NormalizedSFAmplitude"
    assert list(plain) == ["F", "SIGF", "I", "SIGI", "N"]


def test_falloff():
    plain = table(dmin=3.0)
    data = add_columns(plain, Extras(wilson_b=20.0))
    k = np.exp(-20 / (4 * plain.compute_dHKL()["dHKL"].to_numpy(float) ** 2))
    for name, power in (("F", 1), ("SIGF", 1), ("I", 2), ("SIGI", 2), ("N", 0)):
        np.testing.assert_allclose(
            data[name].to_numpy(float), plain[name].to_numpy(float) * k**power, rtol=1e-5
        )
    assert (data.dtypes == plain.dtypes).all()


def test_falloff_of_the_data():
    g = np.random.default_rng(0)
    stol2 = g.uniform(0.01, 0.08, 5000)
    K = 7.0 * np.exp(-2 * 18.0 * stol2 + 0.3 * g.standard_normal(5000))
    assert fall_off_of(stol2, K) == pytest.approx(18.0, abs=0.5)
    assert fall_off("data") == "data"
    assert fall_off("12.5") == 12.5
    for wrong in ("much", "nan"):
        with pytest.raises(InputError, match=f"--wilson-b is {wrong}; expected a B in Å²"):
            fall_off(wrong)


def test_free_flags_are_those_of_the_lattice():
    cell, group = gemmi.UnitCell(*CELL), gemmi.SpaceGroup("P 63")
    hkl = gemmi.make_miller_array(cell, group, 2.0)
    flags = free_flags(hkl, cell, group, 0.05, seed=3)
    assert set(flags) == set(range(20))
    # 1,300 sets of equivalents of about six: binomial with three sd.
    assert np.mean(flags == 0) == pytest.approx(0.05, abs=0.02)
    twin = np.stack([hkl[:, 1], hkl[:, 0], -hkl[:, 2]], 1)  # k, h, -l: a symmetry of 6/mmm, not of P 63
    np.testing.assert_array_equal(flags, free_flags(twin, cell, group, 0.05, seed=3))
    np.testing.assert_array_equal(flags, free_flags(-hkl, cell, group, 0.05, seed=3))
    np.testing.assert_array_equal(flags[::7], free_flags(hkl[::7], cell, group, 0.05, seed=3))
    other_cell = gemmi.UnitCell(67.1, 67.1, 40.8, 90, 90, 120)
    np.testing.assert_array_equal(flags, free_flags(hkl, other_cell, group, 0.05, seed=3))
    assert (flags != free_flags(hkl, cell, group, 0.05, seed=4)).mean() > 0.9
    with pytest.raises(InputError, match="fraction"):
        free_flags(hkl, cell, group, 0.7)


def test_free_flags_are_copied_and_extended(tmp_path):
    coarse = add_columns(table(dmin=4.0), Extras(free_fraction=0.1, free_seed=5))
    write_mtz(coarse, tmp_path / "free.mtz")
    fine = add_columns(table(dmin=3.0), Extras(free_file=tmp_path / "free.mtz", free_seed=5))
    both = coarse[["FreeR_flag"]].join(fine[["FreeR_flag"]], rsuffix="2", how="inner")
    assert len(both) == len(coarse)
    assert (both["FreeR_flag"] == both["FreeR_flag2"]).all()
    assert fine["FreeR_flag"].to_numpy(int).max() == 9
    assert np.mean(fine["FreeR_flag"].to_numpy(int) == 0) == pytest.approx(0.1, abs=0.04)


def test_two_kinds_of_flags_keep_their_meaning(data_dir):
    path = data_dir / "hewl" / "r-free-flags.mtz"  # 1 = free, as Phenix writes them
    flags = rs.read_mtz(str(path))
    data = add_columns(_hewl(flags), Extras(free_file=path))
    both = data[["FreeR_flag"]].join(flags, how="inner").dropna()
    assert (both.iloc[:, 0].to_numpy(int) == both.iloc[:, 1].to_numpy(int)).all()
    assert set(data["FreeR_flag"].to_numpy(int)) == {0, 1}


def _hewl(flags):
    hkl = gemmi.make_miller_array(flags.cell, flags.spacegroup, 3.0)
    asu, _ = reciprocal_asu(hkl, flags.cell, flags.spacegroup)
    one = torch.ones(len(asu)).double()
    return merged_table(asu, SimpleNamespace(F=one, SIGF=one, I=one, SIGI=one, N=one.long(), SIGD=None))


def test_a_file_without_flags(tmp_path):
    write_mtz(table(dmin=6.0), tmp_path / "x.mtz")
    with pytest.raises(InputError, match=r"x\.mtz has no column of free flags"):
        add_columns(table(dmin=6.0), Extras(free_file=tmp_path / "x.mtz"))


def test_difference_of_mates():
    hkl = gemmi.make_miller_array(gemmi.UnitCell(30, 40, 50, 90, 90, 90), gemmi.SpaceGroup("P 21 21 21"), 8.0)
    asu, _ = reciprocal_asu(
        np.concatenate([hkl, -hkl]), (30, 40, 50, 90, 90, 90), "P 21 21 21", anomalous=True
    )
    g = torch.Generator().manual_seed(0)
    common = 1 + 0.3 * torch.randn(4000, 1, generator=g, dtype=torch.float64)
    V = torch.rand(len(asu), generator=g, dtype=torch.float64)
    SIGD = _difference_sd(asu, common * torch.full((1, len(asu)), 2.0), V.expand(4000, -1))
    mates = asu.friedel_mates()
    plus = mates >= 0
    # What mates have in common cancels: only their own variances are left.
    torch.testing.assert_close(SIGD[plus], (V[plus] + V[mates[plus]]).sqrt())
    assert SIGD[~plus].isnan().all()


def test_scaled_spots(results, tmp_path):
    obs, p = results.obs, results.predictions
    for k in (0, 1):
        write_mtz(scaled_table(obs, p, k), tmp_path / "scaled.mtz")
        mtz = gemmi.read_mtz_file(str(tmp_path / "scaled.mtz"))
        assert mtz.column_labels()[3] == "M/ISYM"
        raw = rs.read_mtz(obs.files[k])
        data = rs.read_mtz(str(tmp_path / "scaled.mtz"))
        np.testing.assert_array_equal(data.get_hkls(), raw.get_hkls())
        for x in ("I", "SIGI"):
            np.testing.assert_allclose(data[x] * data["SCALE"], raw[x], rtol=2e-6)
        for x in ("BATCH", "X", "Y"):
            np.testing.assert_allclose(data[x].to_numpy(float), raw[x].to_numpy(float), rtol=1e-5)
        # gemmi merges them by 1/σ²: the same intensities, up to our error model and prior.
        merged = gemmi.Intensities()
        merged.import_mtz(mtz)
        merged.merge_in_place(gemmi.DataType.Mean)
        mine = obs.asu.dataset_id == k
        ours = dict(
            zip(map(tuple, obs.asu.hkl[mine].tolist()), results.amplitudes.I[mine].tolist(), strict=True)
        )
        pairs = [
            (v, ours[tuple(h)]) for h, v in zip(merged.miller_array.tolist(), merged.value_array, strict=True)
        ]
        assert len(pairs) > 400
        assert np.corrcoef(np.array(pairs).T)[0, 1] > 0.95


def test_scaled_spots_are_read_again(results, tmp_path):
    write_mtz(scaled_table(results.obs, results.predictions), tmp_path / "scaled.mtz")
    obs = read_unmerged(tmp_path / "scaled.mtz", metadata_keys=["X", "Y", "outlier"])
    assert len(obs) == int((results.obs.file_id == 0).sum())


def test_outliers_are_told(results):
    p = results.predictions
    assert ((p.outlier >= p.blank - 1e-12) & (p.outlier <= 1)).all()
    extreme = p.z.abs() > 4
    assert p.outlier[~extreme].mean() < 0.05
