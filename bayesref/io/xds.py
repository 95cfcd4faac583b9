"""XDS reflection files: XDS_ASCII.HKL (CORRECT, XSCALE) and INTEGRATE.HKL.

    image = floor(z) + 1,    z = ZD or ZCAL, the spot's centre in units of images

Both are text: a header of lines that start with '!', then one row of numbers per observation. The columns are
those the header names (IOBS, SIGMA, XD or XCAL, RLP, PEAK, CORR, PSI, ALF1 ...); X, Y and Z stand for the
calculated position in either. A negative standard deviation is XDS's mark of a misfit.

Format: https://xds.mr.mpg.de/html_doc/xds_files.html (XDS_ASCII.HKL, INTEGRATE.HKL).
"""

import re
from pathlib import Path

import gemmi
import numpy as np
import pandas as pd

from bayesref._checks import InputError
from bayesref.crystal.lattice import as_spacegroup
from bayesref.io.table import SpotTable, require_column

# XSCALE joins several INPUT_FILEs, each numbered from image 1: keep their images apart.
IMAGES_PER_SET = 10**6


def read_xds(
    path: Path,
    intensity_key: str | None = None,
    sigma_key: str | None = None,
    image_key: str | None = None,
) -> SpotTable:
    """Rows of XDS_ASCII.HKL or INTEGRATE.HKL.

    Parameters
    ----------
    path : the file
    intensity_key, sigma_key : default: IOBS and SIGMA
    image_key : default: ZD or ZCAL; its whole part numbers the images

    Raises
    ------
    InputError : merged, cut short, or without the columns named
    """
    header = _read_header(path)
    if re.search(r"MERGE=\s*TRUE", header):
        raise InputError(
            f"{path} holds merged data (MERGE=TRUE in its header); give the XDS_ASCII.HKL that CORRECT wrote."
        )
    names = _column_names(path, header)
    _check_end(path)
    data = _read_rows(path, names)
    intensity = require_column(path, names, intensity_key or "IOBS", "intensities", "--intensity-key")
    sigma = require_column(path, names, sigma_key or "SIGMA", "standard deviations", "--sigma-key")
    z = next((n for n in ("ZD", "ZCAL", "Z") if n in names), "ZD")
    image = np.floor(
        data[require_column(path, names, image_key or z, "images", "--image-key")].to_numpy(float)
    )
    columns = {n: data[n].to_numpy() for n in names if n not in ("H", "K", "L")}
    for axis in "XYZ":
        same = next((n for n in (f"{axis}D", f"{axis}CAL") if n in names), None)
        columns |= {axis: columns[same]} if same else {}
    offset = (columns["ISET"].astype(np.int64) - 1) * IMAGES_PER_SET if "ISET" in columns else 0
    SIGI = data[sigma].to_numpy(np.float64)
    return SpotTable(
        name=str(path),
        format="XDS_ASCII" if "FORMAT=XDS_ASCII" in header else "INTEGRATE.HKL",
        hkl=data[["H", "K", "L"]].to_numpy(np.int32),
        I=data[intensity].to_numpy(np.float64),
        SIGI=SIGI,
        image=image.astype(np.int64) + 1 + offset,
        columns=columns,
        cell=_cell(path, header),
        spacegroup=_spacegroup(header),
        flagged={"rejected by XDS": SIGI < 0},
        sigma_name=sigma,
    )


def _read_header(path: Path) -> str:
    lines = []
    with path.open(encoding="latin-1") as f:
        for line in f:
            lines.append(line)
            if line.startswith("!END_OF_HEADER"):
                return "".join(lines)
            if not line.startswith("!"):
                break
    raise InputError(f"{path} has no !END_OF_HEADER, so its columns are unknown; write it again with XDS.")


def _check_end(path: Path) -> None:
    with path.open("rb") as f:
        f.seek(max(0, path.stat().st_size - 200))
        if b"!END_OF_DATA" not in f.read():
            raise InputError(f"{path} is cut short (it has no !END_OF_DATA); write it again with XDS.")


def _column_names(path: Path, header: str) -> list[str]:
    items = re.findall(r"^!ITEM_(\S+?)=\s*(\d+)", header, flags=re.M)
    if items:
        names = [name for name, _ in sorted(items, key=lambda item: int(item[1]))]
    else:
        # INTEGRATE.HKL lists them over several lines: !H,K,L,IOBS,...
        found = re.search(r"^!(H,K,L,.*(?:\n!\s+[A-Z0-9,]+\s*$)*)", header, flags=re.M)
        names = re.findall(r"[A-Z0-9]+", found.group(1)) if found else []
    names = ["SIGMA" if n == "SIGMA(IOBS)" else n for n in names]
    stated = re.search(r"^!NUMBER_OF_ITEMS_IN_EACH_DATA_RECORD=\s*(\d+)", header, flags=re.M)
    if names[:3] != ["H", "K", "L"] or (stated and int(stated.group(1)) != len(names)):
        raise InputError(
            f"{path} names {len(names)} columns in its header ({', '.join(names)}), "
            f"not the {stated.group(1) if stated else 'H, K, L ...'} expected; write it again with XDS."
        )
    return names


def _read_rows(path: Path, names: list[str]) -> pd.DataFrame:
    # float32 is enough for everything but intensities; INTEGRATE.HKL has 21 columns.
    types = dict.fromkeys(names, np.float32) | {"IOBS": np.float64, "SIGMA": np.float64}
    # Rows may end with a blank, which pandas takes for one more, empty, column: hence usecols.
    how = {"sep": r"\s+", "comment": "!", "header": None, "engine": "c", "index_col": False}
    try:
        data = pd.read_csv(path, names=names, dtype=types, usecols=range(len(names)), **how)
    except (ValueError, pd.errors.ParserError) as e:
        reason = str(e).strip().splitlines()[0]
        raise InputError(f"{path} has a row that is not {len(names)} numbers ({reason}); mend it.") from None
    if data[names[-1]].isna().any() or data["H"].isna().any():
        row = int(np.flatnonzero(data.isna().any(axis=1))[0])
        raise InputError(f"{path}: row {row + 1} of the data has fewer than {len(names)} numbers; mend it.")
    return data


def _cell(path: Path, header: str) -> gemmi.UnitCell:
    found = re.search(r"^!UNIT_CELL_CONSTANTS=((?:\s*[\d.]+){6})\s*$", header, flags=re.M)
    if not found:
        raise InputError(f"{path} has no six !UNIT_CELL_CONSTANTS in its header; write it again with XDS.")
    return gemmi.UnitCell(*(float(x) for x in found.group(1).split()))


def _spacegroup(header: str) -> gemmi.SpaceGroup | None:
    found = re.search(r"^!SPACE_GROUP_NUMBER=\s*(\d+)", header, flags=re.M)
    return as_spacegroup(int(found.group(1))) if found and int(found.group(1)) else None
