"""Correlation of two lists, in three ways.

    pearson    r = Σ w (x - ‹x›)(y - ‹y›) / √[Σ w (x - ‹x›)² Σ w (y - ‹y›)²],   w = 1
    spearman   the same of ranks: blind to the scale, and to a few outliers
    weighted   w = 1/σ²:  strong where the data are good

NaN for fewer than three values, or where one of the two does not vary.
"""

from typing import Literal

import numpy as np
from scipy.stats import rankdata

from bayesref.validation.merging import correlation

Method = Literal["pearson", "spearman", "weighted"]


def correlate(x, y, method: Method = "pearson", weight=None) -> float:
    """Correlation of x and y, (n,) each; pairs with a value that is not finite are left out.

    Parameters
    ----------
    weight : (n,) for method 'weighted'
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    known = np.isfinite(x) & np.isfinite(y)
    if method == "weighted":
        known &= np.isfinite(weight)
        return _weighted(x[known], y[known], np.asarray(weight, dtype=float)[known])
    x, y = x[known], y[known]
    return correlation(rankdata(x), rankdata(y)) if method == "spearman" else correlation(x, y)


def _weighted(x, y, w) -> float:
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    dx, dy = x - np.average(x, weights=w), y - np.average(y, weights=w)
    return float(np.sum(w * dx * dy) / np.sqrt(np.sum(w * dx**2) * np.sum(w * dy**2)))
