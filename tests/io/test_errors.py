"""Bad input: one sentence that names the file, what was found, what was expected and the remedy."""

import re

import numpy as np
import pytest

from bayesref._checks import InputError
from bayesref.io.unmerged import read_unmerged


def refuses(pattern, files, **options):
    """`read_unmerged` raises an InputError of one line that matches `pattern`."""
    with pytest.raises(InputError) as caught:
        read_unmerged(files, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", ";"))
    assert re.search(pattern, message), message


def test_missing_file_directory_and_nothing(tmp_path):
    refuses(r"lost\.mtz: there is no such file", tmp_path / "lost.mtz")
    refuses(r"is a directory; expected a file", tmp_path)
    refuses(r"No file was given", [])
    (tmp_path / "empty.mtz").touch()
    refuses(r"empty\.mtz is empty", tmp_path / "empty.mtz")


def test_what_is_not_an_mtz(tmp_path, make_mtz):
    garbage = tmp_path / "garbage.mtz"
    garbage.write_bytes(b"not reflections at all" * 50)
    refuses(r"garbage\.mtz is not an MTZ file \(it starts with b'not refl'\); expected 'MTZ '", garbage)
    whole = make_mtz().read_bytes()
    cut = tmp_path / "cut.mtz"
    cut.write_bytes(whole[: len(whole) // 2])
    refuses(r"cut\.mtz is not a complete MTZ file", cut)


def test_unknown_format(tmp_path):
    path = tmp_path / "spots.txt"
    path.write_text("1 2 3 100 5\n")
    refuses(r"spots\.txt has a format that is not known; expected one of MTZ, XDS_ASCII", path)


def test_merged_mtz(make_mtz):
    columns = make_mtz.spots(n=3, BATCH=None)
    for i, label in enumerate("HKL"):
        columns[label] = ("H", np.arange(1, 4) + i)
    refuses(
        r"a\.mtz holds merged data \(each index occurs once.*give the unmerged", make_mtz(columns=columns)
    )


@pytest.mark.data
def test_merged_file_of_a_scaling_program(data_dir):
    refuses(r"data_merged\.mtz holds merged data", data_dir / "readers" / "data_merged.mtz")


def test_columns_missing(make_mtz):
    path = make_mtz()
    refuses(
        r"a\.mtz has no column 'IPR' for intensities; its columns are H, K, L, I, SIGI, BATCH, X: "
        r"name one of these with --intensity-key",
        path,
        intensity_key="IPR",
    )
    refuses(r"no column 'S' for standard deviations.*with --sigma-key", path, sigma_key="S")
    refuses(r"no column 'frame' for images.*with --image-key", path, image_key="frame")
    refuses(r"no intensity column \(MTZ type J\)", make_mtz(columns=make_mtz.spots(I=None)))
    refuses(r"no column of standard deviations \(MTZ type Q\)", make_mtz(columns=make_mtz.spots(SIGI=None)))
    refuses(
        r"no image column \(MTZ type B\); its columns are H, K, L, I, SIGI, X: name .* with --image-key",
        make_mtz(columns=make_mtz.spots(BATCH=None)),
    )


def test_sigmas_all_zero(make_mtz):
    path = make_mtz(columns=make_mtz.spots(SIGI=("Q", np.zeros(200))))
    refuses(r"a\.mtz: no value of SIGI is above zero.*with --sigma-key", path)


def test_empty_after_cutoffs(make_mtz):
    path = make_mtz()
    refuses(r"a\.mtz: none of 200 rows is left \(200 beyond dmin\); relax the cut-offs", path, dmin=100)
    refuses(r"none of 200 rows is left \(200 weak \(I/sigma\)\)", path, isigi_cutoff=1e6)
    all_nan = make_mtz("nan.mtz", make_mtz.spots(I=("J", np.full(200, np.nan))))
    refuses(r"nan\.mtz: none of 200 rows is left \(200 not finite\)", [path, all_nan])


def test_metadata_keys(make_mtz):
    path = make_mtz(columns=make_mtz.spots(FLAT=("R", np.full(200, 7.0))))
    refuses(
        r"Metadata key 'Wavelength' is unknown; available: I, SIGI, BATCH, X, FLAT, Hobs, Kobs, Lobs, dHKL, "
        r"file_id, image_id\.",
        path,
        metadata_keys=["X", "Wavelength"],
    )
    refuses(r"Metadata key 'FLAT' has the value 7 for every spot", path, metadata_keys=["FLAT"])
    refuses(r"Metadata key 'file_id' has the value 0 for every spot", path, metadata_keys=["file_id"])
    x = np.arange(200.0)
    x[3] = np.nan
    path = make_mtz(columns=make_mtz.spots(X=("R", x)))
    refuses(r"Metadata key 'X' has 1 values that are not finite", path, metadata_keys=["X"])
    other = make_mtz("b.mtz", make_mtz.spots(X=None))
    refuses(r"'X' is unknown; available: I, SIGI, BATCH, Hobs", [path, other], metadata_keys=["X"])


def test_files_that_disagree(make_mtz):
    a = make_mtz("a.mtz")
    b = make_mtz("b.mtz", cell=(31, 40, 50, 90, 90, 90))
    refuses(r"a\.mtz \(30 40 50 90 90 90\) and .*b\.mtz \(31 40 50 90 90 90\) differ by more than 2%", [a, b])
    read_unmerged([a, b], cell=[30, 40, 50, 90, 90, 90])
    c = make_mtz("c.mtz", spacegroup="P 2 2 2")
    refuses(r"a\.mtz is in space group P 21 21 21 but .*c\.mtz in P 2 2 2", [a, c])
    read_unmerged([a, c], spacegroup="P 21 21 21")


def test_overrides_that_make_no_sense(make_mtz):
    path = make_mtz()
    refuses(r"'P 99' is not a space group", path, spacegroup="P 99")
    refuses(r"P 63 does not fit the unit cell 30 40 50 90 90 90", path, spacegroup="P 63")
    refuses(r"six numbers", path, cell=[1, 2, 3])
    flat = make_mtz("flat.mtz", cell=(1, 1, 1, 90, 90, 90))
    refuses(r"flat\.mtz: The unit cell 1 1 1 90 90 90 encloses no volume", flat)


def test_operator_numbers_out_of_range(make_mtz):
    path = make_mtz(columns=make_mtz.spots(**{"M/ISYM": ("Y", np.full(200, 99))}))
    refuses(r"a\.mtz: column M/ISYM has operator numbers outside 1 to 8", path)
