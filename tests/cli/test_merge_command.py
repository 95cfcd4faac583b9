"""`bayesref merge` as a user runs it: from files to files, and what it says when it cannot."""

import json
import os

import gemmi
import numpy as np
import pandas as pd
import pytest
import reciprocalspaceship as rs

from bayesref.cli.app import main
from bayesref.data.simulate import simulate_merge
from bayesref.io.simulation import write_simulation

KEYS = ["--metadata", "BATCH,dHKL,X,Y"]


def run(capsys, *words):
    """Exit code and everything printed."""
    with pytest.raises(SystemExit) as end:
        main([str(w) for w in words])
    out = capsys.readouterr()
    return end.value.code or 0, out.out + out.err


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    simulation = simulate_merge(dmin=4.0, multiplicity=6, images=20, n_datasets=2, r=0.9, seed=5)
    return write_simulation(simulation, folder, overwrite=True)


@pytest.fixture(scope="module")
def merged(simulated, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "merge"
    words = ["merge", *map(str, simulated[0]), "--separate-files", *KEYS, "--half-datasets", "1"]
    words += ["--test-fraction", "0.1", "--samples", "8", "--out", str(out)]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code
    return out


def test_files(merged):
    names = {"history.csv", "posterior.nc", "run.json", "calibration.png", "statistics.csv", "checkpoint"}
    names |= {f"{kind}_{k}.mtz" for kind in ("merged", "halves", "predictions") for k in (0, 1)}
    names |= {f"{kind}_{k}.png" for kind in ("cchalf", "scale", "l_test") for k in (0, 1)}
    assert {p.name for p in merged.iterdir()} == names


def test_merged_amplitudes_agree_with_the_truth(merged, simulated):
    for k in (0, 1):
        data = rs.read_mtz(str(merged / f"merged_{k}.mtz"))
        assert list(map(str, data.dtypes)) == ["SFAmplitude", "Stddev", "Intensity", "Stddev", "MTZInt"]
        assert gemmi.read_mtz_file(str(merged / f"merged_{k}.mtz")).nreflections == len(data)
        truth = rs.read_mtz(str(simulated[1][k]))
        both = truth.join(data[["F", "SIGF"]], how="inner")
        assert len(both) == len(data)
        F, s, T = (both[c].to_numpy(float) for c in ("F", "SIGF", "FTRUE"))
        scale = np.sum(T * F / s**2) / np.sum(F**2 / s**2)
        z = (scale * F - T) / (scale * s)
        # About 450 reflections share the errors of one scale: wider than the binomial 0.03 at two sd.
        assert 0.8 < np.mean(np.abs(z) < 1.645) < 0.97
        assert np.corrcoef(F, T)[0, 1] > 0.95


def test_halves_and_predictions(merged, simulated):
    halves = rs.read_mtz(str(merged / "halves_0.mtz"))
    assert set(halves["half"].to_numpy(int)) == {0, 1}
    assert set(halves["repeat"].to_numpy(int)) == {0}
    spots = rs.read_mtz(str(merged / "predictions_0.mtz"))
    raw = rs.read_mtz(str(simulated[0][0]))
    assert len(spots) == len(raw)
    assert np.corrcoef(spots["I"].to_numpy(float), spots["Ipred"].to_numpy(float))[0, 1] > 0.95
    assert 0.05 < spots["test"].to_numpy(float).mean() < 0.15


def test_records(merged):
    run_record = json.loads((merged / "run.json").read_text())
    assert run_record["fit"]["converged"]
    assert run_record["figures"]["data_0"]["completeness"] > 0.9
    history = pd.read_csv(merged / "history.csv")
    assert history["elbo"].is_monotonic_increasing or history["elbo"].iloc[-1] > history["elbo"].iloc[0]

    import xarray

    posterior = xarray.open_dataset(merged / "posterior.nc", group="posterior", engine="h5netcdf")
    constant = xarray.open_dataset(merged / "posterior.nc", group="constant_data", engine="h5netcdf")
    assert {"a", "b", "c", "nu", "blank_odds", "w"} <= set(posterior.data_vars)
    assert posterior["F"].dtype == np.float32
    assert posterior["F"].dims == ("chain", "draw", "hkl")
    assert {"H", "K", "L", "dHKL"} <= set(constant.variables)
    posterior.close()
    constant.close()


def test_same_seed_same_result(simulated, tmp_path, capsys):
    for name in "ab":
        code, _ = run(capsys, "merge", simulated[0][0], "--out", tmp_path / name, "--samples", 0)
        assert code == 0
    a, b = (rs.read_mtz(str(tmp_path / n / "merged_0.mtz")) for n in "ab")
    assert (a.to_numpy() == b.to_numpy()).all()


def test_amplitudes_fall_off_as_the_data_do(simulated, merged, tmp_path, capsys):
    """The same merge again, with columns that other programs ask for: nothing else changes."""
    words = ["merge", *simulated[0], "--separate-files", *KEYS, "--samples", "8", "--test-fraction", "0.1"]
    words += [
        "--wilson-b",
        "data",
        "--e-values",
        "--scaled",
        "--free-fraction",
        "0.05",
        "--out",
        tmp_path / "out",
    ]
    code, text = run(capsys, *words)
    assert code == 0
    B = json.loads((tmp_path / "out" / "run.json").read_text())["figures"]["wilson_b"]
    assert f"Amplitudes fall off as the data do, with B = {B:.1f} Å²." in text
    assert (tmp_path / "out" / "scaled_1.mtz").is_file()
    flat, data = (rs.read_mtz(str(folder / "merged_1.mtz")) for folder in (merged, tmp_path / "out"))
    k = np.exp(-0.25 * B / data.compute_dHKL()["dHKL"].to_numpy(float) ** 2)
    np.testing.assert_allclose(data["F"].to_numpy(float), flat["F"].to_numpy(float) * k, rtol=1e-4)
    assert {"E", "SIGE", "FreeR_flag"} <= set(data)
    # The truth is flat: what the data have of a fall-off was given to the scale.
    spots = rs.read_mtz(str(tmp_path / "out" / "predictions_1.mtz"))
    line = np.polyfit(
        0.25 / spots.compute_dHKL()["dHKL"].to_numpy(float) ** 2, np.log(spots["SCALE"].to_numpy(float)), 1
    )
    assert -0.5 * line[0] == pytest.approx(B, abs=3)


def test_anomalous(simulated, tmp_path, capsys):
    code, text = run(capsys, "merge", simulated[0][0], "--anomalous", *KEYS, "--out", tmp_path / "o")
    assert code == 0, text
    data = rs.read_mtz(str(tmp_path / "o" / "merged_0.mtz"))
    assert {"F", "F(+)", "SIGF(+)", "F(-)", "SIGF(-)", "I(+)", "N(-)"} <= set(data.columns)
    both = data.dropna(subset=["F(+)", "F(-)"])
    assert np.corrcoef(both["F(+)"].to_numpy(float), both["F(-)"].to_numpy(float))[0, 1] > 0.8


def write(data, path):
    data.write_mtz(str(path))
    return path


@pytest.fixture
def faults(simulated, tmp_path):
    good = simulated[0][0]
    garbage = tmp_path / "garbage.mtz"
    garbage.write_bytes(b"not an mtz" * 100)
    data = rs.read_mtz(str(good))
    sigma_zero = data.copy()
    sigma_zero["SIGI"] = rs.DataSeries(np.zeros(len(data)), index=data.index, dtype="Q")
    other_cell = data.copy()
    other_cell.cell = gemmi.UnitCell(60, 70, 80, 90, 90, 90)
    other_group = data.copy()
    other_group.spacegroup = gemmi.SpaceGroup("P 2 2 2")
    existing = tmp_path / "existing"
    existing.mkdir()
    (existing / "merged_0.mtz").write_text("keep me")
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, not a folder")
    return {
        "missing file": ([tmp_path / "none.mtz"], "none.mtz"),
        "not an MTZ": ([garbage], "garbage.mtz"),
        "merged MTZ": ([simulated[1][0]], "truth_0.mtz"),
        "column missing": ([good, "--intensity-key", "IOBS"], "IOBS"),
        "sigma zero": ([write(sigma_zero, tmp_path / "zero.mtz")], "zero.mtz"),
        "nothing left": ([good, "--dmin", "1000"], "unmerged_0.mtz"),
        "unknown metadata": ([good, "--metadata", "WAVE"], "WAVE"),
        "cells disagree": ([good, write(other_cell, tmp_path / "cell.mtz")], "cell.mtz"),
        "groups disagree": ([good, write(other_group, tmp_path / "group.mtz")], "group.mtz"),
        "unwritable": ([good, "--out", blocked / "out"], "blocked"),
        "existing": ([good, "--out", existing], "--overwrite"),
        "unknown model": ([good, "--model", "mergee"], "merge"),
        "unknown scale": ([good, "--scale", "falof"], "falloff"),
        "bad dof": ([good, "--studentt-dof", "1"], "above 2"),
    }


@pytest.mark.parametrize(
    "kind",
    [
        "missing file", "not an MTZ", "merged MTZ", "column missing", "sigma zero", "nothing left", "unknown metadata",
        "cells disagree", "groups disagree", "unwritable", "existing", "unknown model", "unknown scale", "bad dof",
    ],
)  # fmt: skip
def test_bad_input_gives_one_sentence(kind, faults, tmp_path, capsys):
    words, named = faults[kind]
    out = [] if "--out" in words else ["--out", tmp_path / "out"]
    code, text = run(capsys, "merge", *words, *out)
    assert code != 0
    assert "Traceback" not in text
    assert named in text.replace("\n", "")
    if kind == "existing":
        assert (tmp_path / "existing" / "merged_0.mtz").read_text() == "keep me"


def test_full_disk(simulated, tmp_path, capsys, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, text = run(capsys, "merge", simulated[0][0], "--out", tmp_path / "o", "--samples", 0)
    assert code != 0
    assert "Traceback" not in text
    assert "space" in text.lower()


def test_models(tmp_path, capsys):
    code, text = run(capsys, "models", "list")
    assert code == 0
    assert "merge_normal" in text
    assert run(capsys, "models", "copy", "merge", tmp_path / "mine.py")[0] == 0
    assert "pyro.sample" in (tmp_path / "mine.py").read_text()


def test_own_model_page(simulated, tmp_path, capsys):
    run(capsys, "models", "copy", "merge_normal", tmp_path / "mine.py")
    code, text = run(
        capsys,
        "merge",
        simulated[0][0],
        "--model",
        tmp_path / "mine.py",
        "--out",
        tmp_path / "o",
        "--samples",
        0,
    )
    assert code == 0, text


def test_svi(simulated, tmp_path, capsys):
    words = ["--method", "svi", "--epochs", 6, "--samples", 0]
    code, text = run(capsys, "merge", simulated[0][0], *KEYS, *words, "--out", tmp_path / "o")
    assert code == 0, text


def test_demo(tmp_path, capsys):
    code, text = run(
        capsys, "demo", "--dmin", 4.5, "--multiplicity", 5, "--no-kinetics", "--out", tmp_path / "demo"
    )
    assert code == 0, text
    assert "difference" in text
    assert (tmp_path / "demo" / "demo.png").stat().st_size > 10_000
