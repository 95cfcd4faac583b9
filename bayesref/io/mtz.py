"""Unmerged MTZ: columns by their MTZ type, indices as observed.

    type J, Q   intensity and its standard deviation
    type B      image (BATCH)
    type Y      M/ISYM = 256 M + ISYM, which operator brought the observed index into the asymmetric unit

Three conventions are in use and all are read: reduced indices with M/ISYM (CCP4, DIALS,
reciprocalspaceship), which is undone with the symmetry operators in the order of the file's own header;
observed indices with ISYM = 1 everywhere; observed indices without M/ISYM. Partially recorded reflections
(M = 1) are summed where the file says how: see `bayesref.io.partials`.
"""

from pathlib import Path

import gemmi
import numpy as np

from bayesref._checks import InputError
from bayesref.io.partials import sum_partials
from bayesref.io.table import SpotTable, require_column


def read_mtz(
    path: Path,
    intensity_key: str | None = None,
    sigma_key: str | None = None,
    image_key: str | None = None,
) -> SpotTable:
    """Rows of an unmerged MTZ.

    Parameters
    ----------
    path : the file
    intensity_key : default: column I, else the only or first one of type J
    sigma_key : default: SIG + the intensity's name, else the first column of type Q
    image_key : default: the first column of type B

    Raises
    ------
    InputError : not an MTZ, merged, or a column is missing
    """
    mtz = _open(path)
    check_unmerged(path, mtz, image_key)
    intensity = _intensity(path, mtz, intensity_key)
    sigma = _sigma(path, mtz, intensity, sigma_key)
    image = _image(path, mtz, image_key)
    is_partial = _undo_isym(path, mtz)
    columns = {c.label: c.array for c in mtz.columns}
    hkl, unindexed = _indices(mtz)
    number = np.asarray(columns[image], dtype=np.float64)
    missing = ~np.isfinite(number)
    number = np.where(missing, 0, np.rint(number)).astype(np.int64)
    I, SIGI = _values(mtz, columns[intensity]), _values(mtz, columns[sigma])
    flagged = {"without indices": unindexed, "without image": missing}
    # Stills are flagged as partial too, but have nothing to be summed with, and neither of these columns.
    part, fraction = columns.get("MPART"), columns.get("FRACTIONCALC")
    if is_partial.any() and (part is not None or fraction is not None):
        I, SIGI, more = sum_partials(hkl, number, I, SIGI, is_partial, part, fraction)
        flagged |= more
    others = ", ".join(c.label for c in mtz.columns_with_type("J") if c.label != intensity)
    return SpotTable(
        name=str(path),
        format="MTZ",
        hkl=hkl,
        I=I,
        SIGI=SIGI,
        image=number,
        columns={k: v for k, v in columns.items() if k not in ("H", "K", "L", "M/ISYM")},
        cell=mtz.cell,
        spacegroup=mtz.spacegroup,
        flagged=flagged,
        sigma_name=sigma,
        notes=(f"intensity {intensity} (also there: {others}), sigma {sigma}",) if others else (),
    )


def _open(path: Path) -> gemmi.Mtz:
    try:
        return gemmi.read_mtz_file(str(path))
    except (RuntimeError, ValueError, IndexError, OSError) as e:
        raise InputError(f"{path} is not a complete MTZ file ({e}); expected unmerged intensities.") from None


def check_unmerged(path: Path, mtz: gemmi.Mtz, image_key: str | None = None) -> None:
    """Raise `InputError` for a file of merged data.

    Unmerged files have batch headers, a column of type B or Y, or at least some index that occurs twice.
    """
    if len(mtz.batches) or mtz.columns_with_type("B") or mtz.columns_with_type("Y"):
        return
    if image_key is not None and image_key in mtz.column_labels():
        return
    hkl = mtz.make_miller_array()
    if len(np.unique(hkl, axis=0)) == len(hkl):
        raise InputError(
            f"{path} holds merged data (each index occurs once, and there is no image column of MTZ type B); "
            "give the unmerged intensities that the integration program wrote."
        )


def _intensity(path: Path, mtz: gemmi.Mtz, key: str | None) -> str:
    if key is not None:
        require_column(path, mtz.column_labels(), key, "intensities", "--intensity-key")
        if mtz.column_with_label(key).type == "Q":
            raise InputError(
                f"{path}: column '{key}' holds standard deviations (MTZ type Q), not intensities; name another "
                "with --intensity-key."
            )
        return key
    labels = [c.label for c in mtz.columns_with_type("J")]
    if not labels:
        raise InputError(
            f"{path} has no intensity column (MTZ type J); its columns are {', '.join(mtz.column_labels())}: "
            "name one with --intensity-key."
        )
    return "I" if "I" in labels else labels[0]


def _sigma(path: Path, mtz: gemmi.Mtz, intensity: str, key: str | None) -> str:
    if key is not None:
        return require_column(path, mtz.column_labels(), key, "standard deviations", "--sigma-key")
    labels = [c.label for c in mtz.columns_with_type("Q")]
    if not labels:
        raise InputError(
            f"{path} has no column of standard deviations (MTZ type Q); its columns are "
            f"{', '.join(mtz.column_labels())}: name one with --sigma-key."
        )
    same_name = [x for x in labels if x.upper() == f"SIG{intensity}".upper()]
    return (same_name or labels)[0]


def _image(path: Path, mtz: gemmi.Mtz, key: str | None) -> str:
    if key is not None:
        return require_column(path, mtz.column_labels(), key, "images", "--image-key")
    labels = [c.label for c in mtz.columns_with_type("B")]
    if not labels:
        raise InputError(
            f"{path} has no image column (MTZ type B); its columns are {', '.join(mtz.column_labels())}: "
            "name the one that numbers the images with --image-key."
        )
    return labels[0]


def _undo_isym(path: Path, mtz: gemmi.Mtz) -> np.ndarray:
    """Bring the indices of `mtz` back to those observed, in place.

    Returns
    -------
    (row,) bool : the flag M, partially recorded
    """
    columns = mtz.columns_with_type("Y")
    if not columns:
        return np.zeros(mtz.nreflections, dtype=bool)
    columns[0].label = "M/ISYM"  # some programs write M_ISYM; gemmi looks for this name
    M, isym = np.divmod(np.asarray(columns[0].array), 256)
    if not ((isym >= 1) & (isym <= 2 * mtz.nsymop)).all():
        raise InputError(
            f"{path}: column M/ISYM has operator numbers outside 1 to {2 * mtz.nsymop}, so the observed "
            "indices cannot be recovered; write the file again with the program that made it."
        )
    mtz.switch_to_original_hkl()
    return M > 0


def _indices(mtz: gemmi.Mtz) -> tuple[np.ndarray, np.ndarray]:
    """hkl (row, 3) int32, and (row,) bool where the file has no number for them (hkl is 0 there)."""
    missing = np.asarray(~np.isfinite(mtz.array[:, :3]).all(axis=1))
    hkl = np.ascontiguousarray(mtz.make_miller_array())
    hkl[missing] = 0
    return hkl, missing


def _values(mtz: gemmi.Mtz, column: np.ndarray) -> np.ndarray:
    """float64, with the file's own mark of a missing number as NaN."""
    x = np.array(column, dtype=np.float64)
    if np.isfinite(mtz.valm):
        x[x == mtz.valm] = np.nan
    return x
