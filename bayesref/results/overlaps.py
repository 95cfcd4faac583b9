"""Overlapped Laue spots and what is expected of them.

overlaps_k.mtz    one row per order of each overlapped spot of input file k: I SIGI Ipred SIGIpred z outlier of the
                  spot, `SPOT` its number; Iorder SIGIorder the part that this order is expected to have, `LAMBDA`
                  its wavelength (Å), SCALE
"""

import pandas as pd
import reciprocalspaceship as rs
import torch

SPOT = {"I": "J", "SIGI": "Q", "Ipred": "J", "SIGIpred": "Q", "z": "R", "outlier": "R"}
ORDER = {"Iorder": "J", "SIGIorder": "Q", "SCALE": "R", "LAMBDA": "R"}


def overlaps_table(overlaps, predictions, image_number, file: int = 0, held_out=None) -> rs.DataSet:
    """Orders of the overlapped spots of one input file, with the indices of each.

    Parameters
    ----------
    overlaps : Overlaps
    predictions : OverlapPredictions of them
    image_number : (image,) the file's own numbers, or None
    held_out : (spot,) bool, written as `test`; None = no such column
    """
    o, p, spot = overlaps.orders, predictions, overlaps.spot
    mine = (o.file_id == file).nonzero()[:, 0]
    mine = mine[torch.argsort(spot[mine], stable=True)]
    number = o.image_id if image_number is None else image_number[o.image_id]
    wavelength = torch.full_like(p.K, torch.nan) if o.wavelength is None else o.wavelength
    columns = {"BATCH": number, "SPOT": spot}
    values = (overlaps.I, overlaps.SIGI, p.I, p.SIGI, p.z, p.outlier)
    columns |= {k: x[spot] for k, x in zip(SPOT, values, strict=True)}
    columns |= dict(zip(ORDER, (p.order_I, p.order_SIGI, p.K, wavelength), strict=True))
    types = {"BATCH": "B", "SPOT": "I"} | SPOT | ORDER
    if held_out is not None:
        columns["test"], types["test"] = held_out[spot].long(), "I"
    frame = pd.DataFrame({k: x[mine].numpy() for k, x in columns.items()})
    frame[["H", "K", "L"]] = o.hkl[mine].numpy()
    data = rs.DataSet(frame, cell=o.asu.cell, spacegroup=o.asu.spacegroup, merged=False)
    return data.astype(dict.fromkeys("HKL", "H") | types).set_index(["H", "K", "L"])
