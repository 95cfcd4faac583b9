"""`bayesref refine` on unmerged data: recognised, refined, written; options that do not fit are told."""

import json
import sys
from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import pytest
import reciprocalspaceship as rs

from bayesref.cli.app import main
from bayesref.cli.merge_refine import is_unmerged
from bayesref.cli.simulate_refine import write_intensities
from bayesref.data.simulate import MergeOptions
from bayesref.io.structure import write_structure
from bayesref.io.write_mtz import write_mtz
from bayesref.refinement.simulate import RefineOptions, simulate_refine
from bayesref.refinement.simulate_spots import simulate_spots

sys.path.insert(0, str(Path(__file__).parents[1] / "restraints"))
import small_molecule

PLACES = [(3.0, 3.0, 3.0), (9.0, 3.0, 8.0), (4.0, 9.0, 9.0), (9.0, 8.0, 3.0)]
MODEL = RefineOptions(dmin=1.8, error=0.03, free_fraction=0.2)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Folder with model.pdb, spots.mtz, merged.mtz and XAL.cif."""
    folder = tmp_path_factory.mktemp("joint")
    crystal = small_molecule.crystal(PLACES, cell=(14, 15, 18, 90, 90, 90), spacegroup="P 21 21 21")
    write_structure(crystal, folder / "model.pdb")
    spots = simulate_spots(
        crystal, MODEL, MergeOptions(images=8, multiplicity=4, B0=3, B1=2, sig0=20, seed=3)
    )
    write_mtz(spots.spots, folder / "spots.mtz")
    write_intensities(simulate_refine(crystal, MODEL, seed=2), folder / "merged.mtz")
    (folder / "XAL.cif").write_text(small_molecule.DICTIONARY.format(sign="negativ"))
    return folder


def run(inputs, *arguments):
    files = (inputs / "model.pdb", inputs / "spots.mtz", "--restraints", inputs / "XAL.cif")
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in ("refine", *files, *arguments)])
    return end.value.code or 0


def test_spots_are_recognised(inputs):
    assert is_unmerged(inputs / "spots.mtz")
    assert is_unmerged(Path("XDS_ASCII.HKL"))
    assert not is_unmerged(inputs / "merged.mtz")
    assert not is_unmerged(inputs / "model.pdb")


def test_a_run_writes_structure_and_amplitudes(inputs, tmp_path, capsys):
    out = tmp_path / "out"
    options = ("--scale", "falloff", "--rounds", 1, "--cycles", 2, "--ensemble", 0, "--draws", 5)
    assert (
        run(inputs, "--free-file", inputs / "merged.mtz", *options, "--hydrogens", "none", "--out", out) == 0
    )
    text = " ".join(capsys.readouterr().out.split())
    assert "is unmerged: merging and refinement are joint" in text
    merged, given = rs.read_mtz(str(out / "merged_0.mtz")), rs.read_mtz(str(inputs / "merged.mtz"))
    both = merged.join(given[["FreeR_flag"]], rsuffix="_given", how="left").dropna()
    assert len(both) == len(merged)
    np.testing.assert_array_equal(both["FreeR_flag"] == 0, both["FreeR_flag_given"] == 0)
    assert (merged["SIGF"] > 0).all()
    assert list(pd.read_csv(out / "rounds.csv")["round"]) == [0, 1]
    assert json.loads((out / "run.json").read_text())["data"]["file"].endswith("spots.mtz")
    assert gemmi.read_structure(str(out / "refined.pdb"))[0].count_atom_sites() == 6 * len(PLACES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--labels", "I,SIGI"), "--labels names columns of merged data"),
        (("--adp", "anisotropic"), "has isotropic displacements"),
        (("--scale", "fallof"), "did you mean 'falloff'"),
        (("--free-file", "merged.mtz", "--free-fraction", 0.1), "give one of the two"),
    ],
)
def test_what_does_not_fit_spots_is_told(inputs, tmp_path, capsys, options, message):
    options = [inputs / o if o == "merged.mtz" else o for o in options]
    assert run(inputs, "--out", tmp_path / "out", *options) == 2
    assert message in " ".join(capsys.readouterr().err.split())
