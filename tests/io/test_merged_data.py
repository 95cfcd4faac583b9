"""Merged data for refinement: columns, R-free conventions, and what is refused."""

import gemmi
import numpy as np
import pytest

from bayesref._checks import InputError
from bayesref.io.free_set import recognise
from bayesref.io.merged import check_against, read_merged
from bayesref.io.structure import read_structure
from bayesref.refinement.toy_crystal import toy_crystal

CELL, GROUP = gemmi.UnitCell(24, 27, 30, 90, 90, 90), gemmi.SpaceGroup("P 21 21 21")


def write(path, columns, hkl=None, spacegroup=GROUP, cell=CELL):
    """An MTZ of {label: (type, values or function of n)}; returns its path and number of rows."""
    hkl = gemmi.make_miller_array(cell, spacegroup, 3.0) if hkl is None else hkl
    mtz = gemmi.Mtz(with_base=True)
    mtz.spacegroup = spacegroup
    mtz.add_dataset("x")
    mtz.set_cell_for_all(cell)
    for label, (kind, _) in columns.items():
        mtz.add_column(label, kind)
    values = [v(len(hkl)) if callable(v) else np.broadcast_to(v, len(hkl)) for _, v in columns.values()]
    mtz.set_data(np.column_stack([hkl, *values]).astype(np.float32))
    mtz.write_to_file(str(path))
    return path, len(hkl)


I = {"IMEAN": ("J", lambda n: np.arange(n) + 1.0), "SIGIMEAN": ("Q", 2.0)}
F = {"FP": ("F", lambda n: np.arange(n) + 1.0), "SIGFP": ("Q", 2.0)}
FREE = {"FreeR_flag": ("I", lambda n: np.arange(n) % 20)}


def test_intensities_come_first_and_the_columns_are_named(tmp_path):
    path, n = write(tmp_path / "a.mtz", F | I | FREE)
    data = read_merged(path)
    assert (data.kind, len(data)) == ("I", n)
    assert data.columns == {
        "file": str(path),
        "value": "IMEAN",
        "sigma": "SIGIMEAN",
        "free": "FreeR_flag",
        "free_value": 0,
    }
    assert int(data.free.sum()) == len(range(0, n, 20))
    assert any("CCP4" in note for note in data.notes)
    assert read_merged(path, labels=["FP", "SIGFP"]).kind == "F"


def test_values_stay_with_their_reflections(tmp_path):
    hkl = gemmi.make_miller_array(CELL, GROUP, 3.0)
    order = np.random.default_rng(0).permutation(len(hkl))
    index = hkl @ np.array([10000, 100, 1])
    path, _ = write(tmp_path / "a.mtz", {"I": ("J", index[order]), "SIGI": ("Q", 1.0)}, hkl[order])
    data = read_merged(path)
    np.testing.assert_array_equal(data.value.numpy(), data.asu.hkl.numpy() @ np.array([10000, 100, 1]))


def test_bad_rows_are_counted_and_left_out(tmp_path):
    def value(n):
        x = np.ones(n)
        x[:3] = np.nan
        return x

    def sigma(n):
        x = np.ones(n)
        x[3:5] = 0
        return x

    path, n = write(tmp_path / "a.mtz", {"I": ("J", value), "SIGI": ("Q", sigma)})
    data = read_merged(path)
    assert len(data) == n - 5
    assert any("3 reflections without a value" in note for note in data.notes)
    assert any("2 reflections whose sigma" in note for note in data.notes)
    assert any("no R-free flags" in note for note in data.notes)
    assert float(read_merged(path, dmin=4.0).asu.dHKL.min()) >= 4.0


