"""`bayesref maps` on a simulated pair: all files, the change where the atoms moved, and errors in one sentence."""

import gemmi
import numpy as np
import pandas as pd
import pytest

from bayesref.cli.app import main
from bayesref.results.difference_maps import FEATURE, peak_table


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    run("simulate", "kinetics", "--out", folder, "--delays", "10us,100us", "--atoms", "90", "--scheme", "B -> A",
        "--rates", "5000", "--noise", "0.01", "--own", "0.001", "--overwrite")  # fmt: skip
    return folder


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    return end.value.code


def test_all_files_are_written_and_the_change_is_seen(series, tmp_path):
    out = tmp_path / "maps"
    files = ("--dark", series / "dark.mtz", "--light", series / "light_1.mtz", "--model", series / "A.pdb")
    assert run("maps", *files, "--draws", 20, "--share", "0.25,0.02", "--out", out, "--quiet") in (0, None)
    names = ("difference.mtz", "difference.ccp4", "difference_sd.ccp4", "probability.ccp4", "difference.png")
    assert all((out / n).stat().st_size > 0 for n in names)
    mtz = gemmi.read_mtz_file(str(out / "difference.mtz"))
    assert {"DF", "SIGDF", "WDF", "FDIFF", "PHDIFF", "FEXT", "SIGFEXT", "FEXTWT"} <= set(mtz.column_labels())
    ccp4 = gemmi.read_ccp4_map(str(out / "difference.ccp4"))
    again = mtz.transform_f_phi_to_map("FDIFF", "PHDIFF", exact_size=list(ccp4.grid.shape))
    assert np.corrcoef(np.array(again.array).ravel(), np.array(ccp4.grid.array).ravel())[0, 1] > 0.9999
    probability = np.array(gemmi.read_ccp4_map(str(out / "probability.ccp4")).grid.array)
    assert np.abs(probability).max() <= 1
    peaks = pd.read_csv(out / "peaks.csv")
    dark, moved = (gemmi.read_structure(str(series / f"{s}.pdb")) for s in "AB")
    shifts = {
        f"{a.chain.name}/{a.residue.name} {a.residue.seqid}/{a.atom.name}": a.atom.pos.dist(b.atom.pos)
        for a, b in zip(dark[0].all(), moved[0].all(), strict=True)
    }
    near = [shifts[n] > 0 for n in peaks["atom"].head(5)]
    assert sum(near) >= 4
    assert peaks["probability"][0] > 0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--share", "1.5"), "--share is 1.5"),
        (("--share", "0.2", "--share-from", "x.nc"), "not both"),
        (("--share-from", "nowhere.nc", "--delay", "1us"), "no file nowhere.nc"),
        (("--share-from", __file__, "--delay", "1us"), "is no posterior.nc"),
        (("--delay", "1us"), "add that, or leave it out"),
    ],
)
def test_errors_in_one_sentence(series, tmp_path, capsys, options, words):
    files = ("--dark", series / "dark.mtz", "--light", series / "light_1.mtz", "--model", series / "A.pdb")
    assert run("maps", *files, *options, "--out", tmp_path / "o") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_dataset_has_no_differences_from_itself(series, tmp_path, capsys):
    same = ("--dark", series / "dark.mtz", "--light", series / "dark.mtz", "--model", series / "A.pdb")
    assert run("maps", *same, "--out", tmp_path / "o") == 2
    assert "give two datasets" in capsys.readouterr().err
    # Two pairs of columns of one file are two datasets; here the second is not there.
    assert run("maps", *same, "--light-labels", "F_on,SIGF_on", "--out", tmp_path / "o") == 2
    assert "has no column F_on" in capsys.readouterr().err
    assert list(peak_table([], 1.0, 3.0)) == FEATURE


def test_differences_of_a_joint_prior_are_taken_as_they_are(series, tmp_path):
    """A file of the columns that `bayesref merge --double-wilson-parents` writes."""
    dark, light = (gemmi.read_mtz_file(str(series / f"{n}.mtz")) for n in ("dark", "light_1"))
    a, b = (np.array(m) for m in (dark, light))
    columns = {
        "DF": ("D", b[:, 3] - a[:, 3]), "SIGDF": ("Q", np.hypot(a[:, 4], b[:, 4])),
        "F_on": ("F", b[:, 3]), "SIGF_on": ("Q", b[:, 4]), "F_off": ("F", a[:, 3]), "SIGF_off": ("Q", a[:, 4]),
    }  # fmt: skip
    mtz = gemmi.Mtz(with_base=True)
    mtz.spacegroup = dark.spacegroup
    mtz.add_dataset("x")
    mtz.set_cell_for_all(dark.cell)
    for label, (kind, _) in columns.items():
        mtz.add_column(label, kind)
    mtz.set_data(np.column_stack([a[:, :3], *(x for _, x in columns.values())]).astype(np.float32))
    path = tmp_path / "differences_1.mtz"
    mtz.write_to_file(str(path))
    out = tmp_path / "maps"
    code = run("maps", "--differences", path, "--model", series / "A.pdb", "--draws", 20, "--out", out, "-q")
    assert code in (0, None)
    found = gemmi.read_mtz_file(str(out / "difference.mtz"))
    raw = np.array(found.column_with_label("WDF").array)
    true = columns["DF"][1]
    assert np.corrcoef(raw, true)[0, 1] > 0.95
    assert run("maps", "--differences", path, "--dark", path, "--model", series / "A.pdb", "--out", out) == 2
