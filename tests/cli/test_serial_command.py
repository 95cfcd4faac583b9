"""`bayesref simulate serial` and `bayesref merge` of stills, and what they refuse."""

import pandas as pd
import pytest
import reciprocalspaceship as rs
from typer.testing import CliRunner

from bayesref._checks import InputError
from bayesref.cli.app import app
from bayesref.cli.stills import unsettled
from bayesref.io.unmerged import read_unmerged

CELL = "40,40,30,90,90,120"


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    out = tmp_path_factory.mktemp("serial") / "sim"
    text = run(
        "simulate", "serial", "--out", out, "--images", 120, "--cell", CELL, "--dmin", 3.5, "--width", 1e-3,
        "--foreign", 0.05, "--seed", 3,
    )  # fmt: skip
    assert "120 stills" in text
    return out


def test_stills_from_a_stream_to_images_csv(simulated, tmp_path):
    out = tmp_path / "out"
    text = run(
        "merge", simulated / "serial.stream", "--spacegroup", "P 63", "--metadata", "ewald_offset,s1x,s1y",
        "--scale", "falloff,additive,image,rocking,tilt", "--method", "svi", "--reindex", "auto",
        "--image-outliers", "--image-quality", "--on-disk", "--epochs", 5,
        "--cell-tolerance", 0.02, "--samples", 0, "--out", out,
    )  # fmt: skip
    truth = pd.read_csv(simulated / "images_truth.csv")
    n = int((~truth["foreign"]).sum())
    assert f"First consensus of {n} images" in text
    assert "image tilt" in text
    table = pd.read_csv(out / "images.csv")
    assert len(table) == n
    assert set(table["operator"]) == {"h,k,l", "-h-k,k,-l"}
    assert ((table["p_h,k,l"] + table["p_-h-k,k,-l"]) - 1).abs().max() < 1e-6
    true = truth.set_index("image").loc[table["image"]]
    good = ~true["bad"].to_numpy()
    same = ((table["operator"] != "h,k,l").to_numpy() == true["operator"].to_numpy())[good].mean()
    assert max(same, 1 - same) > 0.9
    assert table["p_bad"][~good].mean() > table["p_bad"][good].mean()
    assert not (out / "spots").exists()
    assert rs.read_mtz(str(out / "merged_0.mtz"))["F"].notna().all()


@pytest.mark.parametrize(("group", "n"), [("P 63", 2), ("P 3", 4), ("P 6 2 2", 0)])
def test_ways_of_indexing_that_nobody_settled_are_told(simulated, group, n):
    notes = unsettled(read_unmerged(simulated / "serial.stream", spacegroup=group))
    assert len(notes) == bool(n)
    assert not n or f"indexed in {n} ways" in notes[0]


def test_options_that_need_svi(simulated, tmp_path):
    stream = [simulated / "serial.stream", "--spacegroup", "P 63", "--out", tmp_path / "o"]
    with pytest.raises(InputError, match=r"--reindex is of the fit over minibatches .* add --method svi"):
        run("merge", *stream, "--reindex", "auto")
    with pytest.raises(InputError, match=r"'k,h' is not an operator"):
        run("merge", *stream, "--method", "svi", "--reindex", "k,h", "--overwrite")
    with pytest.raises(InputError, match=r"tolerance is -1; give a fraction above zero"):
        run("merge", *stream, "--cell-tolerance", -1, "--overwrite")


def test_a_simulation_that_cannot_be(tmp_path):
    with pytest.raises(InputError, match=r"Option bad is 2.0; it must lie between 0 and 1"):
        run("simulate", "serial", "--bad", 2, "--out", tmp_path / "a")
