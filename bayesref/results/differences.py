"""Differences of related amplitudes, with their joint posterior, as MTZ files.

    differences_k.mtz         DF = E[F_on - F_off],  SIGDF² = Var F_on + Var F_off - 2 COV      dataset k minus its root
                              F_on SIGF_on F_off SIGF_off COV N_on N_off
    difference_halves_k.mtz   the same for both halves of every repeat, with `half` and `repeat`

Indices are in the setting of the root. With Friedel mates apart a difference is that of the means of the mates, again
with the covariances of all four. Only reflections that both datasets measured are written.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import reciprocalspaceship as rs
import torch

from bayesref.crystal.symmetry import to_asu

TYPES = {
    "DF": "F", "SIGDF": "Q", "F_on": "F", "SIGF_on": "Q", "F_off": "F", "SIGF_off": "Q", "COV": "R",
    "N_on": "I", "N_off": "I",
}  # fmt: skip
POWER = {"DF": 1, "SIGDF": 1, "F_on": 1, "SIGF_on": 1, "F_off": 1, "SIGF_off": 1, "COV": 2}
INDICES = ["H", "K", "L"]


@dataclass(frozen=True)
class Differences:
    """Differences F_on - F_off of one pair of datasets.

    Attributes
    ----------
    hkl : (pair, 3) int64, in the setting of the dataset "off"
    DF, SIGDF : (pair,), mean and standard deviation
    F_on, SIGF_on, F_off, SIGF_off : (pair,), of the two amplitudes, or of the means of their Friedel mates
    COV : (pair,), covariance of F_on and F_off
    N_on, N_off : (pair,) int64, number of spots
    """

    hkl: torch.Tensor
    DF: torch.Tensor
    SIGDF: torch.Tensor
    F_on: torch.Tensor
    SIGF_on: torch.Tensor
    F_off: torch.Tensor
    SIGF_off: torch.Tensor
    COV: torch.Tensor
    N_on: torch.Tensor
    N_off: torch.Tensor


def differences(asu, amplitudes, tree, on: int, off: int | None = None) -> Differences:
    """F_on - F_off of every reflection that both datasets measured.

    Parameters
    ----------
    asu : ReciprocalASU, arranged by the tree
    amplitudes : of `Posterior.amplitudes`
    tree : DatasetTree
    on, off : datasets; off = the root of `on`
    """
    off = tree.root(on) if off is None else off
    rows = tree.counterparts(asu, on, off)
    hkl, _ = to_asu(asu.hkl[rows[1]].numpy(), asu.spacegroup)
    _, number = np.unique(hkl, axis=0, return_inverse=True)
    pair = torch.from_numpy(number.reshape(-1))
    n = int(pair.max()) + 1 if len(pair) else 0
    share = 1 / torch.bincount(pair, minlength=n).to(amplitudes.F)  # of each mate in the mean of both

    def mean(x):
        return share * x.new_zeros(n).index_add(0, pair, x)

    def total(x):
        return torch.zeros(n, dtype=x.dtype).index_add(0, pair, x)

    F = [mean(amplitudes.F[r]) for r in rows]
    C = [[_summed(amplitudes, rows[i], rows[j], pair, n) * share**2 for j in (0, 1)] for i in (0, 1)]
    N = [total(amplitudes.N[r]) for r in rows]
    variance = (C[0][0] + C[1][1] - 2 * C[0][1]).clamp(min=0)
    keep = (N[0] > 0) & (N[1] > 0)
    columns = (
        _first(torch.from_numpy(hkl.astype(np.int64)), pair, n), F[0] - F[1], variance.sqrt(), F[0], C[0][0].sqrt(),
        F[1], C[1][1].sqrt(), C[0][1], *N,
    )  # fmt: skip
    return Differences(*(x[keep] for x in columns))


def _first(x, pair, n):
    out = x.new_zeros(n, *x.shape[1:])
    out[pair] = x
    return out


def _summed(amplitudes, a, b, pair, n):
    """Σ over the sides of a and of b of their covariance, (n,).

    Variances too are those of the messages: SIGF differs by what the nodes leave open, which may be more than SIGDF.
    """
    out = amplitudes.F.new_zeros(n)
    order = pair.argsort(stable=True)
    same = torch.stack([order, order])
    # Mates of one pair are neighbours in this order.
    neighbour = (pair[order][1:] == pair[order][:-1]).nonzero()[:, 0]
    cross = torch.stack([order[neighbour], order[neighbour + 1]])
    for i, j in (same, cross, cross.flip(0)):
        out.index_add_(0, pair[i], amplitudes.related.between(a[i], b[j]))
    return out


def differences_table(asu, amplitudes, tree, on: int, wilson_b: float | None = None) -> rs.DataSet:
    """Columns of differences_k.mtz, sorted by index.

    Parameters
    ----------
    wilson_b : fall-off to give to the amplitudes, exp(-B s²), Å²
    """
    d = differences(asu, amplitudes, tree, on)
    frame = pd.DataFrame({k: getattr(d, k).numpy() for k in TYPES})
    if wilson_b is not None:
        k = np.exp(-0.25 * wilson_b / asu.cell.calculate_d_array(d.hkl.numpy().astype(np.int32)) ** 2)
        frame = frame.assign(**{name: frame[name] * k**power for name, power in POWER.items()})
    frame[INDICES] = d.hkl.numpy()
    data = rs.DataSet(frame[[*INDICES, *TYPES]], cell=asu.cell, spacegroup=asu.spacegroup, merged=True)
    return data.astype(dict.fromkeys(INDICES, "H") | TYPES).set_index(INDICES).sort_index()


def difference_halves_table(asu, halves, tree, on: int) -> rs.DataSet:
    """Columns of difference_halves_k.mtz."""
    parts = [
        differences_table(asu, amplitudes, tree, on).assign(half=k, repeat=h.repeat)
        for h in halves
        for k, amplitudes in enumerate((h.first, h.second))
    ]
    return rs.concat(parts).astype({"half": "I", "repeat": "I"})


def difference_figures(asu, amplitudes, halves, tree) -> dict[str, dict[str, float]]:
    """Figures of every dataset that has a parent, {differences_k: {name: number}}.

    n; rms of DF and of SIGDF; signal, (rms² DF)/(rms² DF + rms² SIGDF), the share of the variance of the difference
    that is known; CC1/2 of DF of the first halves.
    """
    found = {}
    for k, parent in enumerate(tree.parents):
        if parent is None:
            continue
        d = differences(asu, amplitudes, tree, k)
        if not len(d.DF):
            continue
        known, open_ = float((d.DF**2).mean()), float((d.SIGDF**2).mean())
        found[f"differences_{k}"] = {
            "n": len(d.DF), "rms_DF": known**0.5, "rms_SIGDF": open_**0.5, "known": known / (known + open_),
        } | ({"cchalf_DF": _half_correlation(asu, halves[0], tree, k)} if halves else {})  # fmt: skip
    return found


def _half_correlation(asu, halves, tree, k):
    first, second = (
        differences_table(asu, h, tree, k)["DF"].astype(float) for h in (halves.first, halves.second)
    )
    both = pd.concat([first, second], axis=1, join="inner").to_numpy()
    return float(np.corrcoef(both.T)[0, 1]) if len(both) > 2 else float("nan")


def difference_lines(figures: dict) -> list[str]:
    """A sentence for each pair of datasets, from `difference_figures` among the figures of a run."""
    return [
        f"Differences of dataset {name.removeprefix('differences_')}: {d['n']:,} reflections, rms DF {d['rms_DF']:.3g},"
        f" rms SIGDF {d['rms_SIGDF']:.3g}"
        + (f", CC1/2 of DF {d['cchalf_DF']:.3f}." if "cchalf_DF" in d else ".")
        for name, d in figures.items()
        if name.startswith("differences_")
    ]
