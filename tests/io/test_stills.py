"""Stills: distance from the Ewald sphere, cells and limits of images, files of simulated ones."""

import math

import gemmi
import numpy as np
import pytest
from serial_truth import SMALL, small

from bayesref._checks import InputError
from bayesref.data.simulate_serial import simulate_serial
from bayesref.io.crystfel import read_crystfel
from bayesref.io.stills import cell_parameters, ewald_offset
from bayesref.io.stills_stream import write_serial
from bayesref.io.unmerged import read_unmerged


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    s = simulate_serial(**(SMALL | {"images": 40, "foreign": 0.2, "seed": 5}))
    path, *_ = write_serial(s, tmp_path_factory.mktemp("serial"), overwrite=True)
    return s, path


def test_offset_by_hand():
    """q = (0.01, 0.04, -0.05) Å⁻¹ at 1 Å: s₁ = (0.01, 0.04, 0.95), whose length is √0.9042."""
    x = ewald_offset([[1, 2, -1]], np.diag([0.01, 0.02, 0.05]), 1.0)
    assert x[0] == pytest.approx(math.sqrt(0.0001 + 0.0016 + 0.9025) - 1, rel=1e-12)


@pytest.mark.parametrize("wavelength", [0.8, 1.3])
def test_a_reflection_on_the_sphere(wavelength):
    """Bragg's law: q at the angle θ below the plane across the beam, sin θ = λ/(2 d)."""
    d = 3.0
    theta = math.asin(wavelength / (2 * d))
    q = np.array([math.cos(theta), 0, -math.sin(theta)]) / d
    A = np.stack([q, [0, 0.1, 0], [0, 0, 0.1]], axis=1)
    assert ewald_offset([[1, 0, 0]], A, wavelength)[0] == pytest.approx(0, abs=1e-15)
    assert ewald_offset([[1, 0, 0]], 1.01 * A, wavelength)[0] > 0  # farther out, outside the sphere


def test_beams_in_another_direction():
    rng = np.random.default_rng(0)
    Q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    A, h = rng.normal(size=(3, 3)) / 40, rng.integers(-9, 9, (20, 3))
    want = ewald_offset(h, A, 1.1)
    np.testing.assert_allclose(ewald_offset(h, Q @ A, 1.1, 3 * Q[:, 2]), want, atol=1e-14)


def test_cell_from_axes():
    cell = gemmi.UnitCell(30, 40, 55, 81, 95, 112)
    axes = np.array(cell.orth.mat.tolist()).T
    np.testing.assert_allclose(cell_parameters(axes), cell.parameters, rtol=1e-12)


def test_a_stream_as_written(stream):
    s, path = stream
    table = read_crystfel(path)
    assert len(table.stills) == 40
    np.testing.assert_array_equal(table.hkl, np.concatenate([x.hkl for x in s.stills]))
    np.testing.assert_allclose(table.I, np.concatenate([x.I for x in s.stills]), atol=1e-3)
    np.testing.assert_allclose(table.stills.cell, [x.cell for x in s.stills], atol=1e-3)
    np.testing.assert_allclose(table.stills.limit, SMALL["dmin"], atol=1e-3)
    # Predictions reach as far as this from the sphere, whichever way an image is indexed.
    assert np.abs(table.columns["ewald_offset"]).max() == pytest.approx(2.5 * SMALL["width"], rel=0.02)
    q = np.stack([table.columns[f"s1{x}"] for x in "xyz"], axis=1) - [0, 0, 1 / 1.3]
    d = np.concatenate([gemmi.UnitCell(*x.cell).calculate_d_array(x.hkl) for x in s.stills])
    np.testing.assert_allclose(1 / np.linalg.norm(q, axis=1), d, rtol=1e-3)


def test_images_of_another_cell_are_left_out_and_counted(stream):
    s, path = stream
    obs = read_unmerged(path, spacegroup="P 63", cell_tolerance=0.015)
    n = sum(len(x.I) for x, foreign in zip(s.stills, s.foreign, strict=True) if foreign)
    assert s.foreign.sum() > 3
    assert obs.report.files[0].left_out["cell outside tolerance"] == n
    assert obs.n_image == 40 - s.foreign.sum()
    assert f"{s.foreign.sum()} of 40 images have another cell" in str(obs.report)


def test_tolerances_that_mean_nothing(stream, make_mtz):
    _, path = stream
    with pytest.raises(InputError, match=r"tolerance is 0; give a fraction above zero"):
        read_unmerged(path, spacegroup="P 63", cell_tolerance=0)
    with pytest.raises(InputError, match=r"no image has a cell within 1e-09 of the median 40"):
        read_unmerged(path, spacegroup="P 63", cell_tolerance=1e-9)
    with pytest.raises(InputError, match=r"a\.mtz \(MTZ\) has no cell for each image"):
        read_unmerged(make_mtz(), cell_tolerance=0.02)
    with pytest.raises(InputError, match=r"a\.mtz \(MTZ\) does not say how far each image diffracts"):
        read_unmerged(make_mtz(), image_resolution=0.0)


def test_spots_beyond_the_resolution_of_their_image(stream, tmp_path):
    _, path = stream
    text = path.read_text().split("----- Begin chunk")
    new = "diffraction_resolution_limit = 2.000 nm^-1 or 5.000 A"
    text[1] = text[1].replace("diffraction_resolution_limit = 2.857 nm^-1 or 3.500 A", new)
    assert new in text[1]
    (tmp_path / "a.stream").write_text("----- Begin chunk".join(text))
    obs = read_unmerged(tmp_path / "a.stream", spacegroup="P 63", image_resolution=0.01)
    d = obs.asu.dHKL[obs.hkl_id]
    assert float(d[obs.image_id == 0].min()) > 1 / 0.21
    assert float(d[obs.image_id == 1].min()) < 4


@pytest.mark.parametrize("cut", ["--- End crystal", "End of reflections", "bstar ="])
def test_a_damaged_stream(stream, tmp_path, cut):
    _, path = stream
    head, _, rest = path.read_text().partition(cut)
    (tmp_path / "a.stream").write_text(head if cut.startswith("-") else head + "x" + rest)
    with pytest.raises(InputError, match=r"a\.stream is not a complete CrystFEL stream \(crystal 0"):
        read_unmerged(tmp_path / "a.stream", spacegroup="P 63")


def test_ewald_offset_is_a_metadata_key():
    _, obs = small()
    assert obs.metadata_keys == ("ewald_offset",)
    assert float(obs.metadata.std()) == pytest.approx(1, abs=0.01)


# reciprocalspaceship leaves the file to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_dials_stills_lie_near_the_sphere(data_dir):
    """With the beam the wrong way round, offsets would be a hundred times as large."""
    readers, keys = data_dir / "readers", ["ewald_offset", "delpsical.rad"]
    obs = read_unmerged([readers / "stills.refl", readers / "stills.expt"], metadata_keys=keys)
    assert obs.transform.sd[0] < 2e-4
    # Δψ, the rotation that would bring a reflection onto the sphere, goes against the offset.
    assert np.corrcoef(obs.metadata.T)[0, 1] < -0.8
    few = read_unmerged([readers / "stills.refl", readers / "stills.expt"], cell_tolerance=0.003)
    assert 0 < few.n_image < obs.n_image
