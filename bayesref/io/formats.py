"""Which reader a file of unmerged intensities needs: decided by its first bytes, not by its name.

    'MTZ '                                     MTZ
    '!FORMAT=XDS_ASCII'                        XDS_ASCII.HKL (CORRECT, XSCALE)
    '!OUTPUT_FILE=INTEGRATE.HKL'               INTEGRATE.HKL
    'CrystFEL stream format'                   CrystFEL stream
    msgpack of 'dials::af::reflection_table'   DIALS .refl

An .expt belongs to the .refl of the same name, given or beside it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bayesref._checks import InputError
from bayesref.io.crystfel import read_crystfel
from bayesref.io.dials import read_dials
from bayesref.io.mtz import read_mtz
from bayesref.io.table import SpotTable, check_file
from bayesref.io.xds import read_xds

KNOWN = "MTZ, XDS_ASCII.HKL, INTEGRATE.HKL, CrystFEL .stream, DIALS .refl"


def read_tables(files: str | Path | Sequence[str | Path], **keys: str | None) -> list[SpotTable]:
    """Rows of each file.

    Parameters
    ----------
    files : one or several
    keys : intensity_key, sigma_key, image_key

    Raises
    ------
    InputError : no file, a file that cannot be read, or a format that is not known
    """
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(f) for f in files]
    if not paths:
        raise InputError(f"No file was given; expected unmerged intensities ({KNOWN}).")
    for path in paths:
        check_file(path)
    twice = [p for i, p in enumerate(paths) if any(p.samefile(q) for q in paths[:i])]
    if twice:
        raise InputError(f"{twice[0]} is given twice, and would count twice; leave one out.")
    experiments = [p for p in paths if p.suffix == ".expt"]
    paths = [p for p in paths if p.suffix != ".expt"]
    if not paths:
        raise InputError(f"{experiments[0]} describes experiments; give the .refl with its spots as well.")
    return [reader_of(path, experiments)(path, **keys) for path in paths]


def reader_of(path: Path, experiments: Sequence[Path] = ()) -> Callable[..., SpotTable]:
    """The reader for this file.

    Parameters
    ----------
    path : a file that exists
    experiments : DIALS .expt files given with it

    Raises
    ------
    InputError : where neither content nor extension is known
    """
    with path.open("rb") as f:
        start = f.read(200)
    if start.startswith(b"MTZ "):
        return read_mtz
    if start.startswith((b"!FORMAT=XDS_ASCII", b"!OUTPUT_FILE=INTEGRATE")):
        return read_xds
    if start.startswith(b"CrystFEL stream format"):
        return read_crystfel
    if b"dials::af::reflection_table" in start:
        return partial(read_dials, expt=_experiment_list(path, experiments))
    if path.suffix.lower() == ".mtz":
        raise InputError(f"{path} is not an MTZ file (it starts with {start[:8]!r}); expected 'MTZ '.")
    raise InputError(f"{path} has a format that is not known; expected one of {KNOWN}.")


def _experiment_list(path: Path, experiments: Sequence[Path]) -> Path | None:
    """The .expt of a .refl: the given one of the same name, the only one given, or the one beside it."""
    same = [e for e in experiments if e.stem == path.stem]
    beside = path.with_suffix(".expt")
    if same or len(experiments) == 1:
        return (same or experiments)[0]
    return beside if beside.is_file() else None
