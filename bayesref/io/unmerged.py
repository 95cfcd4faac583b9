"""Unmerged intensities of one experiment, from files to `Observations`.

    files -> rows (one reader for each format) -> spots kept -> asymmetric unit -> sorted by reflection

Formats are recognised by content: MTZ, XDS_ASCII.HKL, INTEGRATE.HKL, CrystFEL streams, DIALS reflection
tables (with their .expt). Files are merged into one dataset, or kept apart with `separate`; either way they
share one cell and space group, and images are numbered through.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import torch

from bayesref._checks import InputError
from bayesref.crystal.asu import reciprocal_asu
from bayesref.crystal.lattice import (
    Cell,
    Group,
    as_cell,
    as_spacegroup,
    check_compatible,
    format_cell,
    mean_cell,
)
from bayesref.data.metadata import metadata_matrix
from bayesref.data.observations import Observations
from bayesref.data.overlaps import with_overlaps
from bayesref.data.report import FileReport, ReadReport
from bayesref.io.default_metadata import AUTO, default_keys
from bayesref.io.formats import read_tables
from bayesref.io.harmonics import band_of, expand, wavelength_band
from bayesref.io.rejection import Cutoffs, select
from bayesref.io.stills import with_cell_tolerance, with_image_resolution
from bayesref.io.table import SpotTable


def read_unmerged(
    files: str | Path | Sequence[str | Path],
    *,
    metadata_keys: Sequence[str] | str = (),
    positional_keys: Sequence[str] = (),
    n_frequencies: int = 4,
    intensity_key: str | None = None,
    sigma_key: str | None = None,
    image_key: str | None = None,
    anomalous: bool = False,
    separate: bool = False,
    spacegroup: Group | None = None,
    cell: Cell | None = None,
    dmin: float | None = None,
    dmax: float | None = None,
    isigi_cutoff: float | None = None,
    wavelength_key: str | None = None,
    keep_harmonics: bool = False,
    wavelength_range: tuple[float, float] | str | None = None,
    cell_tolerance: float | None = None,
    image_resolution: float | None = None,
) -> Observations:
    """Read unmerged intensities.

    Parameters
    ----------
    files : one or several; a DIALS .expt goes with its .refl
    metadata_keys : columns for the scale, standardised; see `bayesref.data.metadata` for the special names; 'auto':
        those that matter for the kind of data, see `bayesref.io.default_metadata`
    positional_keys, n_frequencies : columns to add as sines and cosines
    intensity_key, sigma_key, image_key : columns, where the defaults of the format will not do
    anomalous : keep Friedel mates of acentric reflections apart
    separate : one dataset per file, each reflection with one row per dataset
    spacegroup, cell : use these instead of what the files say
    dmin, dmax : resolution limits, Å
    isigi_cutoff : smallest I/SIGI
    wavelength_key : column of wavelengths of polychromatic (Laue) data, Å; None: a column called 'Wavelength'
        whose values differ by more than 1 % on one image; '': the data are monochromatic
    keep_harmonics : keep spots that several harmonics share; they are left out by default
    wavelength_range : wavelengths of the beam, low and high in Å, or 'auto' for those of the file: spots that several
        harmonics share become the `overlaps` of the result, one row for each order within the range
    cell_tolerance : of stills, leave out images whose cell differs from the median by more (`io.stills`)
    image_resolution : of stills, leave out spots beyond 1/d of their image's limit + this, Å⁻¹

    Returns
    -------
    Observations, sorted by reflection; its `report` says what was read and left out

    Raises
    ------
    InputError : one sentence that names the file, what was found, what was expected and the remedy
    """
    tables = read_tables(files, intensity_key=intensity_key, sigma_key=sigma_key, image_key=image_key)
    if cell_tolerance is not None:
        tables = with_cell_tolerance(tables, cell_tolerance)
    if image_resolution is not None:
        tables = with_image_resolution(tables, image_resolution)
    unit_cell, group = common_crystal(tables, cell, spacegroup)
    cutoffs = Cutoffs(dmin, dmax, isigi_cutoff)
    bands = [wavelength_band(t, wavelength_key) for t in tables]
    deconvolve = wavelength_range is not None
    if wavelength_range is not None:
        bands = [*band_of(bands, wavelength_range, [t.name for t in tables])]
    selected = [
        select(t, unit_cell, group, cutoffs, None if keep_harmonics or deconvolve else band)
        for t, band in zip(tables, bands, strict=True)
    ]
    report = list(zip(tables, selected, bands, strict=True))
    ray = None
    if deconvolve:
        tables, selected, ray, report = _by_order(report, dmin, unit_cell, group)
    keep = [k for k, _ in selected]
    spots = _concatenate(tables, keep)
    dataset_id = spots["file_id"] if separate else None
    asu, hkl_id = reciprocal_asu(spots["hkl"], unit_cell, group, anomalous, dataset_id)
    image_id, image_file, image_number = _number_images(spots["file_id"], spots["image"])
    # A stable sort keeps the order of the files within each reflection.
    order = np.argsort(hkl_id.numpy(), kind="stable")
    keys = _Columns(tables, keep, spots, image_id, 1 / asu.dHKL.numpy()[hkl_id] ** 2)
    if metadata_keys == AUTO:
        beams = {band.key for band in bands if band is not None}
        metadata_keys = default_keys(keys, sorted(beams), any(t.stills is not None for t in tables))
    try:
        metadata, transform = metadata_matrix(keys, metadata_keys, positional_keys, n_frequencies)
    except InputError as e:
        raise InputError(f"{tables[0].name}{' and others' if len(tables) > 1 else ''}: {e}") from None
    obs = Observations(
        asu=asu,
        hkl_id=hkl_id[order],
        image_id=torch.from_numpy(image_id[order]),
        file_id=torch.from_numpy(spots["file_id"][order]),
        I=torch.from_numpy(spots["I"][order]),
        SIGI=torch.from_numpy(spots["SIGI"][order]),
        hkl=torch.from_numpy(spots["hkl"][order].astype(np.int64)),
        metadata=metadata[order],
        metadata_keys=transform.columns,
        row=torch.from_numpy(spots["row"][order]),
        n_image=len(image_number),
        files=tuple(t.name for t in tables),
        image_number=torch.from_numpy(image_number),
        image_file=torch.from_numpy(image_file),
        transform=transform,
        report=_report(report, image_file, asu),
        wavelength=_wavelength(tables, keep, bands, order),
    )
    return obs if ray is None else with_overlaps(obs, torch.from_numpy(ray[order]))


def _by_order(rows, dmin, cell, group):
    """Tables with a row for each order of each ray, all of them kept; the ray of each row; and what to report."""
    expanded = [
        expand(t, keep, band=band, dmin=dmin, cell=cell, spacegroup=group) for t, (keep, _), band in rows
    ]
    start = np.cumsum([0, *(e.n_ray for e in expanded)])
    ray = np.concatenate([e.ray + first for e, first in zip(expanded, start, strict=False)])
    selected: list = [(np.ones(len(e.table), dtype=bool), {}) for e in expanded]
    report = [
        (replace(t, notes=(*t.notes, *e.notes)), (np.arange(len(t)) < e.n_ray, left_out | e.left_out), band)
        for e, (t, (_, left_out), band) in zip(expanded, rows, strict=True)
    ]
    return [e.table for e in expanded], selected, ray, report


def _wavelength(tables, keep, bands, order):
    """Å, (spot,), or None where a file has none."""
    if any(band is None for band in bands):
        return None
    values = [t.columns[b.key][k] for t, k, b in zip(tables, keep, bands, strict=True)]
    return torch.from_numpy(np.concatenate(values).astype(float)[order])


def common_crystal(
    tables: Sequence[SpotTable], cell: Cell | None, spacegroup: Group | None
) -> tuple[gemmi.UnitCell, gemmi.SpaceGroup]:
    """The cell and space group that all files share, or those that override them.

    Raises
    ------
    InputError : where files disagree, or none has the information
    """
    if cell is not None:
        unit_cell = as_cell(cell)
    else:
        known = [(_checked(t.cell, t.name), t.name) for t in tables if t.cell is not None]
        if not known:
            raise InputError(f"{tables[0].name} ({tables[0].format}) has no unit cell; give one with --cell.")
        unit_cell = mean_cell([c for c, _ in known], [name for _, name in known])
    group = as_spacegroup(spacegroup) if spacegroup is not None else _common_spacegroup(tables)
    check_compatible(unit_cell, group)
    return unit_cell, group


def _checked(cell: gemmi.UnitCell, name: str) -> gemmi.UnitCell:
    try:
        return as_cell(cell)
    except InputError as e:
        raise InputError(f"{name}: {e}") from None


def _common_spacegroup(tables: Sequence[SpotTable]) -> gemmi.SpaceGroup:
    known = [(t.spacegroup, t.name) for t in tables if t.spacegroup is not None]
    if not known:
        raise InputError(
            f"{tables[0].name} ({tables[0].format}) has no space group; give one with --spacegroup."
        )
    group, first = known[0]
    for other, name in known[1:]:
        if other.xhm() != group.xhm():
            raise InputError(
                f"{first} is in space group {group.xhm()} but {name} in {other.xhm()}; "
                "leave one out, or give the one to use for all with --spacegroup."
            )
    return group


def _concatenate(tables: Sequence[SpotTable], keep: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Columns of the rows kept, all files one after another."""
    pairs = list(zip(tables, keep, strict=True))
    names = ("hkl", "I", "SIGI", "image")
    columns = {name: np.concatenate([getattr(t, name)[k] for t, k in pairs]) for name in names}
    columns["row"] = np.concatenate([np.flatnonzero(k) if t.row is None else t.row[k] for t, k in pairs])
    columns["file_id"] = np.repeat(np.arange(len(tables)), [int(k.sum()) for k in keep])
    return columns


