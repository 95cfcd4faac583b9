"""`bayesref refine --twin` as a user calls it: the fraction in the results, mistakes as sentences."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pytest
import torch

from bayesref.cli.app import main
from bayesref.cli.simulate_refine import write_intensities
from bayesref.crystal.twin_laws import twin_law
from bayesref.io.merged import read_merged
from bayesref.io.structure import write_structure
from bayesref.refinement.simulate import RefineOptions
from bayesref.refinement.twin_simulate import simulate_twin
from bayesref.validation.twinning import twinning

sys.path.insert(0, str(Path(__file__).parents[1] / "restraints"))
import small_molecule

PLACES = [(x, y, 3.0) for x in (3.0, 8.0) for y in (3.0, 8.0)]
CELL, GROUP = (20.0, 20.0, 28.0, 90, 90, 90), "P 43"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Folder with model.pdb, data.mtz of a twin, and XAL.cif."""
    folder = tmp_path_factory.mktemp("inputs")
    crystal = small_molecule.crystal(PLACES, cell=CELL, spacegroup=GROUP)
    g = torch.Generator().manual_seed(5)
    crystal = replace(crystal, B=10 + 8 * torch.rand(len(crystal), generator=g, dtype=torch.float64))
    write_structure(crystal, folder / "model.pdb")
    data = simulate_twin(
        crystal, twin_law("k,h,-l", CELL, GROUP), 0.3, RefineOptions(dmin=1.8, free_fraction=0.1)
    )
    write_intensities(data, folder / "data.mtz")
    (folder / "XAL.cif").write_text(small_molecule.DICTIONARY.format(sign="negativ"))
    return folder


def run(folder, *options):
    files = (folder / "model.pdb", folder / "data.mtz", "--restraints", folder / "XAL.cif")
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in ("refine", *files, "--out", folder / "out", "--overwrite", *options)])
    return end.value.code or 0


def test_fraction_is_among_the_results(inputs, capsys):
    options = (
        "--twin",
        "-h,k,-l",
        "--cycles",
        1,
        "--hydrogens",
        "none",
        "--ensemble",
        0,
        "--draws",
        5,
    )
    assert run(inputs, *options) == 0
    assert "Refined as a twin by -h,k,-l" in capsys.readouterr().out
    site = json.loads((inputs / "out" / "run.json").read_text(encoding="utf-8"))["sites"]["twin_fraction"]
    assert abs(site["mean"] - 0.3) < 5 * site["sd"] + 0.01
    mtz = gemmi.read_mtz_file(str(inputs / "out" / "maps.mtz"))
    F, I = (np.array(mtz.column_with_label(x).array) for x in ("F", "I"))
    assert np.isfinite(F).all()
    assert np.nanmean(np.abs(F - np.sqrt(I.clip(0)))) / np.nanmean(F) > 0.02  # detwinned, not as measured


@pytest.mark.parametrize(
    ("operator", "says"),
    [("hello", "no twin operator"), ("-h,-k,l", "makes no twin"), ("l,k,h", "misses the lattice")],
)
def test_operators_that_are_none_are_refused(inputs, capsys, operator, says):
    assert run(inputs, "--twin", operator, "--hydrogens", "none") == 2
    assert says in " ".join(capsys.readouterr().err.split())


def test_page_without_a_fraction_is_refused(inputs, capsys):
    assert run(inputs, "--twin", "k,h,-l", "--page", "refine", "--hydrogens", "none") == 2
    assert "models/refine_twin.py" in " ".join(capsys.readouterr().err.split())


def test_simulated_twin_is_one(inputs, capsys):
    options = ("--dmin", 2.0, "--twin", "k,h,-l", "--twin-fraction", 0.4, "--out", inputs / "made")
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in ("simulate", "refine", inputs / "model.pdb", *options)])
    assert not end.value.code
    data = read_merged(inputs / "made" / "data.mtz")
    t = twinning(data.asu, data.value, data.sigma)
    assert 0.3 < t.laws[0].fraction < 0.5  # of 24 atoms, which are too few for Wilson's distribution
