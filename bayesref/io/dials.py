"""DIALS reflection tables (.refl) with their experiment lists (.expt).

    I    = intensity c,   SIGI = √variance c
    c    = lp / qe                   both from the table, where it has them (rotation data)
    c    = lp / (qe partiality)      summed intensities of rotation data

Profile-fitted intensities (intensity.prf) are taken where the table has them, else summed ones
(intensity.sum); rows that were not integrated that way are left out, and, of rotation data, those that were
recorded to less than 0.4, the limit that DIALS uses for scaling. Cell and space group are those of the
crystals in the .expt; an image is one frame of a scan, or one still.

Any numeric column of the table is a metadata key, with .0 .1 .2 for the components of a vector; X, Y and Z
stand for xyzcal.px, Wavelength for that of the experiment's beam. Stills have `ewald_offset` besides, how far a
spot is from the Ewald sphere (`bayesref.io.stills`), from the orientation of each crystal.
"""

import json
from pathlib import Path
from typing import Any

import gemmi
import msgpack
import numpy as np
from reciprocalspaceship.io.dials import MSGPACK_DTYPES, get_msgpack_data

from bayesref._checks import InputError
from bayesref.io.stills import Stills, cell_parameters, ewald_offset
from bayesref.io.table import SpotTable, require_column

INTEGRATED = {"intensity.sum.value": 1 << 8, "intensity.prf.value": 1 << 9}  # bits of `flags`
MIN_PARTIALITY = 0.4
FRAMES_PER_EXPERIMENT = 10**6


def read_dials(
    path: Path,
    intensity_key: str | None = None,
    sigma_key: str | None = None,
    image_key: str | None = None,
    expt: Path | None = None,
) -> SpotTable:
    """Rows of a DIALS reflection table.

    Parameters
    ----------
    path : .refl
    intensity_key : default: intensity.prf.value, else intensity.sum.value
    sigma_key : column of standard deviations; default: the root of the matching variance
    image_key : default: experiment and frame
    expt : the experiment list, without it cell and space group are unknown

    Raises
    ------
    InputError : not a reflection table, not integrated, or a column is missing
    """
    table = _load_refl(path)
    experiments = _load_expt(expt) if expt else {}
    names = list(table)
    for name in ("miller_index.0", "id"):
        require_column(path, names, name, "spots", "dials.integrate")
    intensity, SIGI = _intensity(path, table, intensity_key, sigma_key)
    is_scan = _is_scan(table, experiments)
    flagged = {"unindexed": table["id"] < 0} | _not_integrated(table, intensity, is_scan)
    correction = _correction(table, intensity, is_scan)
    image = _image(table, is_scan)
    if image_key is not None:
        image = np.floor(table[require_column(path, names, image_key, "images", "--image-key")]).astype(int)
    hkl = np.stack([table[f"miller_index.{i}"] for i in range(3)], axis=1)
    return SpotTable(
        name=str(path),
        format="DIALS" if expt else "DIALS, no .expt beside it",
        hkl=hkl.astype(np.int32),
        I=table[intensity] * correction,
        SIGI=SIGI * correction,
        image=image.astype(np.int64),
        columns=_columns(table, experiments, is_scan),
        cell=_mean_crystal_cell(experiments),
        spacegroup=_spacegroup(expt, experiments),
        flagged=flagged,
        sigma_name=sigma_key or intensity.replace("value", "variance"),
        notes=(f"intensity {intensity}",),
        stills=_stills(experiments) if image_key is None and not is_scan.any() else None,
    )


def _load_refl(path: Path) -> dict[str, np.ndarray]:
    """Columns of numbers, vectors by component."""
    try:
        with path.open("rb") as f:
            _, _, pack = msgpack.load(f, strict_map_key=False)
        known = [name for name, (kind, _) in pack["data"].items() if kind in MSGPACK_DTYPES]
        table: dict[str, np.ndarray] = {}
        for name in known:
            table |= get_msgpack_data(pack["data"], name)
    except (ValueError, KeyError, TypeError, msgpack.UnpackException) as e:
        raise InputError(f"{path} is not a complete DIALS reflection table ({e}); write it again.") from e
    return table


def _load_expt(path: Path) -> dict[str, Any]:
    try:
        experiments = json.loads(path.read_text())
        for e in experiments["experiment"]:
            experiments["crystal"][e["crystal"]]["real_space_a"]
    except (ValueError, KeyError, TypeError, IndexError) as e:
        raise InputError(f"{path} is not a DIALS experiment list with crystals ({e!r}).") from e
    return experiments


def _intensity(path: Path, table, key: str | None, sigma_key: str | None) -> tuple[str, np.ndarray]:
    """Name of the intensity column, and SIGI before correction."""
    names = list(table)
    if key is None:
        key = next(
            (n for n in ("intensity.prf.value", "intensity.sum.value") if n in table), "intensity.sum.value"
        )
    require_column(path, names, key, "intensities (was it integrated?)", "--intensity-key")
    if sigma_key is not None:
        return key, table[require_column(path, names, sigma_key, "standard deviations", "--sigma-key")]
    variance = require_column(path, names, key.replace("value", "variance"), "variances", "--sigma-key")
    # A variance that is not positive becomes a sigma that is not: it will be counted and left out.
    return key, np.sign(table[variance]) * np.sqrt(np.abs(table[variance]))


