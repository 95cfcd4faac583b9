"""Pictures of a merge: agreement of halves by resolution, calibration, and the scale.

Axes of resolution are even in 1/d², labelled with d in Å. Figures are made without pyplot, so that importing or
drawing changes no global state; Matplotlib itself is loaded when something is drawn.
"""

from typing import Any

import numpy as np
import pandas as pd

from bayesref.io.atomic import atomic_path

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "0.55"  # Okabe & Ito: told apart by every eye
STYLE: dict[Any, Any] = {
    "font.size": 10, "axes.titlesize": 10, "axes.spines.top": False, "axes.axisbelow": True, "legend.frameon": False,
}  # fmt: skip
Z_SHOWN = 5.0  # histograms end here; what lies beyond is in the outermost bars


def _figure(width: float, n: int):
    """A figure with `n` panels side by side, inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 3.8), layout="constrained")
    return figure, figure.subplots(1, n, squeeze=False)[0]


def _styled(draw):
    """The same function, drawing in our style and leaving Matplotlib's own as it was."""
    from functools import wraps

    @wraps(draw)
    def styled(*args, **kwargs):
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


def resolution_ticks(dmax: float, dmin: float, gap: float = 0.09) -> list[float]:
    """Round values of d between the limits, Å, at least `gap` of the axis from 1/d² = 0 to 1/dmin² apart."""
    fine = (
        [d / 10 for d in range(5, 20)] + [d / 5 for d in range(10, 20)] + [4, 4.5, 5, 6, 7, 8, 10, 15, 20, 50]
    )
    inside = [d for d in fine if dmin * 0.995 <= d <= dmax]
    ticks = [round(dmin, 2)] if not inside else []
    for d in inside:
        if not ticks or dmin**2 * (1 / ticks[-1] ** 2 - 1 / d**2) >= gap:
            ticks.append(float(d))
    return ticks


def _resolution_axis(axis, dmax, dmin):
    ticks = resolution_ticks(dmax, dmin)
    axis.set_xticks([1 / d**2 for d in ticks], [f"{d:g}" for d in ticks])
    axis.set_xlim(0, 1.02 / dmin**2)
    axis.set_xlabel("resolution d (Å)")


def _middle(bins):
    """Middle of each bin in 1/d², Å⁻²."""
    return 0.5 * (1 / bins["dmax"] ** 2 + 1 / bins["dmin"] ** 2)


@_styled
def cchalf_plot(table: pd.DataFrame):
    """CC1/2 and Rsplit by resolution.

    Parameters
    ----------
    table : with columns dmax, dmin, cchalf, rsplit, and a last row for all, as `validation.half_statistics` makes it
    """
    figure, (axis,) = _figure(5.6, 1)
    bins, total = table.iloc[:-1], table.iloc[-1]
    _resolution_axis(axis, total["dmax"], total["dmin"])
    x = _middle(bins)
    axis.plot(x, bins["cchalf"], "o-", color=BLUE)
    axis.set_ylabel("CC1/2 of I  (circles)", color=BLUE)
    axis.set_ylim(min(0.0, _largest(-bins["cchalf"], 0.0) * -1.1), 1.02)
    axis.grid(axis="y", color="0.92")
    other = axis.twinx()
    other.plot(x, bins["rsplit"], "s--", color=ORANGE)
    other.set_ylabel("Rsplit of F  (squares)", color=ORANGE)
    other.set_ylim(0, 1.15 * _largest(bins["rsplit"], 0.1))
    axis.set_title(
        f"Half datasets: CC1/2 {total['cchalf']:.3f}, Rsplit {total['rsplit']:.3f}, {int(total['pairs']):,} pairs"
    )
    return figure


def _largest(x, least: float) -> float:
    """Largest of the known values, and at least `least`."""
    known = np.asarray(x, dtype=float)
    known = known[np.isfinite(known)]
    return max(least, float(known.max())) if len(known) else least