def _number_images(file_id: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images numbered 0, 1, ... by file and the file's own number: image_id, image_file, image_number."""
    low, width = image.min(), np.ptp(image) + 1
    key, image_id = np.unique(file_id * width + (image - low), return_inverse=True)
    image_file, image_number = np.divmod(key, width)
    return image_id, image_file, image_number + low


class _Columns(dict):
    """Metadata columns of the kept spots, made when asked for: most are never used."""

    def __init__(self, tables, keep, spots, image_id, inverse_d2):
        hkl = spots["hkl"]
        special = dict(zip(("Hobs", "Kobs", "Lobs"), hkl.T, strict=True))
        special |= {"dHKL": inverse_d2, "file_id": spots["file_id"], "image_id": image_id}
        shared = [k for k in tables[0].columns if all(k in t.columns for t in tables)]
        super().__init__(dict.fromkeys(shared) | special)
        self._pairs = list(zip(tables, keep, strict=True))

    def __getitem__(self, key):
        value = super().__getitem__(key)
        return np.concatenate([t.columns[key][k] for t, k in self._pairs]) if value is None else value


def _report(rows, image_file, asu) -> ReadReport:
    n_image = np.bincount(image_file, minlength=len(rows))
    files = tuple(
        FileReport(
            name=t.name,
            format=t.format,
            n_read=len(t),
            left_out=left_out,
            n_spot=int(keep.sum()),
            n_image=int(n_image[i]),
            cell=format_cell(t.cell) if t.cell is not None else "",
            spacegroup=t.spacegroup.xhm() if t.spacegroup is not None else "",
            notes=t.notes if band is None else (*t.notes, str(band)),
            stills=t.stills is not None,
        )
        for i, (t, (keep, left_out), band) in enumerate(rows)
    )
    return ReadReport(
        files=files,
        n_reflection=len(asu),
        cell=format_cell(asu.cell),
        spacegroup=asu.spacegroup.xhm(),
        resolution=(float(asu.dHKL.max()), float(asu.dHKL.min())),
    )
