"""What stills say of each image beside its spots, and how far a spot is from the Ewald sphere.

    q = A h,     x = |s₀ + q| - 1/λ          A: columns a*, b*, c* (Å⁻¹); s₀: along the beam, 1/λ long
    x = 0: the reflection is in the diffracting condition; x < 0: its reciprocal point lies inside the sphere

A still records the part of a reflection that its Ewald sphere cuts, so that x is what partiality depends on
(White et al., 2013, Acta Cryst. D69, 1231). As the column `ewald_offset` it is a metadata key.
"""

from dataclasses import dataclass, replace

import gemmi
import numpy as np

from bayesref._checks import InputError
from bayesref.crystal.lattice import format_cell


@dataclass(frozen=True, eq=False)
class Stills:
    """The images of one file.

    Attributes
    ----------
    number : (image,) int64, the file's own number of each image
    cell : (image, 6) Å and degrees, of the crystal on it
    limit : (image,) Å, how far the crystal diffracts, as the integration program says; NaN where it does not
    """

    number: np.ndarray
    cell: np.ndarray
    limit: np.ndarray

    def __len__(self) -> int:
        return len(self.number)

    def rows(self, image) -> np.ndarray:
        """Row of this table for each image number, (spot,)."""
        order = np.argsort(self.number)
        return order[np.searchsorted(self.number[order], image)]


def ewald_offset(hkl, A, wavelength, beam=(0.0, 0.0, 1.0)) -> np.ndarray:
    """x of each spot, Å⁻¹, (spot,).

    Parameters
    ----------
    hkl : (spot, 3)
    A : (3, 3) or (spot, 3, 3), columns a*, b*, c*, Å⁻¹
    wavelength : Å, a number or (spot,)
    beam : (3,) or (spot, 3), the direction that X-rays travel
    """
    q = np.einsum("...ij,...j->...i", A, np.asarray(hkl, dtype=np.float64))
    beam = np.asarray(beam, dtype=np.float64)
    beam = beam / np.linalg.norm(beam, axis=-1, keepdims=True)
    k = 1.0 / np.asarray(wavelength, dtype=np.float64)
    # |s₀ + q| - |s₀| without the difference of two nearly equal lengths
    s2 = 2 * k * (q * beam).sum(-1) + (q**2).sum(-1)
    return s2 / (np.sqrt(np.maximum(k**2 + s2, 0)) + k)


def cell_parameters(axes) -> np.ndarray:
    """a b c α β γ, (..., 6), of the axes a, b, c in Å, (..., axis, xyz)."""
    lengths = np.linalg.norm(axes, axis=-1)
    unit = axes / lengths[..., None]
    cosines = [(unit[..., i, :] * unit[..., j, :]).sum(-1) for i, j in ((1, 2), (0, 2), (0, 1))]
    return np.concatenate([lengths, np.degrees(np.arccos(np.stack(cosines, axis=-1)))], axis=-1)


def with_cell_tolerance(tables, tolerance: float):
    """The tables with rows of images flagged whose cell is not like the others'.

    The consensus is the median of each cell parameter over all images. An image is outside where an axis differs from
    it by more than the fraction `tolerance`, or an angle by more than `tolerance` radians. Where a file's cell is
    the mean of its images, it becomes that of the images inside.

    Raises
    ------
    InputError : a tolerance that is not above zero, a file without cells of images, or no image left
    """
    if not tolerance > 0:
        raise InputError(f"The cell tolerance is {tolerance:g}; give a fraction above zero, such as 0.02.")
    for t in tables:
        if t.stills is None:
            raise InputError(
                f"{t.name} ({t.format}) has no cell for each image, so that a cell tolerance means nothing; "
                "leave it out, or give a CrystFEL stream or DIALS stills."
            )
    cells = [t.stills.cell for t in tables]
    median = np.median(np.concatenate(cells), axis=0)
    inside = [np.all(np.abs(_difference(c, median)) <= tolerance, axis=1) for c in cells]
    if not any(i.any() for i in inside):
        raise InputError(
            f"{tables[0].name}: no image has a cell within {tolerance:g} of the median "
            f"{format_cell(gemmi.UnitCell(*median))}; give a larger cell tolerance."
        )
    return [_flagged(t, ok) for t, ok in zip(tables, inside, strict=True)]


def _difference(cell, median) -> np.ndarray:
    """Relative differences of axes, and angles in radians, (image, 6)."""
    return np.concatenate([cell[:, :3] / median[:3] - 1, np.radians(cell[:, 3:] - median[3:])], axis=1)


def _flagged(table, inside):
    bad = ~inside[table.stills.rows(table.image)]
    cell = table.cell
    if inside.any() and np.allclose(cell.parameters, table.stills.cell.mean(axis=0), rtol=1e-6):
        cell = gemmi.UnitCell(*table.stills.cell[inside].mean(axis=0))
    note = f"{int((~inside).sum()):,} of {len(inside):,} images have another cell"
    return replace(
        table, flagged={"cell outside tolerance": bad} | table.flagged, cell=cell, notes=(*table.notes, note)
    )


def with_image_resolution(tables, margin: float):
    """The tables with rows flagged that lie beyond what their image diffracts to.

    A row goes where 1/d > 1/d_image + `margin` (Å⁻¹), d_image being the limit in the file. Images without one keep
    all their rows.

    Raises
    ------
    InputError : a file without limits
    """
    result = []
    for t in tables:
        if t.stills is None or not np.isfinite(t.stills.limit).any():
            raise InputError(
                f"{t.name} ({t.format}) does not say how far each image diffracts; leave out the image resolution."
            )
        limit = 1.0 / t.stills.limit[t.stills.rows(t.image)] + margin
        beyond = 1.0 / t.cell.calculate_d_array(t.hkl) > np.where(np.isfinite(limit), limit, np.inf)
        result.append(replace(t, flagged=t.flagged | {"beyond the image's resolution": beyond}))
    return result
