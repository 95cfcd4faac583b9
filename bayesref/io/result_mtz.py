"""Result files read back: merged amplitudes, half datasets, predictions; ours, and careless's where columns agree.

    merged        F SIGF I SIGI N, or F(+) SIGF(+) F(-) ... N(-)
    halves        the same with `half` and `repeat`
    predictions   I SIGI Ipred SIGIpred BATCH test z

Names are matched without regard to case, so that SigF is SIGF; in predictions Iobs, SigIobs and image_id are I, SIGI
and BATCH.
"""

from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
import pandas as pd

from bayesref._checks import InputError

SYNONYMS = {"IOBS": "I", "SIGIOBS": "SIGI", "IMAGE_ID": "BATCH"}
KEPT = {
    name.upper(): name for name in ("Ipred", "SIGIpred", "half", "repeat", "test", "z", "blank", "outlier")
}


@dataclass(frozen=True, eq=False)
class ResultTable:
    """Rows of one result file.

    Attributes
    ----------
    name : path as given
    data : columns H K L d (Å), and the file's under our names
    cell, spacegroup : of the file
    """

    name: str
    data: pd.DataFrame
    cell: gemmi.UnitCell
    spacegroup: gemmi.SpaceGroup

    def __len__(self) -> int:
        return len(self.data)

    @property
    def anomalous(self) -> bool:
        """Friedel mates apart."""
        return "F(+)" in self.data or "I(+)" in self.data


def read_result(path: str | Path, *needed: str) -> ResultTable:
    """Read a result file.

    Parameters
    ----------
    needed : columns that must be there; 'I|F' = one of these

    Raises
    ------
    InputError : the file is missing, no MTZ, empty, or lacks a column
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; check the name.")
    try:
        mtz = gemmi.read_mtz_file(str(path))
    except (RuntimeError, ValueError, IndexError, OSError) as e:
        raise InputError(f"{path} is not a complete MTZ file ({e}); expected a file of results.") from None
    if not mtz.nreflections or mtz.spacegroup is None:
        raise InputError(f"{path} holds no reflections, or no space group; expected a file of results.")
    columns = {_name(c.label): np.array(c.array, dtype=float) for c in mtz.columns}
    columns |= {k: columns[k].astype(np.int64) for k in "HKL"}
    # In double precision: gemmi's own array is in single, and reflections at the limit of a bin would change sides.
    d = mtz.cell.calculate_d_array(np.stack([columns[k] for k in "HKL"], 1).astype(np.int32))
    data = pd.DataFrame(columns | {"d": np.asarray(d, dtype=float)})
    for names in needed:
        if not any(name in data for name in names.split("|")):
            own = ", ".join(c.label for c in mtz.columns)
            wanted = " or ".join(names.split("|"))
            raise InputError(f"{path} has no column {wanted}; it has {own}: give another file.")
    return ResultTable(str(path), data, mtz.cell, mtz.spacegroup)


def _name(label: str) -> str:
    upper = label.upper()
    return KEPT.get(upper) or SYNONYMS.get(upper, upper)
