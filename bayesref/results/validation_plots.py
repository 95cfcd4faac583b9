"""Pictures of statistics of several files, one line each: by resolution, by image, reliability, fall-off.

Lines differ in colour and marker (Okabe & Ito's colours, told apart by every eye).
"""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd

from bayesref.results.plots import GREY, _figure, _middle, _resolution_axis, _styled

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = "osD^vPX"


def _looks():
    return zip(cycle(COLOURS), cycle(MARKERS), strict=False)


@_styled
def resolution_plot(tables: Mapping[str, pd.DataFrame], columns: Mapping[str, str], label: str):
    """Statistics by resolution.

    Parameters
    ----------
    tables : {file: table}, each with dmax, dmin and a last row for all
    columns : {column: what it is}; several are told apart by the style of the line
    label : of the vertical axis
    """
    figure, (axis,) = _figure(6.4, 1)
    total = [t.iloc[-1] for t in tables.values()]
    _resolution_axis(axis, max(t["dmax"] for t in total), min(t["dmin"] for t in total))
    for (name, table), (colour, marker) in zip(tables.items(), _looks(), strict=False):
        bins = table.iloc[:-1]
        for (column, what), style in zip(columns.items(), ("-", "--", ":", "-."), strict=False):
            if column not in bins or not np.isfinite(bins[column]).any():
                continue
            text = ", ".join(([name] if len(tables) > 1 else []) + ([what] if len(columns) > 1 else []))
            axis.plot(_middle(bins), bins[column], marker + style, color=colour, ms=5, label=text or what)
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, 0.0), 1.02 if 0.6 < high < 1.06 else high)
    axis.set_ylabel(label)
    axis.grid(axis="y", color="0.92")
    if len(tables) > 1 or len(columns) > 1:
        axis.legend(fontsize=8)
    return figure


@_styled
def image_plot(tables: Mapping[str, pd.DataFrame], cutoff: float | None = None):
    """Correlation by image.

    Parameters
    ----------
    tables : {file: table with image and cc}
    cutoff : a line here
    """
    figure, (left, right) = _figure(8.4, 2)
    right.sharey(left)
    for (name, table), (colour, marker) in zip(tables.items(), _looks(), strict=False):
        many = len(table) > 200
        left.plot(table["image"], table["cc"], marker, color=colour, ms=2 if many else 4, label=name)
        known = np.sort(table["cc"].dropna())
        right.plot(np.arange(1, len(known) + 1) / max(len(known), 1), known, color=colour, label=name)
    for axis in (left, right):
        if cutoff is not None:
            axis.axhline(cutoff, color=GREY, lw=1)
        axis.grid(axis="y", color="0.92")
    left.set(xlabel="image", ylabel="CC of I observed and predicted")
    right.set(xlabel="share of images at or below")
    if len(tables) > 1:
        left.legend(fontsize=8)
    return figure


@_styled
def reliability_plot(z: Mapping[str, np.ndarray]):
    """Share of z inside central intervals of a unit normal against their probability, and the histogram of z."""
    from scipy.stats import norm

    figure, (left, right) = _figure(8.4, 2)
    nominal, grid = np.linspace(0, 1, 101), np.linspace(-5, 5, 201)
    left.plot([0, 1], [0, 1], color=GREY, lw=1)
    right.plot(grid, norm.pdf(grid), color=GREY, lw=1, label="unit normal")
    for (name, values), (colour, _) in zip(z.items(), _looks(), strict=False):
        known = np.asarray(values)[np.isfinite(values)]
        share = np.searchsorted(np.sort(np.abs(known)), norm.ppf(0.5 + 0.5 * nominal)) / max(len(known), 1)
        left.plot(nominal, share, color=colour, lw=2, label=name)
        right.hist(np.clip(known, -5, 5), bins=50, range=(-5, 5), density=True, histtype="step", color=colour,
                   label=f"mean z² {np.mean(known**2):.2f}")  # fmt: skip
    left.set(
        xlabel="probability of the central interval", ylabel="share of z inside", xlim=(0, 1), ylim=(0, 1)
    )
    left.set_aspect("equal")
    left.legend(fontsize=8, loc="upper left")
    right.set(xlabel="(F₁ - F₂)/σ of half datasets", ylabel="density", xlim=(-5, 5))
    right.legend(fontsize=8, loc="upper left")
    return figure


@_styled
def falloff_plot(falls: Mapping[str, object]):
    """ln of mean intensity, or of the ratio to the first file, against s², with the line fitted."""
    figure, (axis,) = _figure(6.4, 1)
    for (name, fall), (colour, marker) in zip(falls.items(), _looks(), strict=False):
        bins, x = fall.bins, fall.bins["stol2"]  # type: ignore[attr-defined]
        B = fall.B  # type: ignore[attr-defined]
        axis.errorbar(
            x, bins["log_ratio"], bins["error"], fmt=marker, color=colour, ms=4, label=f"{name}: {B:.2f} Å²"
        )
        weight = 1 / bins["error"] ** 2
        start = np.average(bins["log_ratio"] + 2 * B * x, weights=weight)
        axis.plot(x, start - 2 * B * x, color=colour, lw=1)
    axis.set(xlabel="s² = 1/(4 d²)  (Å⁻²)", ylabel="ln of intensity")
    axis.legend(fontsize=8)
    return figure
