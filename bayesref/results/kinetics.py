"""Files of a kinetic analysis.

rates.csv           each parameter: mean, sd, median, 90 % highest-density interval
occupancies.csv     each delay and state: by the scheme, and unrestrained
kinetics.png        occupancies over time with 90 % bands, beside unrestrained ones
rates.png           posterior of each rate, and of pairs
posterior.nc        draws (ArviZ reads it), with coordinates delay and state
run.json            options, evidence, comparison of schemes, notes
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bayesref.io.atomic import atomic_path
from bayesref.results.inference_data import write_posterior
from bayesref.results.plots import BLUE, GREY, ORANGE, _styled

COLOURS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", GREY)
MASS = 0.9


def interval(x: np.ndarray, mass: float = MASS) -> tuple[float, float]:
    """Shortest interval that holds `mass` of the draws."""
    x = np.sort(np.asarray(x, dtype=float))
    n = max(1, int(np.ceil(mass * len(x))))
    if n >= len(x):
        return float(x[0]), float(x[-1])
    width = x[n:] - x[: len(x) - n]
    i = int(width.argmin())
    return float(x[i]), float(x[i + n])


def parameter_table(sites: dict[str, torch.Tensor]) -> pd.DataFrame:
    """A row for each number among the sites: mean, sd, median, low, high; rates first, as 1/s."""
    rows = []
    for name, x in sites.items():
        if x[0].numel() == 1:
            v = x.reshape(-1).numpy()
            low, high = interval(np.log(v)) if name.startswith("k ") else interval(v)
            if name.startswith("k "):  # shortest in log k: a rate is known to a factor
                low, high = float(np.exp(low)), float(np.exp(high))
            row = {"parameter": name, "mean": v.mean(), "sd": v.std(), "median": np.median(v)}
            rows.append(row | {"low": low, "high": high})
    return pd.DataFrame(rows)


def occupancy_table(t, names, kinds: dict[str, torch.Tensor]) -> pd.DataFrame:
    """A row for each kind of model, delay and state, from occupancies {kind: (draw, time, state)}."""
    rows = []
    for kind, o in kinds.items():
        for i, delay in enumerate(t.tolist()):
            for j, state in enumerate(names):
                x = o[:, i, j].numpy()
                low, high = interval(x)
                rows.append(
                    {
                        "model": kind,
                        "delay": delay,
                        "state": state,
                        "mean": x.mean(),
                        "sd": x.std(),
                        "low": low,
                        "high": high,
                    }
                )
    return pd.DataFrame(rows)


@_styled
def plot_occupancies(t, names, curve_t, curve, points, path) -> None:
    """Bands of the scheme's occupancies (draw, curve time, state); points of unrestrained ones (draw, time, state)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    t = np.asarray(t)
    for j, (state, colour) in enumerate(zip(names, COLOURS * 3, strict=False)):
        low, high = np.quantile(curve[:, :, j], [0.05, 0.95], axis=0)
        axis.fill_between(curve_t, low, high, color=colour, alpha=0.25, lw=0)
        axis.plot(curve_t, np.median(curve[:, :, j], axis=0), color=colour, label=state)
        if points is not None:
            x = points[:, :, j].numpy()
            ends = np.array([interval(x[:, i]) for i in range(len(t))]).T
            middle = np.median(x, axis=0)
            at = t * (1 + 0.04 * (j - 0.5 * (len(names) - 1)))  # side by side
            bars = np.abs(ends - middle)
            axis.errorbar(at, middle, bars, fmt="o", ms=4, lw=1, color=colour, mec="white", mew=0.5)
    title = "scheme: median and 90 % band" + ("; points: no scheme, 90 %" if points is not None else "")
    axis.set(xscale="log", xlabel="delay (s)", ylabel="occupancy", ylim=(-0.02, 1.02), title=title)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


@_styled
def plot_rates(sites: dict[str, torch.Tensor], path) -> None:
    """Histograms of the rates and of α, and scatter of each pair."""
    from matplotlib.figure import Figure

    columns = {k: np.log10(x.numpy()) for k, x in sites.items() if k.startswith("k ")}
    if "activation" in sites:
        columns["activation"] = sites["activation"].numpy()
    n = len(columns)
    figure = Figure(figsize=(2.6 * n + 0.6, 2.4 * n + 0.4), layout="constrained")
    axes = figure.subplots(n, n, squeeze=False)
    labels = {k: f"log₁₀ {k} (1/s)" if k.startswith("k ") else k for k in columns}
    for i, (a, x) in enumerate(columns.items()):
        for j, (b, y) in enumerate(columns.items()):
            axis = axes[i][j]
            if j > i:
                axis.set_axis_off()
            elif i == j:
                axis.hist(x, 30, color=BLUE, alpha=0.7)
                axis.set_yticks([])
            else:
                axis.plot(y, x, ".", ms=2, color=BLUE, alpha=0.5)
            if i == n - 1:
                axis.set_xlabel(labels[b])
            if j == 0 and i > 0:
                axis.set_ylabel(labels[a])
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def write_kinetics(
    posterior, free, kinetics, series, curve_t, curve, out: Path
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables, pictures and draws; returns the tables of parameters and of occupancies.

    Parameters
    ----------
    posterior : SmallPosterior of the scheme; `free` that of unrestrained occupancies, or None
    curve_t, curve : delays (n,) and occupancies (draw, n, state) between the measured ones
    """
    names = kinetics.occupied
    kinds = {"scheme": posterior.sites["occupancy"]}
    if free is not None:
        kinds["unrestrained"] = free.sites["occupancy"]
    rates, occupancies = parameter_table(posterior.sites), occupancy_table(series.t, names, kinds)
    for name, frame in (("rates", rates), ("occupancies", occupancies)):
        with atomic_path(out / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False)
    plot_occupancies(series.t, names, curve_t, curve, kinds.get("unrestrained"), out / "kinetics.png")
    plot_rates(posterior.sites, out / "rates.png")
    write_posterior({"posterior": _dataset(posterior, series, names, kinetics.ground)}, out / "posterior.nc")
    return rates, occupancies


def _dataset(posterior, series, names, dark):
    import xarray

    variables = {}
    for name, x in posterior.sites.items():
        dims = (
            ("delay", "state") if name == "occupancy" else tuple(f"{name}_dim_{i}" for i in range(x.ndim - 1))
        )
        variables[name.replace(" ", "_").replace("->", "_to_")] = (("chain", "draw", *dims), x.numpy()[None])
    coordinates = {"delay": series.t.numpy(), "state": list(names)}
    attributes = {"log_evidence": posterior.log_evidence, "dark": dark}
    return xarray.Dataset(variables, coords=coordinates, attrs=attributes)


def log_times(t, n: int = 80) -> np.ndarray:
    """Delays between the first and the last measured, even in their logarithm, half a decade beyond each."""
    positive = np.asarray(t)[np.asarray(t) > 0]
    return np.geomspace(positive.min() / 3, positive.max() * 3, n)