@_styled
def calibration_plot(z, label: str):
    """Coverage of central intervals, and the histogram of z beside the unit normal it should follow.

    Parameters
    ----------
    z : (n,) differences over their expected standard deviation
    label : what z is
    """
    from scipy.stats import norm

    z = np.asarray(z, dtype=float)
    z = z[np.isfinite(z)]
    figure, (left, right) = _figure(8.4, 2)
    nominal = np.linspace(0, 1, 101)
    observed = np.searchsorted(np.sort(np.abs(z)), norm.ppf(0.5 + 0.5 * nominal)) / max(len(z), 1)
    left.plot([0, 1], [0, 1], color=GREY, lw=1, label="ideal")
    left.plot(nominal, observed, color=BLUE, lw=2, label="observed")
    points = np.array([0.5, 0.9])
    shares = [float(np.mean(np.abs(z) < norm.ppf(0.5 + 0.5 * p))) for p in points]
    left.plot(points, shares, "o", color=BLUE)
    text = "\n".join(f"{s:.1%} inside {p:.0%}" for p, s in zip(points, shares, strict=True))
    left.text(0.97, 0.05, text, ha="right", linespacing=1.5)
    left.set(
        xlabel="probability of the central interval", ylabel="share of z inside", xlim=(0, 1), ylim=(0, 1)
    )
    left.set_aspect("equal")
    left.legend(loc="upper left")
    grid = np.linspace(-Z_SHOWN, Z_SHOWN, 201)
    bars = np.histogram(np.clip(z, -Z_SHOWN, Z_SHOWN), bins=50, range=(-Z_SHOWN, Z_SHOWN))[0]
    width = 2 * Z_SHOWN / 50
    right.bar(
        -Z_SHOWN + width * (np.arange(50) + 0.5), bars / max(len(z), 1) / width, width, color=BLUE, alpha=0.45,
        label="observed",
    )  # fmt: skip
    right.plot(grid, norm.pdf(grid), color=ORANGE, lw=2, label="unit normal")
    right.set(xlabel=label, ylabel="density", xlim=(-Z_SHOWN, Z_SHOWN))
    right.set_title(f"mean z² = {np.mean(z**2):.2f}, n = {len(z):,}")
    right.legend(loc="upper left")
    return figure


@_styled
def scale_plot(image, dHKL, K):
    """Scale of the spots by image and by resolution: median, and the span of 80 %.

    Parameters
    ----------
    image : (spot,) number of the image
    dHKL : (spot,) Å
    K : (spot,) scale; shown relative to the median of all
    """
    figure, (left, right) = _figure(8.4, 2)
    left.sharey(right)
    K = np.asarray(K) / np.median(K)
    image, stol = np.asarray(image), 1 / np.asarray(dHKL) ** 2
    by_image = _grouped(image, K, 200)
    _band(left, *by_image)
    left.set_xlabel("image" if len(np.unique(image)) <= 200 else "image (in groups)")
    _band(right, *_grouped(stol, K, 40))
    _resolution_axis(right, stol.min() ** -0.5, stol.max() ** -0.5)
    left.set_ylabel("scale K, relative to its median")
    right.set_title("line: median; band: 80 % of the spots", loc="right")
    return figure


def _grouped(x, y, n):
    """Mean of x, and quantiles 10, 50, 90 % of y, in groups of equal values or, if they are many, of equal numbers."""
    values, index = np.unique(x, return_inverse=True)
    order = np.argsort(x, kind="stable")
    group = index[order] if len(values) <= n else np.arange(len(x)) * n // len(x)
    parts = np.split(order, np.flatnonzero(np.diff(group)) + 1)
    return np.array([x[p].mean() for p in parts]), np.array(
        [np.quantile(y[p], [0.1, 0.5, 0.9]) for p in parts]
    ).T


def _band(axis, x, quantiles):
    from matplotlib.ticker import LogLocator, NullLocator

    low, middle, high = quantiles
    axis.fill_between(x, low, high, color=BLUE, alpha=0.2, lw=0)
    axis.plot(x, middle, color=BLUE)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(
        LogLocator(subs=(1, 2, 3, 5, 7) if high.max() < 30 * low.min() else (1, 2, 5))
    )
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(NullLocator())
    axis.grid(axis="y", color="0.92")


def write_plot(figure, path) -> None:
    """PNG, atomically.

    Raises
    ------
    InputError : the file cannot be written
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
