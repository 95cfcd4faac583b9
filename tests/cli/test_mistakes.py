"""Mistakes that every command knows: numbers that mean nothing, files that are there, a full disk."""

import errno
import json
import os
import subprocess
import sys
from contextlib import nullcontext

import gemmi
import numpy as np
import pytest

from bayesref._checks import InputError
from bayesref.cli.app import main
from bayesref.cli.resume import stop_with
from bayesref.io.atomic import atomic_path
from bayesref.io.structure import read_structure, write_structure

PDB = """\
CRYST1   20.000   22.000   24.000  90.00  90.00  90.00 P 21 21 21
ATOM      1  N   GLY A   1       4.000   5.000   6.000  1.00 10.00           N
ATOM      2  CA  GLY A   1       5.400   5.000   6.000  1.00 10.00           C
END
"""


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model.pdb").write_text(PDB)
    return tmp_path / "model.pdb"


def failure(capsys, *arguments, code=2) -> str:
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    assert end.value.code == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("merge", "x.mtz", "--out", "o", "--dmin", "nan"), "--dmin is nan; give a finite number"),
        (("merge", "x.mtz", "--out", "o", "--tolerance", "inf"), "--tolerance is inf"),
        (("validate", "completeness", "x.mtz", "--dmin", "-1"), "--dmin is -1; it must be above zero, in Å"),
        (("simulate", "merge", "--out", "o", "--seed", "-1"), "--seed is -1; give a whole number"),
        (("sf", "x.pdb", "--dmin", "0"), "--dmin is 0; it must be above zero"),
    ],
)
def test_numbers_that_mean_nothing(capsys, arguments, message):
    assert message in failure(capsys, *arguments)


def test_simulated_crystals_must_be_possible(tmp_path, capsys):
    command = ("simulate", "merge", "--out", tmp_path / "out")
    assert "does not fit the unit cell" in failure(capsys, *command, "--spacegroup", "P 61")
    assert "give a larger dmin" in failure(capsys, *command, "--dmin", 0.01)
    assert "No reflection lies within" in failure(capsys, *command, "--dmin", 100)


def test_an_interrupt_ends_with_a_sentence(model, tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("bayesref.cli.sf.structure_factors", interrupt)
    assert "interrupted" in failure(capsys, "sf", model, "--dmin", 3, "--out", tmp_path / "f.mtz", code=130)
    assert not (tmp_path / "f.mtz").exists()
    monkeypatch.setattr("bayesref.cli.app._load", interrupt)
    assert "interrupted" in failure(capsys, "merge", "x.mtz", "--out", tmp_path / "o", code=130)


def test_the_command_line_opens_without_torch():
    code = "import sys, bayesref.cli.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_follows_a_merge_stops_with_it(tmp_path):
    for reason in ("all is well", "interrupted; this is the best so far"):
        (tmp_path / "run.json").write_text(json.dumps({"fit": {"reason": reason}}))
        with pytest.raises(KeyboardInterrupt) if reason[0] == "i" else nullcontext():
            stop_with(tmp_path)


def test_a_file_that_is_there_is_not_replaced_unasked(model, tmp_path, capsys):
    assert "--overwrite" in failure(capsys, "sf", model, "--dmin", 3, "--out", model)
    assert model.read_text() == PDB
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "fsc.png").touch()
    assert "--overwrite" in failure(capsys, "project", model, "--out", tmp_path / "old")


@pytest.fixture(scope="module")
def spots(tmp_path_factory):
    out = tmp_path_factory.mktemp("spots") / "out"
    with pytest.raises(SystemExit):
        main(["simulate", "merge", "--out", str(out), "--dmin", "5", "--images", "9", "--n-datasets", "2"])
    return out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--beam-centre", "1,2"], "--beam-centre changes nothing without --scale with polarisation"),
        (["--network-width", 20], "--network-width changes nothing without --scale with neural"),
        (["--n-frequencies", 6], "changes nothing without --positional-keys"),
        (["--refit"], "changes nothing without --half-datasets"),
        (["--free-seed", 2], "changes nothing without --free-fraction or --free-flags"),
        (["--fix", "a=1", "--fix", "a=2"], "a is held twice"),
        (["--studentt-dof", 4, "--fix", "nu=7"], "nu is held twice"),
        (["--intensity-key", "SIGI"], "column 'SIGI' holds standard deviations"),
        (["--intensity-key", "J"], "name one of these with --intensity-key"),
        (["--metadata", "Z"], "unmerged_0.mtz: Metadata key 'Z' is unknown"),
    ],
)
def test_options_of_merge_that_contradict_or_do_nothing(spots, tmp_path, capsys, options, message):
    assert message in failure(capsys, "merge", spots / "unmerged_0.mtz", "--out", tmp_path / "out", *options)
    assert not list(tmp_path.glob("out/*"))


def test_more_bins_than_rows(spots, capsys):
    assert "give fewer --bins" in failure(
        capsys, "validate", "isigi", spots / "unmerged_0.mtz", "--bins", 10**6
    )


def test_a_model_is_no_data(model, tmp_path, capsys):
    (tmp_path / "model.cif").write_text(gemmi.read_pdb_string(PDB).make_mmcif_document().as_string())
    error = failure(capsys, "refine", model, tmp_path / "model.cif", "--out", tmp_path / "out")
    assert "has no reflections (_refln loop); give the structure-factor file, not the model" in error
    assert "or not whole" not in error


def test_spots_that_say_nothing(spots, tmp_path, capsys):
    mtz = gemmi.read_mtz_file(str(spots / "unmerged_0.mtz"))
    data, out = np.array(mtz.array), ("--out", tmp_path / "out")
    for name, change, message in (
        ("few", lambda x: x[:3], "3 spots are too few"),
        ("zero", lambda x: np.where(np.arange(x.shape[1]) == 4, 0, x), "no intensity is above zero"),
    ):
        mtz.set_data(change(data).astype(np.float32))
        mtz.write_to_file(str(tmp_path / f"{name}.mtz"))
        assert message in failure(capsys, "merge", tmp_path / f"{name}.mtz", *out)
    file = spots / "unmerged_0.mtz"
    assert "is given twice, and would count twice" in failure(capsys, "merge", file, file, *out)


@pytest.mark.parametrize("content", ["", "data_x\n", "nothing\n"])
@pytest.mark.parametrize("name", ["model.pdb", "model.cif"])
def test_files_that_hold_no_model(tmp_path, capsys, name, content):
    (tmp_path / name).write_text(content)
    error = failure(capsys, "sf", tmp_path / name, "--dmin", 3, "--out", tmp_path / "f.mtz")
    assert str(tmp_path / name) in error
    assert os.listdir(tmp_path) == [name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_noticed_where_gemmi_says_nothing(model, tmp_path):
    crystal = read_structure(model)
    for name in ("full.pdb", "full.cif"):
        (tmp_path / name).symlink_to("/dev/full")
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            write_structure(crystal, tmp_path / name)


def test_a_write_that_gemmi_gives_up_is_explained(tmp_path):
    with pytest.raises(InputError, match="takes no more"), atomic_path(tmp_path / "no.mtz"):
        raise RuntimeError("Writing MTZ file failed: no.mtz")
    assert os.listdir(tmp_path) == []
