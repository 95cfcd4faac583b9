"""N(|L|), the share of pairs of neighbours whose |L| is at most so large: a straight line, of a twin an arch."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from bayesref.results.plots import GREY, _figure, _styled
from bayesref.results.validation_plots import _looks


@_styled
def l_plot(curves: Mapping[str, pd.DataFrame]):
    """Of several sets of data.

    Parameters
    ----------
    curves : {name: table with L, data, untwinned and perfect twin}
    """
    figure, (axis,) = _figure(4.8, 1)
    first = next(iter(curves.values()))
    axis.plot(first["L"], first["untwinned"], color=GREY, lw=1, label="untwinned")
    axis.plot(first["L"], first["perfect twin"], "--", color=GREY, lw=1, label="perfect twin")
    for (name, curve), (colour, _) in zip(curves.items(), _looks(), strict=False):
        axis.plot(curve["L"], curve["data"], color=colour, label=name)
    axis.set(xlabel="|L|", ylabel="N(|L|)", xlim=(0, 1), ylim=(0, 1.02))
    axis.legend(fontsize=8)
    return figure


def l_curve(cumulative) -> pd.DataFrame:
    """N(|L|) of the data at equal steps from 0 to 1, of untwinned crystals, and of perfect twins."""
    x = np.linspace(0, 1, len(cumulative))
    return pd.DataFrame({"L": x, "data": cumulative, "untwinned": x, "perfect twin": 0.5 * x * (3 - x**2)})