CALCULATED = {"FC": ("F", 1.0), "PHIC": ("P", 0.0)}


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (F | CALCULATED, {"labels": ["FC", "PHIC"]}, "FC is calculated"),
        ({"FMODEL": ("F", 1.0), "SIGFMODEL": ("Q", 1.0)}, {}, "no measured"),
        ({"FWT": ("F", 1.0), "PHWT": ("P", 1.0)}, {}, "no measured"),
        (F, {"labels": ["IOBS", "SIGIOBS"]}, "no column IOBS; it has FP"),
        (F, {"labels": ["FP"]}, "name a value and its sigma"),
        (
            {"F_on": ("F", 1.0), "S_on": ("Q", 1.0), "F_off": ("F", 1.0), "S_off": ("Q", 1.0)},
            {},
            "several sets of data",
        ),
        (F | {"FREE": ("I", 0)}, {"free_value": 0}, "all reflections are free"),
        (F | {"FREE": ("I", lambda n: np.arange(n) % 2)}, {}, "--free-value"),
        (F | {"FREE": ("I", lambda n: np.arange(n) % 3 + 5)}, {}, "no set 0"),
        (F, {"free_label": "FREE"}, "no column FREE"),
        ({"I": ("J", np.nan), "SIGI": ("Q", 1.0)}, {}, "no reflection is left"),
        (F | {"M/ISYM": ("Y", 1)}, {}, "unmerged"),
    ],
)
def test_what_is_refused(tmp_path, columns, options, message):
    path, _ = write(tmp_path / "a.mtz", columns)
    with pytest.raises(InputError, match=message):
        read_merged(path, **options)


def test_files_that_are_no_data(tmp_path):
    with pytest.raises(InputError, match="no data file"):
        read_merged(tmp_path / "none.mtz")
    text = tmp_path / "a.mtz"
    text.write_text("hello")
    with pytest.raises(InputError, match="neither an MTZ nor"):
        read_merged(text)


def test_data_of_another_space_group_are_not_merged(tmp_path):
    hkl = gemmi.make_miller_array(CELL, gemmi.SpaceGroup("P 1"), 4.0)
    path, _ = write(tmp_path / "a.mtz", I, hkl, gemmi.SpaceGroup("P 1"))
    with pytest.raises(InputError, match="not to be merged"):
        read_merged(path, spacegroup="P 21 21 21")


@pytest.mark.parametrize(
    ("flags", "value", "words"),
    [
        (np.arange(200) % 20, 0, "CCP4"),
        (np.arange(200) % 20 == 0, 1, "Phenix"),
        (np.arange(200) % 20 != 0, 0, "rarer"),
        (np.where(np.arange(200) % 20 == 0, -1, 1), -1, "SHELX"),
        (np.ones(200), None, "alike"),
    ],
)
def test_conventions_of_free_flags(tmp_path, flags, value, words):
    found, how = recognise(np.asarray(flags).astype(int), tmp_path, "FREE")
    assert found == value
    assert words in how


def test_flags_from_another_file(tmp_path):
    path, n = write(tmp_path / "a.mtz", I)
    flags, _ = write(tmp_path / "b.mtz", {"R-free-flags": ("I", lambda n: np.arange(n) % 10 == 0)})
    data = read_merged(path, free_file=flags)
    assert int(data.free.sum()) == len(range(0, n, 10))
    assert data.columns["free_value"] == 1
    with pytest.raises(InputError, match="no R-free flags"):
        read_merged(path, free_file=path)


def test_model_and_data_must_be_of_one_crystal(tmp_path):
    crystal = toy_crystal(40)
    path, _ = write(tmp_path / "a.mtz", I)
    check_against(read_merged(path), crystal, "model.pdb")
    other, _ = write(tmp_path / "b.mtz", I, cell=gemmi.UnitCell(24, 27, 31, 90, 90, 90))
    with pytest.raises(InputError, match=r"cell of .*b.mtz is .*31"):
        check_against(read_merged(other), crystal, "model.pdb")
    other, _ = write(tmp_path / "c.mtz", I, spacegroup=gemmi.SpaceGroup("P 2 2 2"))
    with pytest.raises(InputError, match=r"space group of .* P 2 2 2"):
        check_against(read_merged(other), crystal, "model.pdb")


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "kind", "n", "n_free"),
    [
        ("1dur/1dur.mtz", "F", 3197, 271),
        ("1dur/1dur-sf.cif", "F", 3256, 0),
        ("1l2h/1l2h.mtz", "I", 31781, 1519),
    ],
)
def test_real_files(data_dir, file, kind, n, n_free):
    data = read_merged(data_dir / file)
    assert (data.kind, len(data), int(data.free.sum())) == (kind, n, n_free)
    model = data_dir / {"1dur/1dur.mtz": "1dur/1dur.pdb", "1dur/1dur-sf.cif": "1dur/1dur.cif"}.get(
        file, "1l2h/1l2h.cif"
    )
    check_against(data, read_structure(model), str(model))
