"""Which rows become spots, and why the others do not.

A row is left out under the first cause that applies:

    the format's own mark   | I or SIGI not finite | SIGI <= 0 | systematic absence or (0, 0, 0)
    | d < dmin              | d > dmax             | I/SIGI < cutoff
    | overlapped harmonic (Laue; `bayesref.io.harmonics`)

Negative intensities stay: they are what a weak reflection looks like. A cut-off on I/SIGI biases weak
reflections upwards; it exists for stills with many empty predictions.
"""

from dataclasses import dataclass

import gemmi
import numpy as np

from bayesref._checks import InputError
from bayesref.crystal.symmetry import is_absent
from bayesref.io.harmonics import Band, overlapped
from bayesref.io.table import SpotTable


@dataclass(frozen=True)
class Cutoffs:
    """Limits of resolution (Å) and of I/SIGI; None: no limit."""

    dmin: float | None = None
    dmax: float | None = None
    isigi: float | None = None


def select(
    table: SpotTable,
    cell: gemmi.UnitCell,
    spacegroup: gemmi.SpaceGroup,
    cutoffs: Cutoffs,
    band: Band | None = None,
) -> tuple[np.ndarray, dict[str, int]]:
    """Rows to keep.

    Parameters
    ----------
    table : rows of one file
    cell, spacegroup : of the crystal
    cutoffs : limits
    band : wavelengths of a polychromatic file whose overlapped harmonics are to go

    Returns
    -------
    keep : (row,) bool
    left_out : cause -> number of rows

    Raises
    ------
    InputError : no row is left, or no sigma or no intensity is above zero
    """
    keep = np.ones(len(table), dtype=bool)
    left_out = {}
    for cause, bad in _causes(table, cell, spacegroup, cutoffs):
        left_out[cause] = int((keep & bad).sum())
        keep &= ~bad
    if band is not None and keep.any():
        bad = _harmonics(table, keep, cell, spacegroup, band)
        left_out["overlapped harmonics"] = int(bad.sum())
        keep &= ~bad
    if not keep.any():
        raise InputError(_nothing_left(table, left_out))
    if not (table.I[keep] > 0).any():
        raise InputError(f"{table.name}: no intensity is above zero; name their column with --intensity-key.")
    return keep, left_out


def _causes(table, cell, spacegroup, cutoffs):
    """Yield (cause, (row,) bool), cheap and certain causes first."""
    yield from table.flagged.items()
    yield "not finite", ~(np.isfinite(table.I) & np.isfinite(table.SIGI))
    yield "sigma <= 0", table.SIGI <= 0
    yield "systematically absent", is_absent(table.hkl, spacegroup)
    d = cell.calculate_d_array(table.hkl)
    if cutoffs.dmin is not None:
        yield "beyond dmin", d < cutoffs.dmin
    if cutoffs.dmax is not None:
        yield "below dmax", d > cutoffs.dmax
    if cutoffs.isigi is not None:
        yield "weak (I/sigma)", np.less(table.I, cutoffs.isigi * table.SIGI)


def _harmonics(table, keep, cell, spacegroup, band) -> np.ndarray:
    """(row,) bool, within the rows kept: the smallest d among these says how far the crystal diffracts."""
    hkl = table.hkl[keep]
    d = cell.calculate_d_array(hkl)
    wavelength = np.asarray(table.columns[band.key][keep], dtype=float)
    bad = np.zeros(len(table), dtype=bool)
    bad[keep] = overlapped(hkl, wavelength, d, band=band, dmin=d.min(), spacegroup=spacegroup)
    return bad


def _nothing_left(table: SpotTable, left_out: dict[str, int]) -> str:
    if not len(table):
        return f"{table.name} has no reflections; expected unmerged intensities."
    if not (table.SIGI > 0).any():
        return (
            f"{table.name}: no value of {table.sigma_name} is above zero, so no spot can be weighted; "
            "name the column of standard deviations with --sigma-key."
        )
    causes = ", ".join(f"{n:,} {cause}" for cause, n in left_out.items() if n)
    return f"{table.name}: none of {len(table):,} rows is left ({causes}); relax the cut-offs."
