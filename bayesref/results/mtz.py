"""Merged amplitudes, half datasets and predictions as MTZ files.

    merged_k.mtz      F SIGF I SIGI N; with Friedel mates apart also F(+) SIGF(+) F(-) SIGF(-) I(+) ... N(+) N(-)
    halves_k.mtz      the same for both halves of every repeat, with `half` and `repeat`
    predictions_k.mtz one row per spot of file k: observed and expected intensity, scale, weight, P(blank)

One merged and one halves file per dataset. F is on the scale where ⟨F²⟩ = ε.
"""

import numpy as np
import pandas as pd
import reciprocalspaceship as rs

from bayesref.crystal.symmetry import to_asu
from bayesref.io.write_mtz import write_mtz

TYPES = {"F": "F", "SIGF": "Q", "I": "J", "SIGI": "Q", "N": "I"}
FRIEDEL_TYPES = {"F": "G", "SIGF": "L", "I": "K", "SIGI": "M", "N": "I"}


def merged_table(asu, amplitudes, dataset: int = 0) -> rs.DataSet:
    """Measured reflections of one dataset, sorted by index."""
    mine = ((asu.dataset_id == dataset) & (amplitudes.N > 0)).numpy()
    frame = pd.DataFrame({k: getattr(amplitudes, k).numpy()[mine] for k in TYPES})
    frame[["H", "K", "L"]] = asu.hkl.numpy()[mine]
    if asu.anomalous:
        return _friedel_table(asu, frame)
    return _dataset(asu, frame, TYPES)


def _friedel_table(asu, frame):
    """One row per Friedel pair: both mates, and their mean."""
    hkl, isym = to_asu(frame[["H", "K", "L"]].to_numpy(), asu.spacegroup)
    frame = frame.assign(plus=np.asarray(isym) % 2 == 1)
    frame[["H", "K", "L"]] = hkl
    index = ["H", "K", "L"]
    plus, minus = (frame[frame.plus == side].drop(columns="plus").set_index(index) for side in (True, False))
    centric = asu.spacegroup.operations().centric_flag_array(hkl)
    own = frame.assign(centric=centric)[frame.plus & centric].set_index(index)
    mates = plus.drop(index=own.index, errors="ignore").join(minus, how="outer", lsuffix="(+)", rsuffix="(-)")
    both = pd.concat([_mean(mates), mates], axis=1)
    alone = own[list(TYPES)]
    table = pd.concat([both, alone]).reset_index()
    types = dict(TYPES)
    for side in ("(+)", "(-)"):
        types |= {k + side: t for k, t in FRIEDEL_TYPES.items()}
        table["N" + side] = table["N" + side].fillna(0).astype(int)
    table["N"] = table["N"].astype(int)
    return _dataset(asu, table, types)


def _mean(mates):
    """Mean of the mates weighted by 1/sd²; of one mate, itself."""
    columns = {"N": mates[["N(+)", "N(-)"]].sum(axis=1)}
    for x in ("F", "I"):
        w = 1 / mates[[f"SIG{x}(+)", f"SIG{x}(-)"]].to_numpy() ** 2
        value = mates[[f"{x}(+)", f"{x}(-)"]].to_numpy()
        columns[x] = np.nansum(w * value, axis=1) / np.nansum(w, axis=1)
        columns[f"SIG{x}"] = np.nansum(w, axis=1) ** -0.5
    return pd.DataFrame(columns, index=mates.index)[list(TYPES)]


def _dataset(asu, frame, types) -> rs.DataSet:
    data = rs.DataSet(frame[["H", "K", "L", *types]], cell=asu.cell, spacegroup=asu.spacegroup, merged=True)
    data = data.astype({"H": "H", "K": "H", "L": "H"} | types)
    return data.set_index(["H", "K", "L"]).sort_index()


def halves_table(asu, halves, dataset: int = 0) -> rs.DataSet:
    """Both halves of every repeat of one dataset."""
    parts = []
    for h in halves:
        for k, amplitudes in enumerate((h.first, h.second)):
            part = merged_table(asu, amplitudes, dataset)
            part["half"] = rs.DataSeries(np.full(len(part), k), index=part.index, dtype="I")
            part["repeat"] = rs.DataSeries(np.full(len(part), h.repeat), index=part.index, dtype="I")
            parts.append(part)
    return rs.concat(parts)


def predictions_table(obs, predictions, file: int = 0, held_out=None) -> rs.DataSet:
    """Spots of one input file, with the indices that were observed."""
    mine = (obs.file_id == file).numpy()
    number = obs.image_id if obs.image_number is None else obs.image_number[obs.image_id]
    columns = {
        "BATCH": (number, "B"),
        "I": (obs.I, "J"),
        "SIGI": (obs.SIGI, "Q"),
        "Ipred": (predictions.I, "J"),
        "SIGIpred": (predictions.SIGI, "Q"),
        "K": (predictions.K, "R"),
        "weight": (predictions.precision, "W"),
        "blank": (predictions.blank, "R"),
    }
    if held_out is not None:
        columns["test"] = (held_out.long(), "I")
    hkl = obs.hkl.numpy()[mine]
    frame = {"H": hkl[:, 0], "K_": hkl[:, 1], "L": hkl[:, 2]} | {
        k: x.numpy()[mine] for k, (x, _) in columns.items()
    }
    # The Miller index K and the scale K may not share a name.
    frame = {{"K_": "K", "K": "SCALE"}.get(k, k): v for k, v in frame.items()}
    types = {{"K": "SCALE"}.get(k, k): t for k, (_, t) in columns.items()}
    data = rs.DataSet(frame, cell=obs.asu.cell, spacegroup=obs.asu.spacegroup, merged=False)
    return data.astype({"H": "H", "K": "H", "L": "H"} | types).set_index(["H", "K", "L"])


def write(table: rs.DataSet, path) -> None:
    """Write atomically."""
    write_mtz(table, path)
