"""CrystFEL streams: indexed stills, one image for each crystal.

    q = A h,     x = |s₀ + q| - 1/λ      `ewald_offset`, Å⁻¹: how far a spot is from the Ewald sphere
    s₁ = s₀ + q,  angular_ewald_offset    the angle at the origin between q and where s₁ meets the sphere, degrees

The stream is read crystal by crystal: only the columns below are kept. The cell is the target cell of the header
where there is one, else the mean over crystals; each crystal has its own besides. A stream does not tell the space
group: it must be given.

Columns: I, SigI, peak, background, X and Y (fs and ss on the detector, pixels), s1x, s1y, s1z, ewald_offset,
angular_ewald_offset, Wavelength. The format is that of White (2019), Acta Cryst. D75, 219.
"""

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np

from bayesref._checks import InputError
from bayesref.crystal.lattice import as_cell
from bayesref.io.stills import Stills, ewald_offset
from bayesref.io.table import SpotTable, require_column

KEPT = ["I", "SigI", "peak", "background", "XDET", "YDET"]
COMPUTED = ["s1x", "s1y", "s1z", "ewald_offset", "angular_ewald_offset"]
COLUMNS = ["H", "K", "L", *KEPT[:2], "BATCH", *KEPT[2:], *COMPUTED]
PLANCK = 12398.4198  # h c, eV Å

NUMBER = rb"[-+0-9.eE]+"
PHOTON_ENERGY = re.compile(rb"photon_energy_eV = (%s)" % NUMBER)
CELL = re.compile(rb"Cell parameters %s nm, %s deg" % ((rb" ".join([rb"(%s)" % NUMBER] * 3),) * 2))
AXIS = re.compile(rb"[abc]star = (%s) (%s) (%s) nm\^-1" % ((NUMBER,) * 3))
LIMIT = re.compile(rb"diffraction_resolution_limit = (%s) nm\^-1" % NUMBER)


@dataclass(frozen=True, eq=False)
class _Crystal:
    """One crystal: spots (spot, 9) as listed, energy (eV), axes (3, 3) a*, b*, c* in rows (Å⁻¹), cell, limit (Å)."""

    spots: np.ndarray
    wavelength: float
    axes: np.ndarray
    cell: np.ndarray
    limit: float


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
    intensity = require_column(path, COLUMNS, intensity_key or "I", "intensities", "--intensity-key")
    sigma = require_column(path, COLUMNS, sigma_key or "SigI", "standard deviations", "--sigma-key")
    image_name = require_column(path, COLUMNS, image_key or "BATCH", "images", "--image-key")
    hkl, values, crystals = _read(path)
    columns = {n: values[:, i] for i, n in enumerate([*KEPT, *COMPUTED])}
    n_spot = [n for n, _, _, _ in crystals]
    # Streams number crystals from 0 here, as reciprocalspaceship does.
    columns["BATCH"] = np.repeat(np.arange(len(crystals), dtype=np.float32), n_spot)
    columns |= {"X": columns["XDET"], "Y": columns["YDET"]}
    wavelength = np.array([w for _, w, _, _ in crystals])
    columns["Wavelength"] = np.repeat(wavelength, n_spot)
    image = np.floor(columns[image_name].astype(np.float64)).astype(np.int64)
    cells = np.array([c for _, _, c, _ in crystals])
    stills = Stills(np.arange(len(crystals)), cells, np.array([x for _, _, _, x in crystals]))
    return SpotTable(
        name=str(path),
        format="CrystFEL",
        hkl=hkl,
        I=columns[intensity].astype(np.float64),
        SIGI=columns[sigma].astype(np.float64),
        image=image,
        columns=columns,
        cell=_target_cell(path) or as_cell(cells.mean(axis=0)),
        spacegroup=None,
        sigma_name=sigma,
        stills=stills if image_key is None else None,
    )


