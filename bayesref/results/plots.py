"""Pictures of a merge: agreement of halves by resolution, and calibration.

Axes of resolution are even in 1/d², labelled with d in Å. Figures are made without pyplot, so that importing or
drawing changes no global state.
"""

import numpy as np
from matplotlib.figure import Figure

from bayesref.io.atomic import atomic_path

BLUE, ORANGE = "#0072b2", "#d55e00"  # Okabe & Ito: told apart by every eye


def _resolution_axis(axis, table):
    x = 1 / table["dmin"] ** 2
    axis.set_xticks(x, [f"{d:.2f}" for d in table["dmin"]], rotation=45)
    axis.set_xlabel("resolution d (Å)")
    return x


def cchalf_plot(table) -> Figure:
    """CC1/2 and Rsplit by resolution, from `half_statistics`."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.add_subplot()
    bins = table.iloc[:-1]
    x = _resolution_axis(axis, bins)
    axis.plot(x, bins["cchalf"], "o-", color=BLUE)
    axis.set_ylabel("CC1/2", color=BLUE)
    axis.set_ylim(min(0.0, float(np.nanmin(bins["cchalf"]))), 1.02)
    other = axis.twinx()
    other.plot(x, bins["rsplit"], "s--", color=ORANGE)
    other.set_ylabel("Rsplit", color=ORANGE)
    other.set_ylim(0, 1.1 * float(np.nanmax(bins["rsplit"])))
    last = table.iloc[-1]
    axis.set_title(f"Half datasets: CC1/2 {last['cchalf']:.3f}, Rsplit {last['rsplit']:.3f}")
    return figure


def calibration_plot(z, label: str) -> Figure:
    """Coverage of central intervals, and the histogram of z beside the unit normal it should follow.

    Parameters
    ----------
    z : (n,) differences over their expected standard deviation
    label : what z is
    """
    from scipy.stats import norm

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    nominal = np.linspace(0.01, 0.99, 99)
    observed = [np.mean(np.abs(z) < norm.ppf(0.5 + p / 2)) for p in nominal]
    left.plot([0, 1], [0, 1], color="0.6", lw=1, label="ideal")
    left.plot(nominal, observed, color=BLUE, label="observed")
    left.set(xlabel="nominal coverage", ylabel="observed coverage", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    left.legend(frameon=False)
    grid = np.linspace(-5, 5, 201)
    right.hist(np.clip(z, -5, 5), bins=50, range=(-5, 5), density=True, color=BLUE, alpha=0.5)
    right.plot(grid, norm.pdf(grid), color=ORANGE, label="unit normal")
    right.set(xlabel=label, ylabel="density")
    right.set_title(f"mean z² = {np.mean(z**2):.2f}, n = {len(z):,}")
    right.legend(frameon=False)
    return figure


def write_plot(figure: Figure, path) -> None:
    """PNG, atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
