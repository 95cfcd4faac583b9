"""What `bayesref merge` says of the columns that its scale depends on, and of one that it should depend on."""

import gemmi
import numpy as np
import pytest

from bayesref.cli.merge import read
from bayesref.cli.options import MergeSettings
from bayesref.cli.program import build_scale


@pytest.fixture
def laue(tmp_path):
    rng = np.random.default_rng(0)
    n = 200
    h = rng.integers(1, 5, size=(n, 3))
    kinds = {"H": "H", "K": "H", "L": "H", "I": "J", "SIGI": "Q", "BATCH": "B", "X": "R", "Wavelength": "R"}
    more = (
        rng.exponential(100, n),
        np.ones(n),
        rng.integers(1, 5, n),
        rng.normal(size=n),
        rng.uniform(1, 1.2, n),
    )
    mtz = gemmi.Mtz()
    mtz.spacegroup = gemmi.SpaceGroup("P 21 21 21")
    mtz.set_cell_for_all(gemmi.UnitCell(30, 40, 50, 90, 90, 90))
    mtz.add_dataset("base")
    for label, kind in kinds.items():
        mtz.add_column(label, kind)
    mtz.set_data(np.column_stack([h, *more]).astype(np.float32))
    mtz.write_to_file(str(tmp_path / "laue.mtz"))
    return tmp_path / "laue.mtz"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["The scale depends on Wavelength, dHKL, Hobs, Kobs, Lobs (--metadata names others)."]),
        ({"metadata": "X,Wavelength"}, []),
        ({"metadata": "X"}, ["does not see Wavelength"]),
        ({"metadata": ""}, ["has no term additive", "does not see Wavelength"]),
        ({"metadata": "", "scale": "falloff,wavelength"}, []),
        ({"scale": "falloff,image"}, ["does not see Wavelength"]),
        ({"metadata": "X", "wavelength_key": ""}, []),
    ],
)
def test_notes(laue, tmp_path, options, expected):
    settings = MergeSettings(files=[laue], out=tmp_path / "out", **options)
    _, notes = build_scale(settings, read(settings))
    assert len(notes) == len(expected)
    assert all(words in note for words, note in zip(expected, notes, strict=True))
