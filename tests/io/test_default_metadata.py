"""What the scale depends on where nobody said: by the kind of data, and only columns that say something."""

import numpy as np
import pytest

from bayesref.io.default_metadata import default_keys
from bayesref.io.unmerged import read_unmerged

LAUE = ("X", "Y", "Wavelength", "dHKL", "Hobs", "Kobs", "Lobs")


def polychromatic(n=200):
    """Columns of a Laue file beside those of `spots`."""
    rng = np.random.default_rng(1)
    return {"Y": ("R", rng.normal(size=n)), "Wavelength": ("R", rng.uniform(1.02, 1.18, n))}


def test_a_scale_sees_the_wavelengths_of_a_laue_file(make_mtz):
    path = make_mtz(columns=make_mtz.spots(**polychromatic()))
    assert read_unmerged(path, metadata_keys="auto").metadata_keys == LAUE


def test_data_taken_as_monochromatic_are_rotation_data(make_mtz):
    path = make_mtz(columns=make_mtz.spots(**polychromatic()))
    assert read_unmerged(path, metadata_keys="auto", wavelength_key="").metadata_keys == (
        "BATCH",
        "dHKL",
        "X",
        "Y",
    )


def test_what_is_asked_for_is_what_is_taken(make_mtz):
    path = make_mtz(columns=make_mtz.spots(**polychromatic()))
    assert read_unmerged(path, metadata_keys=["X"]).metadata_keys == ("X",)
    assert read_unmerged(path).metadata_keys == ()


def test_columns_that_say_nothing_are_left_out(make_mtz):
    constant = make_mtz("b.mtz", make_mtz.spots(Y=("R", np.ones(200)), BATCH=("B", np.full(200, 3))))
    assert read_unmerged(constant, metadata_keys="auto").metadata_keys == ("dHKL",)


def test_several_files_have_the_columns_that_all_of_them_have(make_mtz):
    more = polychromatic()
    a = make_mtz("a.mtz", make_mtz.spots(**more))
    b = make_mtz("b.mtz", make_mtz.spots(Wavelength=more["Wavelength"]))
    assert read_unmerged([a, b], metadata_keys="auto").metadata_keys == LAUE[2:]


def test_stills_depend_on_how_far_they_are_from_the_ewald_sphere():
    x = {k: np.arange(3.0) for k in ("X", "Y", "BATCH", "dHKL", "ewald_offset")}
    assert default_keys(x, (), stills=True) == ["ewald_offset", "dHKL"]
    assert default_keys({**x, "ewald_offset": np.zeros(3)}, (), stills=True) == []
    assert default_keys({**x, "X": np.array([0, np.nan, 1])}, (), stills=False) == ["BATCH", "dHKL"]


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pyp/off.mtz", LAUE),
        ("unmerged/brap_pk_6A.mtz", ("BATCH", "dHKL", "XDET", "YDET")),
        ("readers/XDS_ASCII.HKL", ("Z", "dHKL", "X", "Y")),
        ("readers/crystfel.stream", ("ewald_offset", "dHKL")),
    ],
)
def test_real_files(data_dir, name, expected):
    group = "P 1" if name.endswith("stream") else None
    assert read_unmerged(data_dir / name, metadata_keys="auto", spacegroup=group).metadata_keys == expected
