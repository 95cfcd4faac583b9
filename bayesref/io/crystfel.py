"""CrystFEL streams: indexed stills, one image for each crystal.

    x = |s0 + q| - 1/λ      `ewald_offset`, Å⁻¹: how far a spot is from the Ewald sphere

reciprocalspaceship reads the reflection lists; the cell is the target cell of the header where there is one,
else the mean over crystals. A stream does not tell the space group: it must be given.

Columns: I, SigI, peak, background, X and Y (fs and ss on the detector, pixels), s1x, s1y, s1z, ewald_offset,
angular_ewald_offset.
"""

import mmap
from pathlib import Path

import gemmi
import numpy as np
import reciprocalspaceship as rs
from reciprocalspaceship.io.crystfel import StreamLoader

from bayesref._checks import InputError
from bayesref.crystal.lattice import as_cell
from bayesref.io.table import SpotTable, require_column

COLUMNS = ["H", "K", "L", "I", "SigI", "BATCH", "peak", "background", "XDET", "YDET"]
COLUMNS += ["s1x", "s1y", "s1z", "ewald_offset", "angular_ewald_offset"]


def read_crystfel(
    path: Path,
    intensity_key: str | None = None,
    sigma_key: str | None = None,
    image_key: str | None = None,
) -> SpotTable:
    """Rows of a CrystFEL stream.

    Parameters
    ----------
    path : the file
    intensity_key, sigma_key : default: I, SigI
    image_key : default: the number of the crystal in the stream

    Raises
    ------
    InputError : no crystal was indexed, or the stream is damaged
    """
    data, cell = _load(path)
    intensity = require_column(path, COLUMNS, intensity_key or "I", "intensities", "intensity_key")
    sigma = require_column(path, COLUMNS, sigma_key or "SigI", "standard deviations", "sigma_key")
    image = require_column(path, COLUMNS, image_key or "BATCH", "images", "image_key")
    columns = {n: data[n].to_numpy(np.float32) for n in COLUMNS[3:]}
    columns |= {"X": columns["XDET"], "Y": columns["YDET"]}
    return SpotTable(
        name=str(path),
        format="CrystFEL",
        hkl=data.get_hkls().astype(np.int32),
        I=data[intensity].to_numpy(np.float64),
        SIGI=data[sigma].to_numpy(np.float64),
        image=np.floor(data[image].to_numpy(np.float64)).astype(np.int64),
        columns=columns,
        cell=cell,
        spacegroup=None,
        sigma_name=sigma,
    )


def _load(path: Path) -> tuple[rs.DataSet, gemmi.UnitCell]:
    # Streams may be larger than memory.
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as text:
        indexed = text.find(b"--- Begin crystal") >= 0
    if not indexed:
        raise InputError(f"{path} has no indexed crystal; expected a CrystFEL stream with reflections.")
    try:
        loader = StreamLoader(str(path))
        cell = loader.extract_target_unit_cell()
        if cell is None or None in cell:
            cell = loader.calculate_average_unit_cell()
        # One process: starting workers costs more than small streams, and readers must not take all cores.
        return rs.read_crystfel(str(path), columns=COLUMNS, num_cpus=1), as_cell(cell)
    except InputError:
        raise
    except Exception as e:
        raise InputError(
            f"{path} is not a complete CrystFEL stream ({type(e).__name__}: {e}); write it again."
        ) from e
