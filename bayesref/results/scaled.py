"""Spots on a common scale, for programs that merge or analyse them further.

    scaled_k.mtz    I/K  SIGI/K  of each spot of input file k; K as SCALE, P(outlier), BATCH, and the metadata as read

Indices are those observed (M/ISYM), K is the scale of `predictions`, so that I is on the scale of the merged I. SIGI is
the one given, divided by the scale: the error model's standard deviation is 1/√weight of the predictions.
"""

import numpy as np
import pandas as pd
import reciprocalspaceship as rs

# Metadata that the index or another column tells already.
IMPLIED = ("dHKL", "Hobs", "Kobs", "Lobs", "file_id", "image_id", "BATCH", "I", "SIGI", "SCALE", "outlier")
TYPES = {"BATCH": "B", "I": "J", "SIGI": "Q", "SCALE": "R", "outlier": "R"}


def scaled_table(obs, predictions, file: int = 0) -> rs.DataSet:
    """Spots of one input file, unmerged, in the order of that file.

    Parameters
    ----------
    obs : Observations
    predictions : of these spots
    """
    mine = (obs.file_id == file).nonzero()[:, 0]
    mine = mine[obs.row[mine].argsort()]
    number = obs.image_id if obs.image_number is None else obs.image_number[obs.image_id]
    K = predictions.K
    columns = (number, obs.I / K, obs.SIGI / K, K, predictions.outlier)
    frame = pd.DataFrame({k: x[mine].numpy() for k, x in zip(TYPES, columns, strict=True)})
    metadata = raw_metadata(obs, mine)
    frame = frame.assign(**metadata)
    frame[["H", "K", "L"]] = obs.hkl[mine].numpy()
    types = dict.fromkeys("HKL", "H") | TYPES | dict.fromkeys(metadata, "R")
    data = rs.DataSet(frame, cell=obs.asu.cell, spacegroup=obs.asu.spacegroup, merged=False)
    return data.astype(types).set_index(["H", "K", "L"])


def raw_metadata(obs, spots) -> dict[str, np.ndarray]:
    """Standardised metadata in the units of the file again, by name."""
    t = obs.transform
    if t is None:
        return {}
    z = obs.metadata[spots, : len(t.keys)].numpy() * t.sd + t.mean
    return {k: z[:, i] for i, k in enumerate(t.keys) if k not in IMPLIED}
