"""Writing results so that a file is either whole or not there.

    write to a temporary file in the same folder -> fsync -> rename over the target

A rename within one folder is atomic, so a crash, a full disk or Ctrl-C leaves what was there before.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bayesref._checks import InputError

# Below this much free space a writer's unexplained failure is put down to a full disk.
ALMOST_FULL = 1 << 20  # bytes


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to, which becomes `path` when the block ends without an error.

    Raises
    ------
    InputError : where the file cannot be written, is no file, or the disk is full
    """
    path = Path(path)
    # A rename over a device would replace the device itself.
    if path.exists() and not path.is_file():
        kind = "a directory" if path.is_dir() else "no ordinary file"
        raise InputError(f"{path} is {kind}; give the name of a file to write.")
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        # Created here so that the usual permissions (umask) apply and a clash is impossible.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except OSError as e:
        raise output_error(path, e) from e
    except RuntimeError as e:
        # gemmi reports a failed write without the system's reason.
        if shutil.disk_usage(path.parent).free < ALMOST_FULL:
            raise output_error(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from e
        if str(e).startswith("Writing"):
            raise output_error(path, OSError(errno.EIO, "the file system takes no more")) from e
        raise
    finally:
        temporary.unlink(missing_ok=True)


def prepare_output(directory: str | Path, overwrite: bool = False) -> Path:
    """The directory for results, made where it is missing.

    With `overwrite`, files of the same name will be replaced one by one; others are left alone.

    Raises
    ------
    InputError : not a directory, not empty without `overwrite`, or not writable
    """
    directory = Path(directory)
    try:
        if directory.exists() and not directory.is_dir():
            raise InputError(f"{directory} is a file; give a directory for the results.")
        if directory.exists() and any(directory.iterdir()) and not overwrite:
            raise InputError(
                f"{directory} holds files already; choose another directory or give --overwrite."
            )
        directory.mkdir(parents=True, exist_ok=True)
        # Permission bits tell little about network and read-only mounts: try.
        probe = directory / f".write-test-{secrets.token_hex(4)}"
        try:
            probe.write_bytes(b"\0" * 4096)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as e:
        raise output_error(directory, e) from e
    return directory


def output_error(path: Path, e: OSError) -> InputError:
    """What the user can do about a failed write."""
    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{path} cannot be written: the disk is full; free some space or write elsewhere.")
    if e.errno == errno.ENOENT and not path.parent.is_dir():
        return InputError(f"{path} cannot be written: {path.parent} does not exist; make it first.")
    return InputError(f"{path} cannot be written ({e.strerror or e}); choose a place you may write to.")


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
