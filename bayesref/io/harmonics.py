"""Laue harmonics: spots that several orders of reflection share, how they are recognised and written out.

    h = n h0,  n = gcd(h, k, l)          reflection h on the ray of h0
    n λ = m λ_m = const,  n d = m d_m    every order m of the ray falls on the same pixel
    overlapped:  some m ≠ n with λ_low <= λ_m <= λ_high,  d_m >= dmin,  m h0 not systematically absent

The intensity of such a spot is a sum over orders, and says nothing of one of them alone. Low orders of a ray
cannot overlap in a narrow band: neighbours n, n + 1 both fit only where λ_high/λ_low >= (n + 1)/n. So the
spots concerned have small h0 and large n, which is why they stand out in a merged list. They are left out
(`overlapped`), or become one row for each order (`expand`), to be taken apart by the fit.
Cruickshank, Helliwell & Moffat (1987), Acta Cryst. A43, 656.
"""

from dataclasses import dataclass, replace

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
    require_column(table.name, list(table.columns), key, "wavelengths", "--wavelength-key")
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


@dataclass(frozen=True)
class Expanded:
    """Rays of one file, written out by order.

    Attributes
    ----------
    table : one row for each order of each ray, the wavelengths among its columns
    ray : (row,) int64, 0 .. n_ray-1, the spot that a row belongs to
    n_ray : int
    left_out : cause -> number of rows of the file
    notes : what the user should know
    """

    table: SpotTable
    ray: np.ndarray
    n_ray: int
    left_out: dict[str, int]
    notes: tuple[str, ...]


def band_of(bands: list[Band | None], asked: tuple[float, float] | str, names: list[str]) -> list[Band]:
    """The band of the beam for each file: `asked`, low and high in Å, or that of the file for 'auto'.

    Raises
    ------
    InputError : a file without wavelengths, or limits that are no band
    """
    if not isinstance(asked, str) and not 0 < asked[0] < asked[1]:
        raise InputError(
            f"The wavelengths {asked[0]:g} to {asked[1]:g} Å are no band; give the lower one first."
        )
    result = []
    for band, name in zip(bands, names, strict=True):
        if band is None:
            raise InputError(
                f"{name} has no column of wavelengths that vary on an image, so a range of wavelengths means nothing; "
                "leave it out, or name the column with --wavelength-key."
            )
        result.append(band if isinstance(asked, str) else Band(band.key, *asked))
    return result


def expand(
    table: SpotTable,
    keep: np.ndarray,
    *,
    band: Band,
    dmin: float | None,
    cell: gemmi.UnitCell,
    spacegroup: gemmi.SpaceGroup,
) -> Expanded:
    """Every order of every ray that the beam and the crystal's resolution allow, whichever order the file names.

    A ray that an image has twice (listed under two of its orders, or predicted twice) is one spot: it gets the
    weighted mean intensity and the larger of the standard deviations, since both are of the same pixels.

    Parameters
    ----------
    table, keep : rows of one file, and which of them to use, (row,) bool
    band : wavelengths of the beam
    dmin : resolution to which orders count, Å; None: that of the rows
    cell, spacegroup : of the crystal

    Raises
    ------
    InputError : most rays have no order within the band
    """
    wavelength = _positive(table, band.key)
    rows = np.flatnonzero(keep & np.isfinite(wavelength))
    left_out = {"without wavelength": int(keep.sum()) - len(rows)}
    n = np.maximum(np.gcd.reduce(table.hkl[rows], axis=1), 1)
    first = table.hkl[rows] // n[:, None]
    rows, at, I, SIGI, twice = _one_row_per_ray(table, rows, first)
    n, first = n[at], first[at]
    left_out["listed twice"] = twice
    d = cell.calculate_d_array(table.hkl[rows]) if len(rows) else np.zeros(0)
    limit = dmin if dmin is not None else (d.min() if len(d) else 0.0)
    ray, order = _orders(n * wavelength[rows], n * d, band, limit)
    hkl = first[ray] * order[:, None]
    there = ~is_absent(hkl, spacegroup) if len(hkl) else np.zeros(0, bool)
    ray, order, hkl = ray[there], order[there], hkl[there]
    used, ray_id = np.unique(ray, return_inverse=True)
    left_out["no order in the beam"] = len(rows) - len(used)
    if 2 * len(used) < len(rows) or not len(used):
        raise InputError(
            f"{table.name}: only {len(used):,} of {len(rows):,} spots have an order between {band.low:.4g} and "
            f"{band.high:.4g} Å at {limit:.3g} Å resolution; its wavelengths run from {np.nanmin(wavelength):.4g} to "
            f"{np.nanmax(wavelength):.4g} Å: give a range that holds them."
        )
    take = rows[ray]
    columns = {k: np.asarray(x)[take] for k, x in table.columns.items()}
    columns[band.key] = (n * wavelength[rows])[ray] / order
    n_several = int((np.bincount(ray_id) > 1).sum())
    notes = [f"{n_several:,} of {len(used):,} spots hold several harmonics and are taken apart"]
    if twice:
        notes.append(f"{twice:,} rows name a ray that its image has already: averaged into one spot each")
    expanded = replace(
        table, hkl=hkl.astype(table.hkl.dtype), I=I[ray], SIGI=SIGI[ray], image=table.image[take], columns=columns,
        row=take if table.row is None else table.row[take], flagged={},
    )  # fmt: skip
    return Expanded(expanded, ray_id, len(used), left_out, tuple(notes))


def _one_row_per_ray(table, rows, first):
    """Rows of distinct rays, their places among `rows`, I and SIGI, and how many rows were doubles."""
    key = np.column_stack([table.image[rows], first])
    _, at, group = np.unique(key, axis=0, return_index=True, return_inverse=True)
    weight = 1 / table.SIGI[rows] ** 2
    group = group.reshape(-1)
    mean = np.bincount(group, weight * table.I[rows]) / np.bincount(group, weight)
    sigma = np.zeros(len(at))
    np.maximum.at(sigma, group, table.SIGI[rows])
    order = np.argsort(at)  # in the order of the file
    at = at[order]
    return rows[at], at, mean[order], sigma[order], len(rows) - len(at)


def _orders(longest, largest, band: Band, dmin: float):
    """Ray and order of each order in the beam, from wavelength and d of the first order, (ray,) each."""
    low = np.maximum(np.ceil(longest / band.high * (1 - TOLERANCE)), 1).astype(int)
    high = np.floor(np.minimum(longest / band.low, largest / dmin) * (1 + TOLERANCE)).astype(int)
    count = np.maximum(high - low + 1, 0)
    ray = np.repeat(np.arange(len(count)), count)
    start = np.cumsum(count) - count
    return ray, low[ray] + np.arange(len(ray)) - start[ray]


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
