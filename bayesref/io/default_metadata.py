"""What the scale depends on where nobody said: the columns of a file that matter for its kind of data.

    stills       ewald_offset, dHKL                                    partiality, and the fall-off
    Laue         X, Y, Wavelength, dHKL, Hobs, Kobs, Lobs              the spectrum, and absorption by direction
    rotation     BATCH, dHKL, X, Y                                     decay and beam, absorption over the detector

Each name stands for what the format calls it. A column that is missing, not finite or the same for every spot is left
out: a term of the scale that the data do not need shrinks to nothing, one that they need cannot be made up for.
"""

from collections.abc import Mapping, Sequence

import numpy as np

AUTO = "auto"  # in place of names
POSITIONS = (("X", "Y"), ("XDET", "YDET"))  # on the detector
IMAGES = ("BATCH", "Z", "image_id")  # along the scan


def default_keys(columns: Mapping[str, np.ndarray], wavelength: Sequence[str], stills: bool) -> list[str]:
    """Metadata keys for spots of one kind.

    Parameters
    ----------
    columns : by name, each (spot,)
    wavelength : name of the column of wavelengths, or names where files differ; none for monochromatic data
    stills : whether each image is of its own orientation
    """

    def first(*choices: tuple[str, ...]) -> tuple[str, ...]:
        return next((c for c in choices if all(_says_something(columns, k) for k in c)), ())

    if stills:
        names = first(("ewald_offset",))
        return [*names, *first(("dHKL",))] if names else []
    position = first(*POSITIONS)
    if len(wavelength) == 1:
        observed = [k for k in ("Hobs", "Kobs", "Lobs") if _says_something(columns, k)]
        return [*position, *first(tuple(wavelength)), *first(("dHKL",)), *observed]
    return [*first(*((k,) for k in IMAGES)), *first(("dHKL",)), *position]


def _says_something(columns: Mapping[str, np.ndarray], key: str) -> bool:
    """Whether a column is there, finite, and not the same for every spot."""
    if key not in columns:
        return False
    x = np.asarray(columns[key])
    return x.dtype.kind in "fiub" and len(x) > 0 and bool(np.isfinite(x).all()) and bool(np.ptp(x) > 0)
