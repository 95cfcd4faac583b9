"""What every reader of unmerged intensities returns: one row for each row of the file, nothing left out yet.

The reader of a format knows its columns and its own marks of bad rows; `io.unmerged` does the rest.
"""

from dataclasses import dataclass, field
from pathlib import Path

import gemmi
import numpy as np

from bayesref._checks import InputError
from bayesref.io.stills import Stills


@dataclass(frozen=True, eq=False)
class SpotTable:
    """Rows of one file.

    Attributes
    ----------
    name, format : path as given; 'MTZ', 'XDS_ASCII', ...
    hkl : (row, 3) int32, indices as observed
    I, SIGI : (row,) float64
    image : (row,) int64, the file's own number of the image
    columns : every other numeric column by name, each (row,)
    cell, spacegroup : as in the file, None where it has none
    flagged : cause -> (row,) bool, rows that the format itself marks as bad
    sigma_name : column that SIGI came from
    notes : choices worth telling the user
    row : (row,) int64, row in the file, where this is not simply 0, 1, 2 ...
    stills : cell and resolution of each image, where the format has them
    """

    name: str
    format: str
    hkl: np.ndarray
    I: np.ndarray
    SIGI: np.ndarray
    image: np.ndarray
    columns: dict[str, np.ndarray]
    cell: gemmi.UnitCell | None
    spacegroup: gemmi.SpaceGroup | None
    flagged: dict[str, np.ndarray] = field(default_factory=dict)
    sigma_name: str = "SIGI"
    notes: tuple[str, ...] = ()
    row: np.ndarray | None = None
    stills: Stills | None = None

    def __len__(self) -> int:
        return len(self.I)


def check_file(path: Path) -> None:
    """Raise `InputError` unless `path` is a file that can be read and is not empty."""
    if not path.exists():
        raise InputError(f"{path}: there is no such file; check the name.")
    if path.is_dir():
        raise InputError(f"{path} is a directory; expected a file of unmerged intensities.")
    try:
        with path.open("rb") as f:
            empty = not f.read(1)
    except OSError as e:
        raise InputError(f"{path} cannot be read ({e.strerror}); check its permissions.") from None
    if empty:
        raise InputError(f"{path} is empty; expected a file of unmerged intensities.")


def require_column(path, available, key: str, what: str, option: str) -> str:
    """`key`, or `InputError` listing the columns that are there."""
    if key not in available:
        raise InputError(
            f"{path} has no column '{key}' for {what}; its columns are {', '.join(available)}: "
            f"name one of these with {option}."
        )
    return key
