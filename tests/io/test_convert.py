"""`bayesref convert`: what is read from the MTZ is what was read from the file it came from."""

import gemmi
import pytest
import torch

from bayesref.cli.app import main
from bayesref.io.convert import write_unmerged
from bayesref.io.unmerged import read_unmerged

FILES = {
    "XDS_ASCII": ("readers/XDS_ASCII.HKL", None, ("XD", "YD", "RLP")),
    "INTEGRATE": ("readers/INTEGRATE.HKL", None, ("XCAL", "PEAK")),
    "CrystFEL": ("readers/crystfel.stream", "P 43 21 2", ("s1x", "ewald_offset")),
    "DIALS": ("readers/stills.refl", None, ("X", "delpsical.rad")),
    "MTZ": ("readers/data_unmerged.mtz", None, ("XDET", "LP")),
    "mosflm": ("unmerged/brap_pk_6A.mtz", None, ("XDET", "ROT")),
    "INTEGRATE, whole": ("unmerged/INTEGRATE_vb1.HKL", None, ("XCAL", "Z")),
}


@pytest.mark.parametrize("kind", FILES)
def test_reading_back_gives_the_same(kind, data_dir, tmp_path):
    name, group, keys = FILES[kind]
    write_unmerged(data_dir / name, tmp_path / "x.mtz", spacegroup=group)
    a = read_unmerged(data_dir / name, spacegroup=group, metadata_keys=keys, anomalous=True)
    b = read_unmerged(tmp_path / "x.mtz", metadata_keys=keys, anomalous=True)
    assert a.asu.spacegroup.xhm() == b.asu.spacegroup.xhm()
    assert a.asu.cell.parameters == pytest.approx(b.asu.cell.parameters, abs=1e-4)
    for x in ("hkl_id", "image_id", "hkl", "image_number"):
        assert torch.equal(getattr(a, x), getattr(b, x)), x
    assert torch.equal(a.asu.hkl, b.asu.hkl)
    for x in ("I", "SIGI", "metadata"):
        torch.testing.assert_close(getattr(a, x), getattr(b, x), rtol=2e-6, atol=1e-5)


def test_other_programs_see_an_unmerged_file(data_dir, tmp_path):
    write_unmerged(data_dir / "readers/XDS_ASCII.HKL", tmp_path / "x.mtz")
    mtz = gemmi.read_mtz_file(str(tmp_path / "x.mtz"))
    batches = sorted({int(x) for x in mtz.column_with_label("BATCH").array})
    assert [b.number for b in mtz.batches] == batches
    gemmi.Intensities().import_mtz(mtz)


def test_rows_that_are_not_written_are_accounted_for(data_dir, tmp_path):
    line = write_unmerged(data_dir / "unmerged/brap_pk_6A.mtz", tmp_path / "x.mtz")
    assert "4,938 of 17,864 rows" in line
    assert "546 incomplete partial, 12,380 summed with other parts" in line
    assert "not written" not in write_unmerged(data_dir / "readers/data_unmerged.mtz", tmp_path / "y.mtz")


def test_two_files_keep_their_images_apart(make_mtz, tmp_path):
    a, b = make_mtz("a.mtz"), make_mtz("b.mtz", make_mtz.spots(seed=1))
    write_unmerged([a, b], tmp_path / "x.mtz")
    together, back = read_unmerged([a, b]), read_unmerged(tmp_path / "x.mtz")
    assert back.n_image == together.n_image == 10
    assert len(back) == len(together)


@pytest.mark.parametrize(
    ("words", "named"),
    [(["a.mtz"], "only file"), (["a.mtz", "b.txt"], ".mtz"), (["a.mtz", "a.mtz"], "--overwrite")],
)
def test_bad_input(words, named, make_mtz, tmp_path, capsys):
    make_mtz("a.mtz")
    with pytest.raises(SystemExit) as end:
        main(["convert", *(str(tmp_path / w) for w in words)])
    assert end.value.code == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize("name", ["readers/XDS_ASCII.HKL", "readers/data_unmerged.mtz"])
def test_xds_ascii(name, data_dir, tmp_path):
    out = tmp_path / "XDS_ASCII.HKL"
    write_unmerged(data_dir / name, out)
    a, b = read_unmerged(data_dir / name), read_unmerged(out)
    assert torch.equal(a.hkl, b.hkl)
    assert torch.equal(a.image_number[a.image_id], b.image_number[b.image_id])
    torch.testing.assert_close(a.I, b.I, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(a.SIGI, b.SIGI, rtol=1e-5, atol=1e-4)
    known = gemmi.read_xds_ascii(str(out))
    assert known.spacegroup_number == a.asu.spacegroup.number
    assert known.cell_constants == pytest.approx(a.asu.cell.parameters, abs=2e-3)
    other = gemmi.Intensities()
    other.import_xds(known)
    assert len(other) == b.report.n_read
