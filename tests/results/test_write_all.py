"""All files of a merge: which there are, run.json, and failures that leave nothing half-written."""

import csv
import errno
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bayesref._checks import InputError
from bayesref.results.history import write_history
from bayesref.results.run import plain, run_record, write_run
from bayesref.results.write import MergeResults, write_all

FILES = {
    "merged_0.mtz", "merged_1.mtz", "halves_0.mtz", "halves_1.mtz", "predictions_0.mtz", "predictions_1.mtz",
    "cchalf_0.png", "cchalf_1.png", "calibration.png", "scale_0.png", "scale_1.png", "statistics.csv",
    "history.csv", "posterior.nc", "run.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def written(results, tmp_path_factory):
    out = tmp_path_factory.mktemp("merge") / "deep" / "results"
    return write_all(results, out, {"files": [Path("a.mtz")], "dmin": None}, seed=0), out


def test_every_file_is_there(written):
    paths, out = written
    assert {p.name for p in paths} == FILES == set(os.listdir(out))
    assert paths[-1].name == "run.json"
    assert all(p.stat().st_size > 200 for p in paths)


def test_without_halves_and_tables(results, tmp_path):
    bare = MergeResults(results.posterior, results.amplitudes, results.predictions, results.obs)
    names = {p.name for p in write_all(bare, tmp_path, {})}
    gone = {
        "halves_0.mtz",
        "halves_1.mtz",
        "cchalf_0.png",
        "cchalf_1.png",
        "calibration.png",
        "statistics.csv",
    }
    assert names == FILES - gone


def strict_json(path):
    def refuse(x):
        raise ValueError(x)

    return json.loads(path.read_text(), parse_constant=refuse)


def test_run_json(written, results):
    run = strict_json(written[1] / "run.json")
    assert run["options"] == {"files": ["a.mtz"], "dmin": None}
    assert run["versions"]["bayesref"]
    assert run["versions"]["torch"] == torch.__version__
    assert run["fit"]["elbo"] == results.posterior.elbo
    assert run["fit"]["reason"] == results.posterior.reason
    assert run["data"]["spots"] == len(results.obs)
    assert run["data"]["datasets"] == 2
    assert run["data"]["dmin"] == pytest.approx(4.0, abs=0.05)
    assert set(run["sites"]) == {"a", "b", "c", "nu", "blank_odds"}
    assert run["sites"]["a"]["mean"] == pytest.approx(1, abs=0.2)
    assert run["figures"]["halves_0"]["cchalf"] == results.tables["halves_0"]["cchalf"].iloc[-1]
    assert run["cost"]["cpu_seconds"] > 0
    assert run["cost"]["seconds"] is None


def test_what_json_does_not_know(results, tmp_path):
    nothing = plain(
        {"a": float("nan"), "b": [np.float32(2), torch.tensor([1, 2])], 3: Path("x"), "c": -np.inf}
    )
    assert nothing == {"a": None, "b": [2.0, [1, 2]], "3": "x", "c": None}
    record = run_record(results.posterior, results.obs, {}, 1, {"t": {"x": np.float64("nan")}}, 12.5)
    write_run(record, tmp_path / "run.json")
    run = strict_json(tmp_path / "run.json")
    assert run["figures"] == {"t": {"x": None}}
    assert run["cost"]["seconds"] == 12.5


def test_tables(written, results):
    table = pd.read_csv(written[1] / "statistics.csv", index_col=["table", "bin"])
    got = table.loc["halves_1"][results.tables["halves_1"].columns]
    np.testing.assert_allclose(got, results.tables["halves_1"])


def test_history(written, results, tmp_path):
    with open(written[1] / "history.csv") as f:
        rows = list(csv.DictReader(f))
    assert [float(r["elbo"]) for r in rows] == [r["elbo"] for r in results.posterior.history]
    assert list(rows[0])[:3] == ["step", "phase", "elbo"]
    write_history([{"step": 0, "elbo": 1.0, "temperature": 3.0}], tmp_path / "other.csv")
    assert (tmp_path / "other.csv").read_text().splitlines()[0].endswith(",temperature")


def test_full_disk(results, tmp_path, monkeypatch):
    """The file that fails and those after it are not touched, and no run.json vouches for them."""
    for name in ("merged_0.mtz", "predictions_1.mtz", "run.json"):
        (tmp_path / name).write_text("earlier run")
    replace_file = os.replace

    def full(source, target):
        if Path(target).name == "predictions_0.mtz":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"predictions_0\.mtz cannot be written: the disk is full"):
        write_all(results, tmp_path, {})
    left = set(os.listdir(tmp_path))
    assert "run.json" not in left
    assert "predictions_0.mtz" not in left
    assert (tmp_path / "predictions_1.mtz").read_text() == "earlier run"
    assert (tmp_path / "merged_0.mtz").read_bytes()[:4] == b"MTZ "
    assert not [n for n in left if n.startswith(".")]


def test_unwritable_directory(results, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; give a directory"):
        write_all(results, tmp_path / "file", {})
