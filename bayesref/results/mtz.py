"""Merged amplitudes, half datasets and predictions as MTZ files.

    merged_k.mtz       F SIGF I SIGI N of dataset k; with Friedel mates apart also F(+) SIGF(+) F(-) ... N(-), and
                       DANO SIGDANO: the mates share errors of the scale, which cancel in their difference
    halves_k.mtz       the same for both halves of every repeat, with `half` and `repeat`
    predictions_k.mtz  one row per spot of input file k, in the order of that file: observed and expected intensity,
                       their standard deviations, scale, weight, P(blank), z, P(outlier)

F is on the scale where ⟨F²⟩ = ε, I = E[F²]. Only measured reflections are written. Types after the CCP4 MTZ format; a
centric reflection has the same values for (+) and (-), as in reciprocalspaceship, and counts once in N.
"""

import numpy as np
import pandas as pd
import reciprocalspaceship as rs

from bayesref.crystal.symmetry import is_centric, to_asu

TYPES = {"F": "F", "SIGF": "Q", "I": "J", "SIGI": "Q", "N": "I"}
FRIEDEL_TYPES = {"F": "G", "SIGF": "L", "I": "K", "SIGI": "M", "N": "I"}
INDICES = ["H", "K", "L"]
SIDES = ("(+)", "(-)")
# An unmerged MTZ holds the Miller index K, so that the scale needs a name of its own.
SPOT_TYPES = {
    "BATCH": "B", "I": "J", "SIGI": "Q", "Ipred": "J", "SIGIpred": "Q",
    "SCALE": "R", "weight": "W", "blank": "R", "z": "R", "outlier": "R",
}  # fmt: skip


def merged_table(asu, amplitudes, dataset: int = 0) -> rs.DataSet:
    """Measured reflections of one dataset, sorted by index.

    Parameters
    ----------
    asu : ReciprocalASU
    amplitudes : its F, SIGF, I, SIGI, N, (hkl,) each
    """
    mine = ((asu.dataset_id == dataset) & (amplitudes.N > 0)).numpy()
    frame = pd.DataFrame({k: getattr(amplitudes, k).numpy()[mine] for k in TYPES})
    frame[INDICES] = asu.hkl.numpy()[mine]
    if not asu.anomalous:
        return _dataset(asu, frame, TYPES)
    both, types = _friedel_frame(frame, asu.spacegroup), TYPES | _side_types()
    if amplitudes.SIGD is not None:
        both = _with_difference(both, asu.hkl.numpy()[mine], amplitudes.SIGD.numpy()[mine])
        types |= {"DANO": "D", "SIGDANO": "Q"}
    return _dataset(asu, both, types)


def _with_difference(frame, hkl, SIGD):
    """DANO = F(+) - F(-) and its own SIGDANO, where both mates were measured."""
    known = pd.DataFrame(hkl, columns=INDICES).assign(SIGDANO=SIGD).dropna()
    frame = frame.merge(known, on=INDICES, how="left")
    difference = (frame["F(+)"] - frame["F(-)"]).where(frame["SIGDANO"].notna())
    return frame.assign(DANO=difference)


def _side_types():
    """F(+) SIGF(+) F(-) SIGF(-) I(+) ... N(-), the order that CCP4 programs use."""
    pairs = (("F", "SIGF"), ("I", "SIGI"), ("N",))
    return {k + side: FRIEDEL_TYPES[k] for group in pairs for side in SIDES for k in group}


def _friedel_frame(frame, spacegroup):
    """One row per Friedel pair: both mates, and their mean."""
    hkl, isym = to_asu(frame[INDICES].to_numpy(), spacegroup)
    centric, plus = is_centric(hkl, spacegroup), isym % 2 == 1
    frame = frame.assign(H=hkl[:, 0], K=hkl[:, 1], L=hkl[:, 2])
    parts = [
        frame[rows].set_index(INDICES).add_suffix(side)
        for rows, side in ((plus | centric, "(+)"), (~plus | centric, "(-)"))
    ]
    mates = pd.concat(parts, axis=1, sort=True)
    for side in SIDES:
        mates["N" + side] = mates["N" + side].fillna(0).astype(np.int64)
    mean = _mean(mates)
    own = frame[centric].set_index(INDICES)
    mean.loc[own.index] = own[list(mean)]
    return pd.concat([mean, mates], axis=1).astype({"N": np.int64}).reset_index()


def _mean(mates):
    """Mean of the mates weighted by 1/sd²; of one mate, itself."""
    columns = {"N": mates["N(+)"] + mates["N(-)"]}
    for x in ("F", "I"):
        weight = 1 / mates[[f"SIG{x}{side}" for side in SIDES]].to_numpy() ** 2
        value = mates[[x + side for side in SIDES]].to_numpy()
        columns[x] = np.nansum(weight * value, axis=1) / np.nansum(weight, axis=1)
        columns[f"SIG{x}"] = np.nansum(weight, axis=1) ** -0.5
    return pd.DataFrame(columns, index=mates.index)[list(TYPES)]


def _dataset(asu, frame, types, merged=True) -> rs.DataSet:
    data = rs.DataSet(frame[[*INDICES, *types]], cell=asu.cell, spacegroup=asu.spacegroup, merged=merged)
    data = data.astype(dict.fromkeys(INDICES, "H") | types).set_index(INDICES)
    return data.sort_index() if merged else data


def halves_table(asu, halves, dataset: int = 0) -> rs.DataSet:
    """Both halves of every repeat of one dataset, one below the other.

    Parameters
    ----------
    halves : list of Halves
    """
    parts = [
        merged_table(asu, amplitudes, dataset).assign(half=k, repeat=h.repeat)
        for h in halves
        for k, amplitudes in enumerate((h.first, h.second))
    ]
    return rs.concat(parts).astype({"half": "I", "repeat": "I"})


def predictions_table(obs, predictions, file: int = 0, held_out=None) -> rs.DataSet:
    """Spots of one input file, with the indices that were observed.

    Parameters
    ----------
    obs : Observations
    predictions : of these spots
    held_out : (spot,) bool, written as `test`; None = no such column
    """
    mine = (obs.file_id == file).nonzero()[:, 0]
    mine = mine[obs.row[mine].argsort()]
    number = obs.image_id if obs.image_number is None else obs.image_number[obs.image_id]
    p = predictions
    columns = (number, obs.I, obs.SIGI, p.I, p.SIGI, p.K, p.precision, p.blank, p.z, p.outlier)
    frame = pd.DataFrame({k: x[mine].numpy() for k, x in zip(SPOT_TYPES, columns, strict=True)})
    frame[INDICES] = obs.hkl[mine].numpy()
    types = dict(SPOT_TYPES)
    if held_out is not None:
        frame["test"], types["test"] = held_out[mine].long().numpy(), "I"
    return _dataset(obs.asu, frame, types, merged=False)
