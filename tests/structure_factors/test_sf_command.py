"""`bayesref sf` writes what gemmi reads back, for PDB and mmCIF."""

import gemmi
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from bayesref._checks import InputError
from bayesref.cli.sf import sf

app = typer.Typer()
app.command()(sf)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.mark.parametrize("suffix", ["pdb", "cif"])
def test_columns_are_the_structure_factors(data_dir, tmp_path, suffix):
    out = tmp_path / "out.mtz"
    done = run(data_dir / f"1dur/1dur.{suffix}", "--dmin", 2.5, "-o", out, "--check")
    assert done.exit_code == 0, done.output
    assert "488 atoms, P 21 21 21" in done.output
    assert "passed" in done.output
    mtz = gemmi.read_mtz_file(str(out))
    assert [c.label for c in mtz.columns] == ["H", "K", "L", "FC", "PHIC"]
    assert mtz.resolution_high() == pytest.approx(2.5, abs=0.01)
    structure = gemmi.read_structure(str(data_dir / "1dur/1dur.pdb"))
    calculator = gemmi.StructureFactorCalculatorX(structure.cell)
    hkl = mtz.make_miller_array()[::60]
    truth = np.array([calculator.calculate_sf_from_model(structure[0], h) for h in hkl.tolist()])
    found = (mtz.array[:, 3] * np.exp(1j * np.radians(mtz.array[:, 4])))[::60]
    assert np.linalg.norm(found - truth) < 1e-3 * np.linalg.norm(truth)


def test_solvent_changes_low_resolution_only(data_dir, tmp_path):
    for flag, name in (("--no-solvent", "dry"), ("--solvent", "wet")):
        assert run(data_dir / "1dur/1dur.pdb", "-d", 2.5, flag, "-o", tmp_path / f"{name}.mtz").exit_code == 0
    dry, wet = (gemmi.read_mtz_file(str(tmp_path / f"{n}.mtz")) for n in ("dry", "wet"))
    d = dry.make_d_array()
    change = np.abs(wet.array[:, 3] / dry.array[:, 3] - 1)
    assert np.median(change[d > 10]) > 0.1
    assert np.median(change[d < 3]) < 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.pdb", "-d", 2], "no model file"),
        (["1dur/1dur.pdb", "-d", 0], "above zero"),
        (["1dur/1dur.pdb", "-d", 500], "No reflection lies within"),
        (["1dur/1dur.pdb", "-d", 0.01], "give a larger dmin"),
        (["1dur/1dur.pdb", "-d", 4, "--k-sol", 0.4], "add --solvent"),
        (["1dur/1dur.pdb", "-d", 4, "-o", "/nowhere/x.mtz"], "cannot be written"),
        (["1dur/1dur.pdb", "-d", 4, "-o", __file__], "is there already"),
    ],
)
def test_mistakes_are_explained(data_dir, arguments, message):
    done = run(data_dir / arguments[0], *arguments[1:])
    assert isinstance(done.exception, InputError)
    assert message in str(done.exception)