def _is_scan(table, experiments) -> np.ndarray:
    """(row,) bool: from rotation data."""
    scans = [e.get("scan") is not None for e in experiments.get("experiment", ())]
    if not scans:
        return np.zeros(len(table["id"]), dtype=bool)
    return np.array(scans)[np.clip(table["id"], 0, len(scans) - 1)]


def _not_integrated(table, intensity: str, is_scan) -> dict[str, np.ndarray]:
    causes = {}
    if "flags" in table and intensity in INTEGRATED:
        causes["not integrated"] = (table["flags"] & INTEGRATED[intensity]) == 0
    if "partiality" in table:
        causes["partial"] = is_scan & (table["partiality"] < MIN_PARTIALITY)
    return causes


def _correction(table, intensity: str, is_scan) -> np.ndarray:
    c = np.ones(len(table["id"]))
    if intensity not in INTEGRATED:
        return c
    c = c * table.get("lp", 1.0)
    efficiency = table.get("qe", table.get("dqe", np.ones_like(c)))
    c = np.divide(c, efficiency, out=np.full_like(c, np.nan), where=efficiency > 0)
    if intensity == "intensity.sum.value" and "partiality" in table:
        scale = is_scan & (table["partiality"] >= MIN_PARTIALITY)
        c = np.where(scale, c / np.where(scale, table["partiality"], 1.0), c)
    return c


def _image(table, is_scan) -> np.ndarray:
    if not is_scan.any():
        return table["id"] + 1
    frame = np.floor(table["xyzcal.px.2"]) if "xyzcal.px.2" in table else np.zeros(len(table["id"]))
    return table["id"] * FRAMES_PER_EXPERIMENT + np.where(is_scan, frame + 1, 0).astype(np.int64)


def _columns(table, experiments, is_scan) -> dict[str, np.ndarray]:
    columns = {k: v for k, v in table.items() if not k.startswith("miller_index")}
    columns |= {axis: table[f"xyzcal.px.{i}"] for i, axis in enumerate("XYZ") if f"xyzcal.px.{i}" in table}
    beams = [experiments["beam"][e["beam"]] for e in experiments.get("experiment", ())]
    if beams and all("wavelength" in b for b in beams):
        wavelength = np.array([b["wavelength"] for b in beams])
        columns["Wavelength"] = wavelength[np.clip(table["id"], 0, len(beams) - 1)]
        if not is_scan.any():
            columns["ewald_offset"] = _ewald_offset(table, experiments, columns["Wavelength"])
    return columns


def _ewald_offset(table, experiments, wavelength) -> np.ndarray:
    """x of each spot of stills, Å⁻¹. An experiment list has its crystals without the goniometer's settings."""
    listed = experiments["experiment"]
    # DIALS points its beam from the sample to the source.
    beam = -np.array(
        [experiments["beam"][e["beam"]].get("direction", (0, 0, 1)) for e in listed], dtype=float
    )
    A = np.array([_setting(experiments, e) @ np.linalg.inv(_axes(experiments, e)) for e in listed])
    which = np.clip(table["id"], 0, len(listed) - 1)
    hkl = np.stack([table[f"miller_index.{i}"] for i in range(3)], axis=1)
    return ewald_offset(hkl, A[which], wavelength, beam[which])


def _axes(experiments, e) -> np.ndarray:
    """a, b, c in rows, Å."""
    crystal = experiments["crystal"][e["crystal"]]
    return np.array([crystal[f"real_space_{axis}"] for axis in "abc"])


def _setting(experiments, e) -> np.ndarray:
    """Setting times fixed rotation of the goniometer, which a still need not have."""
    if e.get("goniometer") is None:
        return np.eye(3)
    g = experiments["goniometer"][e["goniometer"]]
    setting, fixed = (np.reshape(g.get(k, np.eye(3)), (3, 3)) for k in ("setting_rotation", "fixed_rotation"))
    return setting @ fixed


def _stills(experiments) -> Stills | None:
    """The cell of each image, numbered as `_image` does."""
    if not experiments:
        return None
    cells = cell_parameters(np.array([_axes(experiments, e) for e in experiments["experiment"]]))
    return Stills(np.arange(len(cells)) + 1, cells, np.full(len(cells), np.nan))


def _mean_crystal_cell(experiments) -> gemmi.UnitCell | None:
    """The mean over crystals: stills differ more than the cells of rotation data may."""
    if not experiments:
        return None
    axes = np.array(
        [[c[f"real_space_{axis}"] for axis in "abc"] for c in experiments["crystal"]]
    )  # (crystal, axis, xyz)
    return gemmi.UnitCell(*cell_parameters(axes).mean(axis=0))


def _spacegroup(path: Path | None, experiments) -> gemmi.SpaceGroup | None:
    symbols = sorted({c["space_group_hall_symbol"] for c in experiments.get("crystal", ())})
    if not symbols:
        return None
    groups = [gemmi.find_spacegroup_by_ops(gemmi.symops_from_hall(s)) for s in symbols]
    if None in groups or len({g.xhm() for g in groups}) > 1:
        found = ", ".join(s.strip() for s in symbols)
        raise InputError(
            f"{path} has crystals of space groups {found}; expected one that is in the tables: "
            "reindex them, or leave some out."
        )
    return groups[0]
