"""Fall-off of intensities with resolution: of one file, and of one file relative to another.

    ln ⟨I/ε⟩    = const - 2 B s²          bins of s², each with its standard error       Wilson (1942), Nature 150, 152
    ln ⟨I₂⟩/⟨I₁⟩ = const - 2 ΔB s²         reflections in both files                      s² = 1/(4 d²), Å⁻²

B of amplitudes, Å². Amplitudes that this package merges are flat (B = 0): only ΔB between files that were scaled
together means something. The fit is weighted least squares of ten or more bins.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bayesref.crystal.symmetry import epsilon
from bayesref.io.result_mtz import ResultTable

INDICES = ["H", "K", "L"]


@dataclass(frozen=True)
class FallOff:
    """B and its standard error, Å²; `bins` has stol2, log_ratio, error and n of each bin."""

    B: float
    error: float
    bins: pd.DataFrame


def mean_intensities(table: ResultTable) -> pd.DataFrame:
    """I/ε and d of each unique reflection; several spots of one are averaged."""
    data = table.data
    if "I" not in data:
        data = data.assign(I=data[["I(+)", "I(-)"]].mean(axis=1))
    data = data.assign(I=data["I"] / epsilon(data[INDICES], table.spacegroup))
    return data.groupby(INDICES)[["I", "d"]].mean()


def wilson_b(table: ResultTable, n_bins: int = 20) -> FallOff:
    """B of one file from the mean intensity of each bin; the error of a mean is its scatter."""
    data = mean_intensities(table).dropna()
    groups = _groups(data, n_bins)
    means = [
        (g["d"], g["I"].mean(), g["I"].std() / np.sqrt(len(g)) / abs(g["I"].mean()), len(g)) for g in groups
    ]
    return _slope([(0.25 * np.mean(d**-2.0), m, e, n) for d, m, e, n in means if m > 0 and e > 0])


def relative_b(table: ResultTable, reference: ResultTable, n_bins: int = 20) -> FallOff:
    """B of `table` above that of `reference`, from the reflections that both have."""
    both = mean_intensities(table).join(mean_intensities(reference)["I"].rename("R"), how="inner").dropna()
    rows = []
    for g in _groups(both, n_bins):
        ratio = g["I"].mean() / g["R"].mean()
        # The same reflections stand above and below, so that only their differences scatter.
        error = (g["I"] - ratio * g["R"]).std() / np.sqrt(len(g)) / abs(g["I"].mean())
        if ratio > 0:
            rows.append((0.25 * (g["d"] ** -2.0).mean(), ratio, max(error, 1e-9), len(g)))
    return _slope(rows)


def _groups(data, n_bins):
    """Bins of equal numbers by resolution, three reflections in each or more."""
    data = data.sort_values("d", ascending=False)
    n_bins = max(min(n_bins, len(data) // 3), 1)
    return [data.iloc[rows] for rows in np.array_split(np.arange(len(data)), n_bins)]


def _slope(rows) -> FallOff:
    bins = pd.DataFrame(rows, columns=["stol2", "ratio", "error", "n"])
    bins = bins.assign(log_ratio=np.log(bins["ratio"].astype(float)))
    if len(bins) < 3:
        return FallOff(np.nan, np.nan, bins)
    x, y, w = bins["stol2"], bins["log_ratio"], 1 / bins["error"] ** 2
    A = np.stack([np.ones(len(x)), -2 * x], axis=1)
    C = np.linalg.inv(A.T @ (A * w.to_numpy()[:, None]))
    _, B = C @ (A.T @ (w * y))
    # Bins scatter by more than counting says: Wilson's law is a mean over many structures.
    chi2 = float(np.sum(w * (y - A @ (C @ (A.T @ (w * y)))) ** 2)) / (len(x) - 2)
    return FallOff(float(B), float(np.sqrt(C[1, 1] * max(chi2, 1.0))), bins)
