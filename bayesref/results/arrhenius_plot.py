"""arrhenius.png: rates over 1/T.

    band      what the law makes of all experiments together, median and 90 %
    points    rates of each experiment: by itself (filled), or its own in the fit of all (open), 90 %

Points that keep off the band say that the law does not hold.
"""

import numpy as np
import torch

from bayesref.io.atomic import atomic_path
from bayesref.results.kinetics_plots import COLOURS
from bayesref.results.plots import _styled
from bayesref.results.statistics import interval

BEYOND = 0.15  # of the span of 1/T, on both sides


@_styled
def plot_arrhenius(links, values: dict[str, torch.Tensor], separate, path) -> None:
    """Rates (1/s, logarithmic) over 1000/T, with T above.

    Parameters
    ----------
    links : RateLinks with temperatures
    values : draws (draw,) or numbers of the fit of all experiments, "k A->B", "Ea A->B", ...
    separate : draws of each experiment's own fit, {"k A->B": (draw,)}, ..., or nothing
    """
    from matplotlib.figure import Figure

    T = np.array(links.temperatures)
    span = 1 / T.min() - 1 / T.max()
    x = np.linspace(1 / T.max() - BEYOND * span, 1 / T.min() + BEYOND * span, 60)
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axis = figure.subplots()
    for j, (name, colour) in enumerate(zip(links.rates, COLOURS * 3, strict=False)):
        if name in links.common:
            low, middle, high = _quantiles(_over(links, name, values, 1 / x))
            axis.fill_between(1e3 * x, low, high, color=colour, alpha=0.25, lw=0)
            axis.plot(1e3 * x, middle, color=colour, label=name)
        aside = (
            1e3 * 0.008 * span * (j - 0.5 * (len(links.rates) - 1))
        )  # so that reactions do not hide one another
        for i, e in enumerate(links.experiments):
            if name in links.own:
                _point(
                    axis,
                    1e3 / T[i] + aside,
                    values[f"k {name} {e}"],
                    colour,
                    "white",
                    name if not i else None,
                )
            if separate and f"k {name}" in separate[i]:
                shift = 3 * aside if name in links.own else aside
                _point(axis, 1e3 / T[i] + shift, separate[i][f"k {name}"], colour, colour, None)
    axis.set(yscale="log", xlabel="1000 / T (1/K)", ylabel="rate (1/s)")
    above = axis.secondary_xaxis("top", functions=(_inverse, _inverse))
    above.set_xticks(sorted(set(T.tolist())), [f"{t:g} K" for t in sorted(set(T.tolist()))])
    axis.legend(loc="best", title="points: each by itself" if separate else None)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _inverse(x):
    return 1e3 / np.maximum(x, 1e-9)


def _over(links, name, values, T):
    """Draws of a rate at temperatures, (draw, T)."""
    k = torch.as_tensor(values[f"k {name}"]).reshape(-1, 1)
    if name not in links.activated:
        return k.expand(-1, len(T)).numpy()
    slope = torch.as_tensor(values[f"{links.slope} {name}"]).reshape(-1, 1)
    numbers = {f"k {name}": k, f"{links.slope} {name}": slope}
    return links.at(name, numbers, torch.from_numpy(T)).numpy()


def _quantiles(k):
    return np.quantile(k, [0.05, 0.5, 0.95], axis=0)


def _point(axis, x, k, edge, face, label):
    k = torch.as_tensor(k).reshape(-1).numpy()
    middle = np.median(k)
    low, high = np.exp(interval(np.log(k)))
    bars = [[middle - low], [high - middle]]
    axis.errorbar(x, middle, bars, fmt="o", ms=5, lw=1, color=edge, mfc=face, mec=edge, label=label)
