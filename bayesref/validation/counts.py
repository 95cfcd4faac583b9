"""What was measured of what could have been, from a merged file.

    completeness = unique reflections measured / possible,    multiplicity = spots / unique reflections measured

Possible are all reflections of the asymmetric unit that are not systematically absent, within the limits of
resolution. Friedel mates count as one reflection; apart, an acentric reflection is complete where both mates were
measured (`anomalous`), and its multiplicity is spots per mate measured.
"""

from collections.abc import Sequence

import gemmi
import numpy as np
import pandas as pd

from bayesref._checks import InputError
from bayesref.crystal.lattice import check_resolution
from bayesref.crystal.symmetry import is_centric
from bayesref.io.result_mtz import ResultTable
from bayesref.validation.merging import bin_of, by_bin, resolution_bins


def possible_reflections(table: ResultTable, dmax: float | None = None, dmin: float | None = None):
    """Indices (n, 3) and resolution (n,) Å of all reflections between the limits; None: those of the data."""
    d = table.data["d"]
    # A hair of room at both ends, so that rounding does not lose the outermost reflections.
    low, high = (d.min() - 1e-5 if dmin is None else dmin), (d.max() + 1e-4 if dmax is None else dmax)
    if dmin is not None:
        check_resolution(table.cell, table.spacegroup, dmin)
    hkl = gemmi.make_miller_array(table.cell, table.spacegroup, low, high, unique=True)
    return hkl, np.asarray(table.cell.calculate_d_array(hkl))


def shared_limits(d: Sequence[np.ndarray], n_bins: int) -> list[tuple[float, float]]:
    """Limits (dmax, dmin) of bins of equal numbers over all lists together, so that files compare bin by bin."""
    every = np.concatenate(d)
    if n_bins > len(every):
        raise InputError(
            f"{n_bins} bins are more than the {len(every)} rows to put into them; give fewer --bins."
        )
    return resolution_bins(every, n_bins)[1]


def bins_of(d, limits) -> np.ndarray:
    """Bin of each reflection."""
    return bin_of(np.asarray(d), np.array([x for x, _ in limits] + [limits[-1][1]]))


def completeness_table(table: ResultTable, limits, dmax=None, dmin=None) -> pd.DataFrame:
    """Completeness and multiplicity by resolution, with a last row for all.

    Returns
    -------
    Table with dmax, dmin, reflections, possible, completeness, multiplicity; with Friedel mates apart also
    anomalous (completeness) and mate_multiplicity.
    """
    hkl, d_possible = possible_reflections(table, dmax, dmin)
    data = table.data
    inside = (data["d"] >= d_possible.min() - 1e-4) & (data["d"] <= d_possible.max() + 1e-3)
    data = data[inside & (_spots(table, data) > 0)]
    n, plus, minus = _spots(table, data), *(_side(data, s) for s in ("(+)", "(-)"))
    centric, centric_possible = (is_centric(x, table.spacegroup) for x in (data[["H", "K", "L"]], hkl))
    row_bins, possible_bins = bins_of(data["d"], limits), bins_of(d_possible, limits)
    n_rows = len(data)

    def row(mine):
        rows, others = mine[:n_rows], mine[n_rows:]
        count, possible = int(rows.sum()), int(others.sum())
        figures: dict[str, float] = {"reflections": count, "possible": possible}
        figures |= {"completeness": _ratio(count, possible), "multiplicity": _ratio(n[rows].sum(), count)}
        if table.anomalous:
            acentric = rows & ~centric
            pairs = int((acentric & (plus > 0) & (minus > 0)).sum())
            mates = int((acentric & (plus > 0)).sum() + (acentric & (minus > 0)).sum())
            figures["anomalous"] = _ratio(pairs, int((others & ~centric_possible).sum()))
            figures["mate_multiplicity"] = _ratio((plus + minus)[acentric].sum(), mates)
        return figures

    return by_bin(limits, np.concatenate([row_bins, possible_bins]), row)


def _spots(table, data) -> np.ndarray:
    """Spots of each reflection; of both mates where only those are counted, centric ones once."""
    if "N" in data:
        return data["N"].to_numpy()
    centric = is_centric(data[["H", "K", "L"]], table.spacegroup)
    return _side(data, "(+)") + np.where(centric, 0, _side(data, "(-)"))


def _side(data, side):
    return np.nan_to_num(data["N" + side].to_numpy()) if "N" + side in data else np.zeros(len(data))


def _ratio(a, b) -> float:
    return float(a) / float(b) if b else np.nan


def signal_table(table: ResultTable, limits) -> pd.DataFrame:
    """Mean I/SIGI and F/SIGF (those that the file has) by resolution, with a last row for all."""
    pairs = [(k, s) for k in ("I", "F") for s in ("", "(+)", "(-)") if f"SIG{k}{s}" in table.data]
    data = {f"{k}_over_SIG{k}{s}": table.data[k + s] / table.data[f"SIG{k}{s}"] for k, s in pairs}
    bins = bins_of(table.data["d"], limits)

    def row(mine):
        means = {k: x[mine & np.isfinite(x)] for k, x in data.items()}
        return {"n": int(mine.sum())} | {k: float(x.mean()) if len(x) else np.nan for k, x in means.items()}

    return by_bin(limits, bins, row)
