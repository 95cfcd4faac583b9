"""Files of a difference.

difference.mtz        F, SIGF of both on the dark scale, DF SIGDF as measured, WDF SIGWDF the posterior of Δ∥, PHIC
                      FOM of the dark model, FDIFF PHDIFF the coefficients of the mean map, and where a share was given
                      FEXT SIGFEXT, FEXTWT PHEXTWT (2 m F_ext - D F_c)
difference.ccp4       mean map                difference_sd.ccp4     its standard deviation
probability.ccp4      P(Δρ > k s) - P(Δρ < -k s)
peaks.csv             features, with the probability that they exceed k s, and the nearest atom
difference.png        heights of the features with their 90 % intervals, and the differences against their errors
"""

from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import torch

from bayesref.io.atomic import atomic_path
from bayesref.results.plots import BLUE, GREY, ORANGE, _figure, _resolution_axis, _styled


def write_difference_mtz(asu, columns: dict[tuple[str, str], torch.Tensor], path: str | Path) -> None:
    """Columns {(label, type): (hkl,)} as an MTZ; what is not finite is written as missing."""
    mtz = gemmi.Mtz(with_base=True)
    mtz.spacegroup = asu.spacegroup
    mtz.add_dataset("bayesref")
    mtz.set_cell_for_all(asu.cell)
    for label, kind in columns:
        mtz.add_column(label, kind)
    table = np.column_stack([asu.hkl.numpy(), *(x.numpy() for x in columns.values())]).astype(np.float32)
    table[~np.isfinite(table)] = np.nan
    mtz.set_data(table)
    mtz.history = ["Written by bayesref maps; amplitudes on the scale of the dark data"]
    with atomic_path(path) as temporary:
        mtz.write_to_file(str(temporary))


def write_map(grid: gemmi.FloatGrid, values: np.ndarray, path: str | Path) -> None:
    """Values on the points of a grid as a CCP4 map of one cell."""
    copy = gemmi.FloatGrid(np.ascontiguousarray(values, dtype=np.float32))
    copy.set_unit_cell(grid.unit_cell)
    copy.spacegroup = grid.spacegroup
    ccp4 = gemmi.Ccp4Map()
    ccp4.grid = copy
    ccp4.update_ccp4_header()
    with atomic_path(path) as temporary:
        ccp4.write_ccp4_map(str(temporary))


FEATURE = ["height", "sd", "probability", "density", "x", "y", "z", "atom", "distance"]


def peak_table(peaks, rms: float, k: float) -> pd.DataFrame:
    """A row for each feature: height and sd in units of s, probability of more than k s, place, nearest atom."""
    from scipy.special import ndtr

    rows = []
    for p in peaks:
        height, sd = p.height / rms, p.sd / rms
        rows.append({
            "height": height, "sd": sd, "probability": float(ndtr((abs(height) - k) / sd)), "density": p.height,
            "x": p.frac[0], "y": p.frac[1], "z": p.frac[2], "atom": p.atom, "distance": p.distance,
        })  # fmt: skip
    return pd.DataFrame(rows, columns=FEATURE)


@_styled
def plot_difference(table: pd.DataFrame, difference, k: float, path: str | Path, most: int = 25) -> None:
    """Features from the highest down, and |d|/σ by resolution beside what noise alone would give."""
    figure, (left, right) = _figure(11, 2)
    rows = table.head(most).iloc[::-1]
    at = np.arange(len(rows))
    colours = [BLUE if h > 0 else ORANGE for h in rows["height"]]
    left.hlines(at, rows["height"] - 1.645 * rows["sd"], rows["height"] + 1.645 * rows["sd"], color=colours)
    left.scatter(rows["height"], at, c=colours, s=14)
    labels = [f"{a} {d:.1f} Å" for a, d in zip(rows["atom"], rows["distance"], strict=True)]
    left.set_yticks(at, labels, fontsize=6)
    for x in (-k, k):
        left.axvline(x, color=GREY, lw=0.8, ls=":")
    left.set_xlabel("height in root mean squares of the map, with its 90 % interval")
    left.set_title("features and the atom next to them")
    good = torch.isfinite(difference.sigma) & ~difference.far
    s2 = difference.asu.stol2[good]
    ratio = ((difference.d / difference.sigma)[good] ** 2).numpy()
    signal = (difference.v[good] / difference.sigma[good] ** 2 + 1).numpy()
    order = s2.argsort().tensor_split(15)
    d_star2 = [4 * float(s2[rows].mean()) for rows in order]
    right.plot(d_star2, [np.sqrt(ratio[rows].mean()) for rows in order], "o", color=BLUE, label="measured")
    right.plot(
        d_star2, [np.sqrt(signal[rows].mean()) for rows in order], color=ORANGE, label="prior and noise"
    )
    right.axhline(1, color=GREY, lw=0.8, ls=":", label="noise alone")
    shown = difference.asu.dHKL[good]
    _resolution_axis(right, float(shown.max()), float(shown.min()))
    right.set_ylabel("root mean square of ΔF/σ")
    right.set_ylim(bottom=0)
    right.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
