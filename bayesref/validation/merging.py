"""Statistics of merged data by resolution.

    CC1/2  = Pearson correlation of the intensities of two halves
    Rsplit = √2 Σ |F₁ - F₂| / Σ (F₁ + F₂)                              White et al. (2012), Acta Cryst. D68, 335
    z      = (F₁ - F₂)/√(SIGF₁² + SIGF₂²)                              mean z² is 1 where SIGF is right
    CCpred = Pearson correlation of observed and predicted intensities of spots

Bins hold equal numbers of reflections. Several repeats are averaged.
"""

from itertools import pairwise

import gemmi
import numpy as np
import pandas as pd
import torch

from bayesref.crystal.symmetry import to_asu

COVER = {"cover50": 0.67449, "cover90": 1.64485}


def resolution_bins(dHKL, n_bins: int = 10) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Bin of each reflection, low resolution first, and the limits (dmax, dmin) of each bin, Å."""
    d = np.asarray(dHKL, dtype=float)
    edges = np.quantile(d, np.linspace(1, 0, n_bins + 1))
    bins = np.clip(np.searchsorted(-edges, -d, side="right") - 1, 0, n_bins - 1)
    return bins, list(pairwise(edges))


def half_statistics(asu, halves, n_bins: int = 10, dataset: int | None = None) -> pd.DataFrame:
    """CC1/2, Rsplit and calibration of half datasets by resolution, with a last row for all.

    Parameters
    ----------
    asu : ReciprocalASU of the rows
    halves : from `half_datasets`: objects with `first` and `second`, each with F, SIGF, I, N
    dataset : only this dataset; None = all

    Returns
    -------
    Table with dmax, dmin, pairs, cchalf, rsplit, z2, cover50, cover90.
    """
    wanted = torch.ones(len(asu), dtype=torch.bool) if dataset is None else asu.dataset_id == dataset
    bins, limits = resolution_bins(asu.dHKL[wanted], n_bins)
    per_repeat = [_half_rows(h, wanted, bins, n_bins) for h in halves]
    table = pd.DataFrame(np.nanmean(per_repeat, axis=0), columns=["pairs", "cchalf", "rsplit", "z2", *COVER])
    return _with_limits(table, limits)


def _half_rows(half, wanted, bins, n_bins):
    a, b = half.first, half.second
    columns = (a.I, b.I, a.F, b.F, a.SIGF, b.SIGF)
    I1, I2, F1, F2, s1, s2 = (x[wanted].numpy() for x in columns)
    both = ((a.N > 0) & (b.N > 0))[wanted].numpy()
    z = (F1 - F2) / np.hypot(s1, s2)
    rows = []
    for k in [*range(n_bins), None]:
        m = both if k is None else both & (bins == k)
        if m.sum() < 3:
            rows.append([m.sum(), *[np.nan] * 5])
            continue
        rsplit = np.sqrt(2) * np.abs(F1 - F2)[m].sum() / (F1 + F2)[m].sum()
        cover = [np.mean(np.abs(z[m]) < q) for q in COVER.values()]
        rows.append([m.sum(), np.corrcoef(I1[m], I2[m])[0, 1], rsplit, np.mean(z[m] ** 2), *cover])
    return rows


def _with_limits(table, limits):
    """The table with columns dmax and dmin in front; its last row is for all."""
    table.insert(0, "dmax", [x for x, _ in limits] + [limits[0][0]])
    table.insert(1, "dmin", [x for _, x in limits] + [limits[-1][1]])
    return table


def half_z(halves, wanted=None) -> np.ndarray:
    """z of every pair of every repeat, (pair,)."""
    out = []
    for h in halves:
        both = (h.first.N > 0) & (h.second.N > 0)
        both = both if wanted is None else both & wanted
        z = (h.first.F - h.second.F) / torch.hypot(h.first.SIGF, h.second.SIGF)
        out.append(z[both].numpy())
    return np.concatenate(out) if out else np.zeros(0)


def completeness(asu, amplitudes, n_bins: int = 10, dataset: int = 0) -> pd.DataFrame:
    """Completeness, multiplicity and F/SIGF by resolution, with a last row for all.

    Friedel mates count as one reflection. Possible reflections lie between the limits of the data.
    """
    mine = ((asu.dataset_id == dataset) & (amplitudes.N > 0)).numpy()
    hkl, d = asu.hkl.numpy()[mine], asu.dHKL.numpy()[mine]
    unique, _ = to_asu(hkl, asu.spacegroup)
    first = np.unique(unique, axis=0, return_index=True)[1]
    # A hair of room at both ends, so that rounding does not lose the outermost reflections.
    possible = gemmi.make_miller_array(asu.cell, asu.spacegroup, d.min() - 1e-6, d.max() + 1e-6, unique=True)
    d_possible = np.array(asu.cell.calculate_d_array(possible))
    bins, limits = resolution_bins(d_possible, n_bins)
    edges = np.array([x for x, _ in limits] + [limits[-1][1]])
    where = np.clip(np.searchsorted(-edges, -d, side="right") - 1, 0, n_bins - 1)
    N = amplitudes.N.numpy()[mine]
    ratio = (amplitudes.F / amplitudes.SIGF).numpy()[mine]
    is_first = np.zeros(len(hkl), dtype=bool)
    is_first[first] = True
    rows = []
    for k in [*range(n_bins), None]:
        m = np.ones(len(hkl), dtype=bool) if k is None else where == k
        n_possible = len(possible) if k is None else int((bins == k).sum())
        n = int((m & is_first).sum())
        rows.append(
            [
                n,
                n_possible,
                n / max(n_possible, 1),
                N[m].sum() / max(n, 1),
                ratio[m].mean() if m.any() else np.nan,
            ]
        )
    names = ["reflections", "possible", "completeness", "multiplicity", "F_over_SIGF"]
    return _with_limits(pd.DataFrame(rows, columns=names), limits)


def prediction_statistics(dHKL, I, I_pred, held_out=None, n_bins: int = 10) -> pd.DataFrame:
    """CCpred by resolution for spots fitted and held out, with a last row for all.

    Parameters
    ----------
    dHKL, I, I_pred : (spot,) resolution in Å, observed and predicted intensity
    held_out : (spot,) bool, spots that the fit did not see; None = none
    """
    I, I_pred = np.asarray(I, dtype=float), np.asarray(I_pred, dtype=float)
    out = np.zeros(len(I), dtype=bool) if held_out is None else np.asarray(held_out, dtype=bool)
    bins, limits = resolution_bins(dHKL, n_bins)
    rows = []
    for k in [*range(n_bins), None]:
        m = np.ones(len(I), dtype=bool) if k is None else bins == k
        rows.append([_correlation(I, I_pred, m & ~out), _correlation(I, I_pred, m & out)])
    return _with_limits(pd.DataFrame(rows, columns=["cc_fitted", "ccpred"]), limits)


def _correlation(x, y, m):
    return np.corrcoef(x[m], y[m])[0, 1] if m.sum() > 2 else np.nan
