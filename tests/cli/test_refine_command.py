"""`bayesref refine` as a user calls it: results as files, mistakes as sentences."""

import json
import sys
from pathlib import Path

import gemmi
import numpy as np
import pytest

from bayesref.cli.app import main
from bayesref.cli.simulate_refine import write_intensities
from bayesref.io.structure import write_structure
from bayesref.refinement.simulate import RefineOptions, simulate_refine

sys.path.insert(0, str(Path(__file__).parents[1] / "restraints"))
import small_molecule

PLACES = [(x, y, z) for x in (3.0, 9.0) for y in (3.0, 9.0) for z in (3.0, 9.0)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Folder with model.pdb, data.mtz and XAL.cif."""
    folder = tmp_path_factory.mktemp("inputs")
    crystal = small_molecule.crystal(PLACES, cell=(20, 22, 28, 90, 90, 90), spacegroup="P 21 21 21")
    write_structure(crystal, folder / "model.pdb")
    write_intensities(
        simulate_refine(crystal, RefineOptions(dmin=1.8, free_fraction=0.1), seed=2), folder / "data.mtz"
    )
    (folder / "XAL.cif").write_text(small_molecule.DICTIONARY.format(sign="negativ"))
    return folder


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    return end.value.code or 0


@pytest.fixture(scope="module")
def results(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "out"
    files = (inputs / "model.pdb", inputs / "data.mtz", "--restraints", inputs / "XAL.cif")
    assert (
        run("refine", *files, "--out", out, "--cycles", 3, "--ensemble", 4, "--map-sigma", "--draws", 30) == 0
    )
    return out


def test_the_model_has_standard_deviations(results):
    block = gemmi.cif.read(str(results / "refined.cif")).sole_block()
    table = block.find("_atom_site.", ["Cartn_x_esd", "B_iso_or_equiv_esd", "occupancy_esd"])
    assert len(table) == 6 * len(PLACES)
    esd = np.array([[float(x) for x in row] for row in table])
    assert (esd[:, 0] > 0.003).all()
    assert (esd[:, 0] < 0.5).all()
    assert (esd[:, 1] > 0).all()
    structure = gemmi.read_structure(str(results / "refined.pdb"))
    assert structure[0].count_atom_sites() == 6 * len(PLACES)
    assert len(gemmi.read_structure(str(results / "ensemble.cif"))) == 4


def test_maps_have_the_usual_columns(results, inputs):
    mtz = gemmi.read_mtz_file(str(results / "maps.mtz"))
    kinds = {c.label: c.type for c in mtz.columns}
    for F, phase in (("FWT", "PHWT"), ("DELFWT", "PHDELWT"), ("FC", "PHIC")):
        assert (kinds[F], kinds[phase]) == ("F", "P")
    free = mtz.column_with_label("FreeR_flag").array == 0
    np.testing.assert_allclose(mtz.column_with_label("DELFWT").array[free], 0)
    np.testing.assert_allclose(
        mtz.column_with_label("FWT").array[free], mtz.column_with_label("FC").array[free], rtol=1e-5
    )
    fom = mtz.column_with_label("FOM").array
    assert ((fom >= 0) & (fom <= 1)).all()
    atom = gemmi.read_structure(str(results / "refined.pdb"))[0][0][0][0]
    density = mtz.transform_f_phi_to_map("FWT", "PHWT", sample_rate=3)
    assert density.interpolate_value(atom.pos) > 3 * np.array(density.array).std()
    sigma = gemmi.read_ccp4_map(str(results / "map_sigma.ccp4")).grid
    assert 0 < np.array(sigma.array).mean() < np.array(density.array).std()


def test_what_was_done_is_on_record(results):
    record = json.loads((results / "run.json").read_text())
    assert record["data"]["value"] == "I"
    assert record["data"]["free_value"] == 0
    assert 0.02 < record["figures"]["R"] < 0.3
    assert record["fit"]["restraint_width"]["coordinates"] > 0
    assert "rmsZ" in (results / "geometry.txt").read_text()
    for name in ("statistics.csv", "history.csv", "r_factors.png", "b_factors.png", "posterior.nc"):
        assert (results / name).stat().st_size > 100


def test_draws_can_be_read(results):
    import xarray

    data = xarray.load_dataset(results / "posterior.nc", group="posterior", engine="h5netcdf")
    assert data.xyz.shape == (1, 30, 6 * len(PLACES), 3)
    assert str(data.atom.values[0]) == "A/XAL 1/N"


def edit_model(folder, inputs, change):
    text = (inputs / "model.pdb").read_text()
    path = folder / "edited.pdb"
    path.write_text(change(text))
    return path


def without_cell(text):
    return "\n".join(line for line in text.splitlines() if not line.startswith("CRYST1")) + "\n"


def first_atom(replace_in):
    def change(text):
        lines = text.splitlines()
        i = next(i for i, line in enumerate(lines) if line.startswith(("ATOM", "HETATM")))
        lines[i] = replace_in(lines[i])
        return "\n".join(lines) + "\n"

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: "REMARK nothing\nEND\n", "no atoms"),
        (without_cell, "unit cell"),
        (first_atom(lambda a: a + "\n" + a), "there twice"),
        (first_atom(lambda a: a[:60] + "  0.00" + a[66:]), "B factor of zero or less"),
        (first_atom(lambda a: a[:30] + "     NaN" + a[38:]), "is no number; correct it in the model"),
        (first_atom(lambda a: a[:76] + " X" + a[78:]), "no known element"),
        (lambda t: t.replace("XAL", "QQQ"), "No restraints are known for QQQ"),
        (lambda t: t.replace("   20.000   22.000", "   20.000   25.000"), "The cell of"),
        (lambda t: t.replace("P 21 21 21", "P 2 2 2   "), "The space group of"),
    ],
    ids=["empty", "no cell", "twice", "B", "NaN", "element", "residue", "cell", "space group"],
)
def test_models_that_cannot_be_refined(tmp_path, inputs, capsys, change, message):
    model = edit_model(tmp_path, inputs, change)
    files = (model, inputs / "data.mtz", "--restraints", inputs / "XAL.cif", "--out", tmp_path / "out")
    assert run("refine", *files) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:3], "has 3 reflections, too few"),
        (lambda x: np.where(np.arange(6) == 3, -abs(x), x), "no value of I is above zero"),
        (lambda x: x * [1, 1, 1, np.nan, 1, 1], "no reflection is left"),
    ],
    ids=["three", "negative", "NaN"],
)
def test_data_that_say_nothing(tmp_path, inputs, capsys, change, message):
    mtz = gemmi.read_mtz_file(str(inputs / "data.mtz"))
    mtz.set_data(change(np.array(mtz.array)).astype(np.float32))
    mtz.write_to_file(str(tmp_path / "data.mtz"))
    files = (inputs / "model.pdb", tmp_path / "data.mtz", "--restraints", inputs / "XAL.cif")
    assert run("refine", *files, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--spacegroup", "foo"], "'foo' is not a space group"),
        (["--free-value", 5], "no reflection has the flag 5; check --free-value"),
        (["--tls-group", "A/1-3"], "--tls-group is about rigid groups; add --adp tls"),
        (["--metadata", "X"], "--metadata is about spots"),
        (["--steps", "atoms"], "There is no step 'atoms'; give some of rigid-body, xyz, b"),
        (["--rounds", 2], "--rounds is about spots"),
        (["--hydrogens", "none", "--hydrogen-contacts"], "--hydrogen-contacts is about riding hydrogens"),
        (["--page", "kinetic"], "The model kinetic takes (series, states, kinetics); bayesref refine calls"),
        (["--page", "merge"], "The model merge takes (obs, scale); bayesref refine calls model(data, atoms)"),
    ],
)
def test_options_that_are_wrong_or_do_nothing(tmp_path, inputs, capsys, options, message):
    files = (inputs / "model.pdb", inputs / "data.mtz", "--restraints", inputs / "XAL.cif")
    assert run("refine", *files, *options, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))


def test_an_interrupted_refinement_keeps_what_it_has(tmp_path, inputs, capsys, monkeypatch):
    def interrupt(row):
        if "moved" in row:  # the first cycle is done
            raise KeyboardInterrupt
        return ""

    monkeypatch.setattr("bayesref.cli.refine.progress_line", interrupt)
    files = (inputs / "model.pdb", inputs / "data.mtz", "--restraints", inputs / "XAL.cif")
    assert run("refine", *files, "--out", tmp_path / "out", "--ensemble", 0) == 0
    assert "interrupted; this is the best so far" in capsys.readouterr().out
    fit = json.loads((tmp_path / "out" / "run.json").read_text())["fit"]
    assert fit["reason"].startswith("interrupted")
    assert fit["cycles"] == 1
    assert (tmp_path / "out" / "refined.cif").is_file()


def test_results_are_not_overwritten_unasked(inputs, results, capsys):
    files = (inputs / "model.pdb", inputs / "data.mtz", "--restraints", inputs / "XAL.cif")
    assert run("refine", *files, "--out", results) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_a_free_set_is_made_where_there_is_none(tmp_path, inputs, capsys):
    mtz = gemmi.read_mtz_file(str(inputs / "data.mtz"))
    mtz.remove_column(5)
    mtz.write_to_file(str(tmp_path / "data.mtz"))
    files = (inputs / "model.pdb", tmp_path / "data.mtz", "--restraints", inputs / "XAL.cif")
    assert (
        run(
            "refine",
            *files,
            "--out",
            tmp_path / "out",
            "--cycles",
            1,
            "--free-fraction",
            0.1,
            "--ensemble",
            0,
        )
        == 0
    )
    assert "a free set of" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert 0.05 < record["data"]["free"] / record["data"]["reflections"] < 0.16
    assert run("refine", inputs / "model.pdb", inputs / "data.mtz", "--restraints", inputs / "XAL.cif",
               "--out", tmp_path / "o2", "--free-fraction", 0.1) == 2  # fmt: skip


def test_few_reflections_are_warned_of(tmp_path, inputs, capsys):
    files = (inputs / "model.pdb", inputs / "data.mtz", "--restraints", inputs / "XAL.cif")
    assert (
        run("refine", *files, "--out", tmp_path / "out", "--cycles", 1, "--dmin", 4.5, "--ensemble", 0) == 0
    )
    assert "fewer than" in capsys.readouterr().out


def test_residues_left_free_and_guessed(tmp_path, inputs, capsys):
    files = (inputs / "model.pdb", inputs / "data.mtz", "--cycles", 1, "--ensemble", 0)
    assert run("refine", *files, "--out", tmp_path / "a", "--unrestrained", "XAL") == 0
    assert "XAL have no restraints" in capsys.readouterr().out
    assert run("refine", *files, "--out", tmp_path / "b", "--guess", "XAL") == 0
    assert "guessed" in capsys.readouterr().out


@pytest.mark.data
def test_a_deposited_pair_without_flags(data_dir, tmp_path, capsys):
    files = (data_dir / "1dur/1dur.cif", data_dir / "1dur/1dur-sf.cif")
    assert run("refine", *files, "--out", tmp_path / "out", "--ensemble", 0, "--draws", 1) == 0
    assert "there are no R-free flags" in capsys.readouterr().out
    figures = json.loads((tmp_path / "out" / "run.json").read_text())["figures"]
    assert 0.11 < figures["R"] < 0.15


@pytest.mark.data
def test_a_shaken_model_comes_back(data_dir, tmp_path):
    files = (data_dir / "1dur/1dur.pdb", data_dir / "1dur/1dur.mtz", "--shake", 0.3)
    assert run("refine", *files, "--out", tmp_path / "out", "--ensemble", 0, "--draws", 1, "--quiet") == 0
    figures = json.loads((tmp_path / "out" / "run.json").read_text())["figures"]
    assert figures["R"] < 0.14
    assert figures["R_free"] < 0.175


def test_a_simulation_is_refined_back(inputs, tmp_path, capsys):
    out, done = tmp_path / "simulated", tmp_path / "refined"
    assert (
        run("simulate", "refine", inputs / "model.pdb", "--out", out, "--dmin", 1.8, "--free-fraction", 0.1)
        == 0
    )
    assert "reflections to 1.8" in capsys.readouterr().out
    files = (out / "start.pdb", out / "data.mtz", "--restraints", inputs / "XAL.cif")
    assert run("refine", *files, "--out", done, "--cycles", 5, "--ensemble", 0, "--quiet") == 0
    truth, start, found = (
        np.array([a.atom.pos.tolist() for a in gemmi.read_structure(str(f))[0].all()])
        for f in (out / "truth.pdb", out / "start.pdb", done / "refined.pdb")
    )
    assert np.abs(found - truth).mean() < 0.5 * np.abs(start - truth).mean()
