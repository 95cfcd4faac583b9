"""Observed and predicted intensities of spots, from predictions files: by resolution and by image.

    CCpred = correlation of I and Ipred,   weighted: w = 1/SIGI²

A spot with `test` = 1 was held out of the fit. An image whose spots disagree with their predictions (another lattice, a
misindexed pattern) is better left out of the next merge.
"""

import numpy as np
import pandas as pd

from bayesref.io.result_mtz import ResultTable
from bayesref.validation.correlation import Method, correlate
from bayesref.validation.counts import bins_of
from bayesref.validation.merging import by_bin


def prediction_correlation(table: ResultTable, limits, method: Method = "pearson") -> pd.DataFrame:
    """CC of fitted and of held-out spots by resolution: spots, cc_fitted, held_out, ccpred; the last row is for all."""
    data = table.data
    out = data["test"].to_numpy() > 0 if "test" in data else np.zeros(len(data), dtype=bool)
    I, I_pred, weight = (data[k].to_numpy() for k in ("I", "Ipred", "SIGI"))
    weight = 1 / weight**2

    def cc(mine):
        return correlate(I[mine], I_pred[mine], method, weight[mine])

    def row(mine):
        figures = {"spots": int((mine & ~out).sum()), "cc_fitted": cc(mine & ~out)}
        return figures | {"held_out": int((mine & out).sum()), "ccpred": cc(mine & out)}

    return by_bin(limits, bins_of(data["d"], limits), row)


def image_correlation(table: ResultTable, method: Method = "pearson") -> pd.DataFrame:
    """CC of I and Ipred of each image, and further means where the file has them.

    Returns
    -------
    Table with image, spots, cc, and z2 and blank (mean probability).
    """
    rows = []
    for image, g in table.data.groupby("BATCH", sort=True):
        cc = correlate(g["I"], g["Ipred"], method, 1 / g["SIGI"].to_numpy() ** 2)
        row = {"image": int(image), "spots": len(g), "cc": cc}
        row |= {"z2": float((g["z"] ** 2).mean())} if "z" in g else {}
        rows.append(row | ({"blank": float(g["blank"].mean())} if "blank" in g else {}))
    return pd.DataFrame(rows)


def images_below(table: ResultTable, cutoff: float, method: Method = "pearson") -> np.ndarray:
    """Numbers of the images whose CC is below `cutoff` or unknown (too few spots)."""
    images = image_correlation(table, method)
    return images["image"].to_numpy()[~(images["cc"].to_numpy() >= cutoff)]
