"""Pictures: drawn from ordinary and from poor tables, without pyplot and without leaving traces."""

import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest

from bayesref.results.plots import (
    calibration_plot,
    cchalf_plot,
    resolution_ticks,
    scale_plot,
    write_plot,
)

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def drawn(figure, path):
    write_plot(figure, path)
    return path.read_bytes()[:8] == SIGNATURE and path.stat().st_size > 5_000


@pytest.mark.parametrize(
    ("dmax", "dmin"), [(19.3, 1.53), (27.6, 3.2), (60.0, 0.84), (8.0, 7.2), (3.05, 3.01)]
)
def test_ticks_of_resolution(dmax, dmin):
    ticks = resolution_ticks(dmax, dmin)
    assert ticks
    assert all(dmin * 0.99 <= d <= dmax for d in ticks)
    x = 1 / np.array(ticks) ** 2
    assert (np.diff(x) < 0).all()
    assert (-np.diff(x) * dmin**2 > 0.08).all()


def test_cchalf(results, tmp_path):
    table = results.tables["halves_0"]
    figure = cchalf_plot(table)
    left, right = figure.axes
    np.testing.assert_array_equal(left.lines[0].get_ydata(), table["cchalf"][:-1])
    np.testing.assert_array_equal(right.lines[0].get_ydata(), table["rsplit"][:-1])
    assert left.get_xlabel() == "resolution d (Å)"
    assert f"CC1/2 {table['cchalf'].iloc[-1]:.3f}" in left.get_title()
    assert drawn(figure, tmp_path / "cchalf.png")


def test_cchalf_of_poor_data(results, tmp_path):
    table = results.tables["halves_0"].copy()
    table["cchalf"] = -0.3
    table["rsplit"] = np.nan
    figure = cchalf_plot(table)
    assert figure.axes[0].get_ylim()[0] < -0.3
    assert drawn(figure, tmp_path / "poor.png")


def test_calibration(tmp_path):
    z = np.random.default_rng(0).normal(size=20_000)
    figure = calibration_plot(np.append(z, [np.nan, 50.0]), "z of something")
    left, right = figure.axes
    nominal, observed = left.lines[1].get_data()
    np.testing.assert_allclose(observed, nominal, atol=0.015)
    area = sum(p.get_width() * p.get_height() for p in right.patches)
    assert area == pytest.approx(1)  # what lies outside is in the outermost bars
    assert right.get_xlabel() == "z of something"
    assert drawn(figure, tmp_path / "calibration.png")


@pytest.mark.parametrize("n_image", [1, 7, 1000])
def test_scale(tmp_path, n_image):
    rng = np.random.default_rng(0)
    image = rng.integers(0, n_image, 3000)
    figure = scale_plot(image, rng.uniform(1.5, 30, 3000), np.exp(0.1 * image % 3))
    assert len(figure.axes[0].lines[0].get_xdata()) == min(n_image, 200)
    assert drawn(figure, tmp_path / "scale.png")


def test_nothing_global_changes():
    before = dict(matplotlib.rcParams)
    calibration_plot(np.random.default_rng(0).normal(size=100), "z")
    assert dict(matplotlib.rcParams) == before
    code = (
        "import pathlib, sys, tempfile; from bayesref.results.plots import calibration_plot, write_plot;"
        "write_plot(calibration_plot([0.0, 1.0], 'z'), pathlib.Path(tempfile.mkdtemp()) / 'a.png');"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


def test_title_counts_pairs():
    rows = {"dmax": [5.0, 4.0, 5.0], "dmin": [4.0, 3.0, 3.0], "pairs": [1000, 1001, 2001]}
    table = pd.DataFrame(rows | {"cchalf": [0.9, 0.8, 0.85], "rsplit": [0.1, 0.2, 0.15]})
    assert "2,001 pairs" in cchalf_plot(table).axes[0].get_title()
