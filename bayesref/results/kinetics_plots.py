"""Pictures of a kinetic analysis.

kinetics.png      occupancies over time with 90 % bands, beside unrestrained ones
rates.png         posterior of each rate, and of pairs
scheme.png        states and reactions, with their rates
predictive.png    size of the difference at each delay, measured and as the model would give it
"""

import numpy as np
import torch

from bayesref.io.atomic import atomic_path
from bayesref.results.plots import BLUE, GREY, ORANGE, _styled
from bayesref.results.statistics import interval

COLOURS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", GREY)


@_styled
def plot_occupancies(t, names, curve, points, path) -> None:
    """Bands of a scheme, (delays, (draw, delay, state)), or None; points without one, (draw, time, state), or None."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.set(title=occupancy_panel(axis, t, names, curve, points))
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


@_styled
def plot_panels(names, panels, path) -> None:
    """As `plot_occupancies`, a panel for each experiment: (title, t, curve, points)."""
    from matplotlib.figure import Figure

    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(10.5, 3.2 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False, sharey=True).ravel()
    for axis, (title, t, curve, points) in zip(axes, panels, strict=False):
        shown = occupancy_panel(axis, t, names, curve, points)
        axis.set(title=title)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.suptitle(shown, fontsize="medium")
    axes[0].legend(loc="best")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def occupancy_panel(axis, t, names, curve, points) -> str:
    """Occupancies over time on an axis; returns what it shows."""
    t = np.asarray(t)
    for j, (state, colour) in enumerate(zip(names, COLOURS * 3, strict=False)):
        label = state
        if curve is not None:
            low, high = np.quantile(curve[1][:, :, j], [0.05, 0.95], axis=0)
            axis.fill_between(curve[0], low, high, color=colour, alpha=0.25, lw=0)
            axis.plot(curve[0], np.median(curve[1][:, :, j], axis=0), color=colour, label=state)
            label = None
        if points is not None:
            x = points[:, :, j].numpy()
            ends = np.array([interval(x[:, i]) for i in range(len(t))]).T
            middle = np.median(x, axis=0)
            at = t * (1 + 0.04 * (j - 0.5 * (len(names) - 1)))  # side by side
            bars = np.abs(ends - middle)
            axis.errorbar(
                at, middle, bars, fmt="o", ms=4, lw=1, color=colour, mec="white", mew=0.5, label=label
            )
    parts = [
        curve is not None and "scheme: median and 90 % band",
        points is not None and "points: no scheme, 90 %",
    ]
    if curve is None and len(t) == 1:
        axis.set_xlim(t[0] / 4, 4 * t[0])
    axis.set(xscale="log", xlabel="delay (s)", ylabel="occupancy", ylim=(-0.02, 1.02))
    return "; ".join(p for p in parts if p)


@_styled
def plot_rates(sites: dict[str, torch.Tensor], path) -> None:
    """Histograms of the rates, of what they depend on temperature by, and of α, and scatter of each pair."""
    from matplotlib.figure import Figure

    columns = {k: np.log10(x.numpy()) for k, x in sites.items() if k.startswith("k ")}
    columns |= {k: x.numpy() for k, x in sites.items() if k == "activation" or k.startswith(("Ea ", "dH "))}
    n = len(columns)
    figure = Figure(figsize=(2.6 * n + 0.6, 2.4 * n + 0.4), layout="constrained")
    axes = figure.subplots(n, n, squeeze=False)
    labels = {k: f"{k} (kJ/mol)" if " " in k else k for k in columns}
    labels |= {k: f"log₁₀ {k} (1/s)" for k in columns if k.startswith("k ")}
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


def _plain(x: float) -> str:
    """Three digits, without an exponent where one can read it so."""
    return f"{float(f'{x:.3g}'):,.0f}" if 100 <= x < 1e6 else f"{x:.3g}"


@_styled
def plot_scheme(kinetics, rates, path) -> None:
    """States on a circle, an arrow for each reaction with its median rate and 90 % interval."""
    from matplotlib.figure import Figure

    states = kinetics.states
    angle = np.pi / 2 - 2 * np.pi * np.arange(len(states)) / len(states)
    at = {s: np.array([np.cos(a), np.sin(a)]) for s, a in zip(states, angle, strict=True)}
    colour = dict(zip(kinetics.occupied, COLOURS * 3, strict=False))
    table = rates.set_index("parameter")
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axis = figure.subplots()
    for name in kinetics.rates:
        source, target = name.split("->")
        a, b = at[source], at[target]
        style = {
            "arrowstyle": "-|>",
            "shrinkA": 24,
            "shrinkB": 24,
            "connectionstyle": "arc3,rad=-0.2",
            "lw": 1.5,
        }
        axis.annotate("", tuple(b), tuple(a), arrowprops={**style, "color": "0.3"})
        across = np.array([-(b - a)[1], (b - a)[0]])
        middle = 0.5 * (a + b) + 0.2 * across
        text = name
        if f"k {name}" in table.index:
            row = table.loc[f"k {name}"]
            middle_k, low, high = (_plain(row[c]) for c in ("median", "low", "high"))
            text = f"{middle_k}/s\n({low} to {high})"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axis.text(middle[0], middle[1], text, ha="center", va="center", fontsize=9, bbox=box)
    for s in states:
        shown = kinetics.structures[s]
        face = colour.get(shown, "white")
        axis.scatter(at[s][0], at[s][1], s=1300, color=face, edgecolor="0.3", zorder=3)
        axis.text(
            at[s][0],
            at[s][1],
            s,
            ha="center",
            va="center",
            color="white" if shown else "k",
            zorder=4,
            fontsize=12,
        )
    axis.set(xlim=(-1.8, 1.8), ylim=(-1.5, 1.5), aspect="equal")
    axis.set_axis_off()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


@_styled
def plot_predictive(checks, path) -> None:
    """Root mean square of ΔF/σ at each delay: measured, and the 90 % interval of replicates."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axis = figure.subplots()
    at = np.arange(len(checks))
    axis.vlines(at, [r["low"] for r in checks], [r["high"] for r in checks], color=BLUE, lw=5, alpha=0.5,
                label="model, 90 %")  # fmt: skip
    axis.plot(at, [r["observed"] for r in checks], "o", color=ORANGE, label="measured")
    axis.set_xticks(at, [f"{r['delay']:g}" for r in checks], rotation=30)
    axis.set(xlabel="delay (s)", ylabel="root mean square of ΔF/σ", xlim=(-0.6, len(checks) - 0.4))
    axis.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
