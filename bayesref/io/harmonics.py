"""Laue harmonics: spots that several orders of reflection share, and how they are recognised.

    h = n h0,  n = gcd(h, k, l)          reflection h on the ray of h0
    n λ = m λ_m = const,  n d = m d_m    every order m of the ray falls on the same pixel
    overlapped:  some m ≠ n with λ_low <= λ_m <= λ_high,  d_m >= dmin,  m h0 not systematically absent

The intensity of such a spot is a sum over orders, and says nothing of one of them alone. Low orders of a ray
cannot overlap in a narrow band: neighbours n, n + 1 both fit only where λ_high/λ_low >= (n + 1)/n. So the
spots concerned have small h0 and large n, which is why they stand out in a merged list.
Cruickshank, Helliwell & Moffat (1987), Acta Cryst. A43, 656.
"""

from dataclasses import dataclass

import gemmi
import numpy as np

from bayesref._checks import InputError
from bayesref.crystal.symmetry import is_absent
from bayesref.io.table import SpotTable, require_column

POLYCHROMATIC = 0.01  # spread of wavelengths on one image over their mean; a monochromator's is below 0.001
TOLERANCE = 1e-6  # relative; wavelengths in an MTZ file have seven digits


@dataclass(frozen=True)
class Band:
    """Wavelengths that a polychromatic file holds.

    Attributes
    ----------
    key : column
    low, high : Å
    """

    key: str
    low: float
    high: float

    def __str__(self) -> str:
        return f"polychromatic: {self.key} from {self.low:.4g} to {self.high:.4g} Å"


def wavelength_band(table: SpotTable, key: str | None = None) -> Band | None:
    """The band of a polychromatic file, None for a monochromatic one.

    Parameters
    ----------
    table : rows of one file
    key : column of wavelengths, Å; None: a column called 'wavelength', in any case, if its values spread by
        more than 1 % on one image; '': none, the file is taken as monochromatic

    Raises
    ------
    InputError : a key that is not there, or has no value above zero
    """
    if key == "":
        return None
    if key is None:
        named = [name for name in table.columns if name.lower() == "wavelength"]
        if not named or _spread(table, named[0]) <= POLYCHROMATIC:
            return None
        key = named[0]
    require_column(table.name, list(table.columns), key, "wavelengths", "wavelength_key")
    wavelength = _positive(table, key)
    if not np.isfinite(wavelength).any():
        raise InputError(f"{table.name}: column '{key}' has no wavelength above zero; name another column.")
    return Band(key, float(np.nanmin(wavelength)), float(np.nanmax(wavelength)))


def overlapped(
    hkl: np.ndarray,
    wavelength: np.ndarray,
    d: np.ndarray,
    *,
    band: Band,
    dmin: float,
    spacegroup: gemmi.SpaceGroup,
) -> np.ndarray:
    """Spots that hold more than one order of their ray.

    Parameters
    ----------
    hkl : (spot, 3) int
    wavelength : (spot,) Å; a spot without one (NaN) counts as not overlapped
    d : (spot,) Å
    band : wavelengths of the beam
    dmin : resolution to which the crystal diffracts, Å
    spacegroup : for the orders that are systematically absent

    Returns
    -------
    (spot,) bool
    """
    n = np.maximum(np.gcd.reduce(hkl, axis=1), 1)
    with np.errstate(invalid="ignore"):
        low = np.ceil(n * wavelength / band.high * (1 - TOLERANCE))
        high = np.floor(np.minimum(n * wavelength / band.low, n * d / dmin) * (1 + TOLERANCE))
        several = (low < n) | (high > n)
    result = np.zeros(len(hkl), dtype=bool)
    rest = np.flatnonzero(several & (low <= high))
    ray = hkl[rest] // n[rest, None]
    orders = range(int(low[rest].min()), int(high[rest].max()) + 1) if len(rest) else ()
    for m in orders:
        there = (low[rest] <= m) & (m <= high[rest]) & (n[rest] != m)
        result[rest[there]] |= ~is_absent(m * ray[there], spacegroup)
    return result


def _positive(table: SpotTable, key: str) -> np.ndarray:
    """Wavelengths (row,), NaN where there is none."""
    wavelength = np.asarray(table.columns[key], dtype=float)
    return np.where(np.isfinite(wavelength) & (wavelength > 0), wavelength, np.nan)


def _spread(table: SpotTable, key: str) -> float:
    """Largest (max - min) / mean of the wavelengths of one image: scans of wavelength do not count."""
    wavelength = _positive(table, key)
    known = np.isfinite(wavelength)
    if not known.any():
        return 0.0
    _, image = np.unique(table.image[known], return_inverse=True)
    low, high = np.full(image.max() + 1, np.inf), np.zeros(image.max() + 1)
    np.minimum.at(low, image, wavelength[known])
    np.maximum.at(high, image, wavelength[known])
    return float((high - low).max() / wavelength[known].mean())
