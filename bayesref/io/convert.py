"""Unmerged data of any format as an MTZ file that CCP4 programs and this package read alike.

    H K L in the asymmetric unit, M/ISYM (original indices), BATCH (image), I SIGI, every other numeric column

Rows that the format itself marks as bad are left out, and parts of one reflection are one row, as `io.unmerged` has it;
nothing else changes, so that reading the MTZ gives the spots of the file it came from. Each image has a batch header.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import reciprocalspaceship as rs

from bayesref._checks import InputError
from bayesref.crystal.lattice import Cell, Group
from bayesref.io.formats import read_tables
from bayesref.io.table import SpotTable
from bayesref.io.unmerged import common_crystal
from bayesref.io.write_mtz import write_mtz
from bayesref.io.write_xds import write_xds_ascii

LARGEST = 2**24  # integers beyond this are not exact in an MTZ, whose numbers are float32
OWN = ("H", "K", "L", "M/ISYM", "I", "SIGI", "BATCH")


def write_unmerged(
    files: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    spacegroup: Group | None = None,
    cell: Cell | None = None,
    without_images: Sequence[int] | np.ndarray = (),
    expected_images: Sequence[int] | np.ndarray | None = None,
    **keys: str | None,
) -> str:
    """Read unmerged files and write them as one MTZ, or XDS_ASCII.HKL.

    Parameters
    ----------
    files : one or several; a DIALS .expt goes with its .refl
    out : file to write; .HKL in its name asks for XDS_ASCII, which has no columns of its own
    spacegroup, cell : instead of those of the files
    without_images : numbers of images to leave out
    expected_images : numbers that must occur; a guard against leaving images out of the wrong file
    keys : intensity_key, sigma_key, image_key

    Returns
    -------
    What was written, in a line or two.

    Raises
    ------
    InputError : a file that cannot be read or written, or holds other images
    """
    tables = read_tables(files, **keys)
    unit_cell, group = common_crystal(tables, cell, spacegroup)
    keep = [_good(t) for t in tables]
    images = [t.image[k] for t, k in zip(tables, keep, strict=True)]
    if expected_images is not None:
        missing = np.setdiff1d(expected_images, np.concatenate(images))
        if len(missing):
            raise InputError(
                f"{tables[0].name} has no image {int(missing[0])}, which the predictions have; "
                "give the unmerged file that they belong to."
            )
    keep = [
        _and(k, ~np.isin(i, without_images)) if len(without_images) else k
        for k, i in zip(keep, images, strict=True)
    ]
    frame, note = _frame(tables, keep)
    if not len(frame):
        raise InputError(f"{tables[0].name}: no row is left to write; check the file.")
    n = sum(len(t) for t in tables)
    report = f"{out}: {len(frame):,} of {n:,} rows, {frame['BATCH'].nunique():,} images, {group.xhm()}{note}"
    report += _not_written(tables)
    if Path(out).suffix.lower() == ".hkl":
        write_xds_ascii(frame, unit_cell, group, out)
        return report
    types = dict.fromkeys(frame, "R") | {"H": "H", "K": "H", "L": "H", "I": "J", "SIGI": "Q", "BATCH": "B"}
    data = rs.DataSet(frame, cell=unit_cell, spacegroup=group, merged=False).astype(types)
    write_mtz(data.set_index(["H", "K", "L"]), out)
    return report


def _good(table: SpotTable) -> np.ndarray:
    """(row,) bool: not marked as bad, and with indices."""
    good: np.ndarray = np.asarray(table.hkl.any(axis=1))
    for bad in table.flagged.values():
        good = good & ~bad
    return good


def _not_written(tables: Sequence[SpotTable]) -> str:
    """How many rows were bad, by cause; nothing where none was."""
    count: Counter[str] = Counter()
    for t in tables:
        left = np.ones(len(t), dtype=bool)
        for cause, bad in [*t.flagged.items(), ("without indices", ~t.hkl.any(axis=1))]:
            count[cause] += int((left & bad).sum())
            left &= ~bad
    told = ", ".join(f"{n:,} {cause}" for cause, n in count.items() if n)
    return f"; not written: {told}" if told else ""


def _and(keep: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Of the rows kept, those chosen."""
    keep = keep.copy()
    keep[keep] = among
    return keep


def _frame(tables, keep) -> tuple[pd.DataFrame, str]:
    """All rows, and a note where images had to be renumbered."""
    shared = [k for k in tables[0].columns if all(k in t.columns for t in tables)]
    parts = []
    for t, k in zip(tables, keep, strict=True):
        columns = {"I": t.I[k], "SIGI": t.SIGI[k], "BATCH": t.image[k]}
        columns |= {name: t.columns[name][k] for name in shared if not _is_own(t, name)}
        parts.append(pd.DataFrame(t.hkl[k], columns=["H", "K", "L"]).assign(**columns))
    step = 10 ** len(str(max((int(p["BATCH"].abs().max()) for p in parts if len(p)), default=1)))
    for i, p in enumerate(parts):
        p["BATCH"] += i * step
    frame, notes = pd.concat(parts, ignore_index=True), []
    if len(parts) > 1:
        notes.append(f"images of file k are numbered from {step} k")
    if len(frame) and frame["BATCH"].abs().max() >= LARGEST:
        frame["BATCH"] = np.unique(frame["BATCH"], return_inverse=True)[1] + 1
        notes.append("images renumbered from 1: their numbers are too large for an MTZ")
    return frame, "".join(f"; {n}" for n in notes)


def _is_own(table: SpotTable, name: str) -> bool:
    """A column that is written anyway, under its name or as I or SIGI."""
    column = table.columns[name]
    return name in OWN or any(np.array_equal(column, x, equal_nan=True) for x in (table.I, table.SIGI))
