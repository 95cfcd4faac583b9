"""R-free flags and what they mean.

CCP4      0 is free, of 0 .. n-1 (n about 20)            most values, evenly
Phenix    1 is free, of 0 and 1                          the rarer of two
SHELX     -1 is free, of -1 and 1
mmCIF     status f is free, o is not                     read by gemmi as flags 0 and 1: f = 0
"""

from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np

from bayesref._checks import InputError

LABELS = (
    "FreeR_flag",
    "FREE",
    "FreeRflag",
    "R-free-flags",
    "R-free-flags(+)",
    "FreeR",
    "RFREE",
    "TEST",
    "status",
    "FREER",
)
MOST = 0.4  # of the reflections: more cannot be a free set


@dataclass(frozen=True, eq=False)
class FreeSet:
    """Which reflections are free.

    Attributes
    ----------
    label : of the column
    value : that means free
    hkl : (n, 3) int64
    free : (n,) bool
    note : a sentence on how it was recognised
    """

    label: str
    value: int
    hkl: np.ndarray
    free: np.ndarray
    note: str


def read_free_set(path: Path, mtz: gemmi.Mtz, label=None, value=None, required=False) -> FreeSet | None:
    """The free set of a file, or None where it has no flags.

    Parameters
    ----------
    label, value : column, and the value that means free; default: recognised
    required : raise where there are none

    Raises
    ------
    InputError : no such column, or flags whose meaning is unclear
    """
    integer = [c.label for c in mtz.columns if c.type == "I"]
    if label is not None and label not in mtz.column_labels():
        raise InputError(
            f"{path} has no column {label}; it has the integer columns {', '.join(integer) or 'none'}."
        )
    if label is None:
        named = [x for x in integer if x in LABELS or "free" in x.lower()]
        if not named:
            if required:
                raise InputError(
                    f"{path} has no R-free flags; it has the integer columns {', '.join(integer) or 'none'}."
                )
            return None
        label = named[0]
    flags = mtz.column_with_label(label).array
    known = np.isfinite(flags)
    hkl = np.array(mtz.array)[known, :3].astype(np.int64)
    flags = flags[known].astype(int)
    if value is None:
        value, how = recognise(flags, path, label)
        if value is None:
            return None
    else:
        how = "as asked"
    share = float((flags == value).mean()) if len(flags) else 0.0
    note = f"R-free: {label} = {value} ({how}), {100 * share:.1f} % of the reflections"
    return FreeSet(label, int(value), hkl, flags == value, note)


def recognise(flags: np.ndarray, path: Path, label: str) -> tuple[int | None, str]:
    """The value that means free, and by whose convention; None where all flags are alike (no free set)."""
    values, counts = np.unique(flags, return_counts=True)
    if len(values) < 2:
        return None, "all alike"
    share = dict(zip(values.tolist(), (counts / counts.sum()).tolist(), strict=True))
    if set(share) == {-1, 1}:
        return -1, "SHELX convention"
    if len(values) > 2:
        if 0 in share and share[0] < MOST:
            return 0, f"CCP4 convention, {len(values)} sets"
        raise InputError(
            f"{path}: {label} has {len(values)} values but no set 0; say which is free with --free-value."
        )
    if set(share) != {0, 1}:
        raise InputError(
            f"{path}: {label} has the values {values.tolist()}; say which is free with --free-value."
        )
    rare = min(share, key=lambda k: share[k])
    if share[rare] > MOST:
        raise InputError(
            f"{path}: {label} is 0 for {100 * share[0]:.0f} %, else 1; say which is free with --free-value."
        )
    return rare, "the rarer value" if rare == 0 else "Phenix convention"
