"""Which reader a file of unmerged intensities needs: decided by its first bytes, not by its name.

    'MTZ '                                     MTZ
    '!FORMAT=XDS_ASCII'                        XDS_ASCII.HKL (CORRECT, XSCALE)
    '!OUTPUT_FILE=INTEGRATE.HKL'               INTEGRATE.HKL
    'CrystFEL stream format'                   CrystFEL stream
    msgpack of 'dials::af::reflection_table'   DIALS .refl

An .expt belongs to the .refl of the same name, given or beside it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from bayesref._checks import InputError
from bayesref.io.mtz import read_mtz
from bayesref.io.table import SpotTable, check_file

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
    return [reader_of(path)(path, **keys) for path in paths]


def reader_of(path: Path) -> Callable[..., SpotTable]:
    """The reader for this file.

    Raises
    ------
    InputError : where neither content nor extension is known
    """
    with path.open("rb") as f:
        start = f.read(200)
    if start.startswith(b"MTZ "):
        return read_mtz
    if path.suffix.lower() == ".mtz":
        raise InputError(f"{path} is not an MTZ file (it starts with {start[:8]!r}); expected 'MTZ '.")
    raise InputError(f"{path} has a format that is not known; expected one of {KNOWN}.")