def _read(path: Path):
    """hkl (spot, 3) int32, columns (spot, 11) float32, and of each crystal: spots, wavelength, cell, limit."""
    hkl, values, crystals = [], [], []
    # Streams may be larger than memory.
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as text:
        if text.find(b"--- Begin crystal") < 0:
            raise InputError(f"{path} has no indexed crystal; expected a CrystFEL stream with reflections.")
        try:
            for c in _crystals(text):
                hkl.append(np.rint(c.spots[:, :3]).astype(np.int32))
                values.append(np.concatenate([c.spots[:, 3:], _geometry(c)], axis=1).astype(np.float32))
                crystals.append((len(c.spots), c.wavelength, c.cell, c.limit))
        except (ValueError, IndexError) as e:
            raise InputError(
                f"{path} is not a complete CrystFEL stream (crystal {len(crystals)}: {e}); write it again."
            ) from None
    return np.concatenate(hkl), np.concatenate(values), crystals


def _crystals(text) -> Iterator[_Crystal]:
    """Each crystal of the stream in turn."""
    start = text.find(b"--- Begin crystal")
    while start >= 0:
        end = text.find(b"--- End crystal", start)
        if end < 0:
            raise ValueError("it has no end")
        chunk = text.rfind(b"----- Begin chunk", 0, start)
        header, _, rest = text[start:end].partition(b"Reflections measured after indexing\n")
        energy = PHOTON_ENERGY.search(text[max(chunk, 0) : start])
        axes = np.array(AXIS.findall(header), dtype=float) / 10  # nm⁻¹ -> Å⁻¹
        parameters = CELL.search(header)
        if axes.shape != (3, 3) or energy is None or parameters is None:
            raise ValueError("no cell, no reciprocal axes, or no photon energy")
        cell = np.array(parameters.groups(), dtype=float) * [10, 10, 10, 1, 1, 1]
        limit = LIMIT.search(header)
        d = 10 / float(limit[1]) if limit and float(limit[1]) > 0 else np.nan
        yield _Crystal(_spots(rest), PLANCK / float(energy[1]), axes, cell, d)
        start = text.find(b"--- Begin crystal", end)


def _spots(block: bytes) -> np.ndarray:
    """(spot, 9): h k l I sigma peak background fs ss."""
    lines = block.split(b"\n")[1:]
    if not block:
        return np.zeros((0, 9))
    last = next((i for i, line in enumerate(lines) if line.startswith(b"End of reflections")), None)
    if last is None:
        raise ValueError("its list of reflections has no end")
    if not last:
        return np.zeros((0, 9))
    return np.loadtxt(lines[:last], usecols=range(9), ndmin=2)


def _geometry(c: _Crystal) -> np.ndarray:
    """s₁ and both offsets of each spot, (spot, 5)."""
    h, k = c.spots[:, :3], 1 / c.wavelength
    q = h @ c.axes
    s1 = q + np.array([0, 0, k])
    offset = ewald_offset(h, c.axes.T, c.wavelength)
    on_sphere = k * s1 / np.linalg.norm(s1, axis=1, keepdims=True) - np.array([0, 0, k])
    cross = np.linalg.norm(np.cross(q, on_sphere), axis=1)
    angle = np.sign(offset) * np.degrees(np.arctan2(cross, (q * on_sphere).sum(axis=1)))
    return np.concatenate([s1, offset[:, None], angle[:, None]], axis=1)


def _target_cell(path: Path) -> gemmi.UnitCell | None:
    """The cell that indexing was given, with the symmetry of its lattice type; None where the header has none."""
    header = []
    with path.open("rb") as f:
        for line in f:
            if line.startswith(b"----- Begin chunk"):
                break
            header.append(line.decode(errors="replace"))
    found = re.findall(r"^(a|b|c|al|be|ga) = ([-+0-9.eE]+)", "".join(header), flags=re.MULTILINE)
    cell = dict(found)
    if len(cell) < 6:
        return None
    return as_cell([float(cell[k]) for k in ("a", "b", "c", "al", "be", "ga")])
