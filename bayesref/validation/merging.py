"""Statistics of merged data by resolution.

    CC1/2  = Pearson correlation of the intensities of two halves        Karplus & Diederichs (2012), Science 336, 1030
    CCanom = Pearson correlation of F(+) - F(-) of two halves
    Rsplit = √2 Σ |F₁ - F₂| / Σ (F₁ + F₂)                                White et al. (2012), Acta Cryst. D68, 335
    z      = (F₁ - F₂)/√(SIGF₁² + SIGF₂²)                                mean z² is 1 where SIGF is right
    CCpred = Pearson correlation of observed and predicted intensities of spots

Bins hold equal numbers of reflections or spots. Over several repeats correlations are averaged, and everything else is
taken over all pairs together. Where there are too few values for a statistic, it is NaN.
"""

from itertools import pairwise

import gemmi
import numpy as np
import pandas as pd
import torch

from bayesref.crystal.symmetry import to_asu

COVER = {"cover50": 0.67449, "cover90": 1.64485}  # |z| inside which 50 and 90 % of a unit normal lie
N_BINS = 10
FEWEST = 3  # values that a correlation needs: two always agree


def resolution_bins(dHKL, n_bins: int = N_BINS) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Bin of each reflection, low resolution first, and the limits (dmax, dmin) of each bin, Å."""
    d = np.asarray(dHKL, dtype=float)
    if not len(d):
        return np.zeros(0, dtype=int), [(np.nan, np.nan)] * n_bins
    edges = np.quantile(d, np.linspace(1, 0, n_bins + 1))
    return bin_of(d, edges), list(pairwise(edges))


def bin_of(d, edges) -> np.ndarray:
    """Bin of each d, Å; `edges` fall from dmax to dmin."""
    return np.clip(np.searchsorted(-edges, -d, side="right") - 1, 0, len(edges) - 2)


def by_bin(limits, bins, row) -> pd.DataFrame:
    """A table with one row per bin and a last one for all; `row(chosen)` gives its figures by name."""
    everything = np.ones(len(bins), dtype=bool)
    chosen = [*(bins == k for k in range(len(limits))), everything]
    extent = [*limits, (limits[0][0], limits[-1][1])]
    rows = [{"dmax": hi, "dmin": lo} | row(mine) for (hi, lo), mine in zip(extent, chosen, strict=True)]
    return pd.DataFrame(rows)


def correlation(x, y) -> float:
    """Pearson correlation; NaN for fewer than three values, or where one of the two does not vary."""
    if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(np.corrcoef(x, y)[0, 1])


def _mean(x) -> float:
    return float(np.mean(x)) if len(x) else np.nan


def calibration(z) -> dict[str, float]:
    """Mean z² and the share of z inside the central 50 and 90 % of a unit normal."""
    return {"z2": _mean(z**2)} | {name: _mean(np.abs(z) < q) for name, q in COVER.items()}


def half_statistics(asu, halves, n_bins: int = N_BINS, dataset: int | None = None) -> pd.DataFrame:
    """CC1/2, Rsplit and calibration of half datasets by resolution, with a last row for all.

    Parameters
    ----------
    asu : ReciprocalASU of the rows
    halves : from `half_datasets`: objects with `first` and `second`, each with F, SIGF, I, N
    dataset : only this dataset; None = all

    Returns
    -------
    Table with dmax, dmin, pairs, cchalf, rsplit, z2, cover50, cover90; pairs are counted over all repeats. With
    Friedel mates apart also ccanom.
    """
    wanted = _wanted(asu, dataset)
    bins, limits = resolution_bins(asu.dHKL[wanted], n_bins)
    pairs = [_pairs(h, wanted) for h in halves]
    mates = _mate_rows(asu, wanted) if asu.anomalous else None

    def row(mine):
        chosen = [p[mine & p["both"]] for p in pairs]
        every = np.concatenate(chosen)
        total = (every["F1"] + every["F2"]).sum()
        figures = {
            "pairs": len(every),
            "cchalf": _mean_known([correlation(p["I1"], p["I2"]) for p in chosen]),
            "rsplit": np.sqrt(2) * np.abs(every["F1"] - every["F2"]).sum() / total if total > 0 else np.nan,
        }
        if mates is not None:
            figures["ccanom"] = _mean_known([_cc_anomalous(p, mates, mine) for p in pairs])
        return figures | calibration(_z(every))

    return by_bin(limits, bins, row)


def _wanted(asu, dataset):
    return torch.ones(len(asu), dtype=torch.bool) if dataset is None else asu.dataset_id == dataset


def _mean_known(x) -> float:
    known = [v for v in x if v == v]
    return _mean(known)


def _pairs(half, wanted) -> np.ndarray:
    """Structured array of the wanted rows: F1, F2, SIGF1, SIGF2, I1, I2 and whether both halves measured it."""
    a, b = half.first, half.second
    columns = {
        f"{k}{i}": getattr(x, k)[wanted].numpy() for i, x in ((1, a), (2, b)) for k in ("F", "SIGF", "I")
    }
    columns["both"] = ((a.N > 0) & (b.N > 0))[wanted].numpy()
    table = np.empty(len(columns["both"]), dtype=[(k, v.dtype) for k, v in columns.items()])
    for k, v in columns.items():
        table[k] = v
    return table


def _z(pairs) -> np.ndarray:
    return (pairs["F1"] - pairs["F2"]) / np.hypot(pairs["SIGF1"], pairs["SIGF2"])


def _mate_rows(asu, wanted):
    """Rows of the (+) and of the (-) mates of all pairs among the wanted rows."""
    mates = asu.subset(wanted).friedel_mates().numpy()
    plus = np.flatnonzero(mates >= 0)
    return plus, mates[plus]


def _cc_anomalous(pairs, mates, mine):
    plus, minus = mates
    known = mine[plus] & pairs["both"][plus] & pairs["both"][minus]
    plus, minus = plus[known], minus[known]
    return correlation(*(pairs[k][plus] - pairs[k][minus] for k in ("F1", "F2")))


def half_z(halves, wanted=None) -> np.ndarray:
    """z of every pair of every repeat, (pair,).

    Parameters
    ----------
    wanted : (hkl,) bool, rows to take; None = all
    """
    if not halves:
        return np.zeros(0)
    wanted = torch.ones_like(halves[0].first.N, dtype=torch.bool) if wanted is None else wanted
    pairs = np.concatenate([_pairs(h, wanted) for h in halves])
    return _z(pairs[pairs["both"]])


def completeness(asu, amplitudes, n_bins: int = N_BINS, dataset: int = 0) -> pd.DataFrame:
    """Completeness, multiplicity and signal by resolution, with a last row for all.

    Friedel mates count as one reflection, and `multiplicity` as the spots of both. Possible reflections lie between
    the resolution limits of the data. Means of F/SIGF and I/SIGI are over rows of `asu`.

    Returns
    -------
    Table with dmax, dmin, reflections, possible, completeness, multiplicity, F_over_SIGF, I_over_SIGI.
    """
    measured = ((asu.dataset_id == dataset) & (amplitudes.N > 0)).numpy()
    d = asu.dHKL.numpy()[measured]
    d_possible = _possible(asu, d)
    bins, limits = resolution_bins(d_possible, n_bins)
    edges = np.array([x for x, _ in limits] + [limits[-1][1]])
    F, SIGF, I, SIGI, N = (getattr(amplitudes, k).numpy()[measured] for k in ("F", "SIGF", "I", "SIGI", "N"))
    # Possible reflections stand beside the rows of the data, so that one selection serves both.
    is_row = np.arange(len(d) + len(d_possible)) < len(d)
    first = np.zeros(len(is_row), dtype=bool)
    first[_one_per_pair(asu, measured)] = True

    def row(mine):
        n, n_possible = int((mine & first).sum()), int((mine & ~is_row).sum())
        rows = mine[: len(d)]
        return {
            "reflections": n,
            "possible": n_possible,
            "completeness": n / n_possible if n_possible else np.nan,
            "multiplicity": N[rows].sum() / n if n else np.nan,
            "F_over_SIGF": _mean((F / SIGF)[rows]),
            "I_over_SIGI": _mean((I / SIGI)[rows]),
        }

    both = np.concatenate([bin_of(d, edges) if len(d) else bins[:0], bins])
    return by_bin(limits, both, row)


def _possible(asu, d) -> np.ndarray:
    """Resolution of all reflections that are not absent, within the limits of the data, Å."""
    if not len(d):
        return np.zeros(0)
    # A hair of room at both ends, so that rounding does not lose the outermost reflections.
    hkl = gemmi.make_miller_array(asu.cell, asu.spacegroup, d.min() - 1e-6, d.max() + 1e-6, unique=True)
    return np.asarray(asu.cell.calculate_d_array(hkl))


def _one_per_pair(asu, measured):
    """Among the measured rows, one for each pair of Friedel mates."""
    if not measured.any():
        return np.zeros(0, dtype=int)
    unique, _ = to_asu(asu.hkl.numpy()[measured], asu.spacegroup)
    return np.unique(unique, axis=0, return_index=True)[1]


def prediction_statistics(dHKL, I, I_pred, held_out=None, z=None, n_bins: int = N_BINS) -> pd.DataFrame:
    """CCpred by resolution for spots fitted and held out, with a last row for all.

    Parameters
    ----------
    dHKL, I, I_pred : (spot,) resolution in Å, observed and predicted intensity
    held_out : (spot,) bool, spots that the fit did not see; None = none
    z : (spot,) residuals that should be unit normal, for columns z2, cover50 and cover90; None = no such columns

    Returns
    -------
    Table with dmax, dmin, spots, cc_fitted, ccpred.
    """
    I, I_pred = np.asarray(I, dtype=float), np.asarray(I_pred, dtype=float)
    out = np.zeros(len(I), dtype=bool) if held_out is None else np.asarray(held_out, dtype=bool)
    z = None if z is None else np.asarray(z, dtype=float)
    bins, limits = resolution_bins(dHKL, n_bins)

    def row(mine):
        fitted, other = mine & ~out, mine & out
        figures = {
            "spots": int(mine.sum()),
            "cc_fitted": correlation(I[fitted], I_pred[fitted]),
            "ccpred": correlation(I[other], I_pred[other]),
        }
        return figures if z is None else figures | calibration(z[mine])

    return by_bin(limits, bins, row)
