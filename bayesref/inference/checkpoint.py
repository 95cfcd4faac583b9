"""Checkpoints: where a fit stands, in two files that are whole or not there.

    NAME-K.safetensors   tensors: latents, prior sds, E-step, optimiser          K: counts the checkpoints written
    NAME.json            counters, options, fingerprints of data and model, and which tensors belong to it

    tensors -> temporary file -> fsync -> rename;  the JSON the same way;  only then the earlier tensors are deleted

The JSON names its tensors and holds their digest, so that a crash at any instant leaves one complete checkpoint:
this one or the one before. Nothing is pickled: a checkpoint from elsewhere cannot run code.
"""

import errno
import hashlib
import inspect
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import gemmi
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bayesref._checks import InputError
from bayesref.io.atomic import atomic_path, output_error

FORMAT = 1
# Of the observations, what does not change the fit: where the files lie, and the report of what was left out.
NOT_DATA = ("files", "report")
DEPTH = 12  # of objects within objects; a ring of them would have no end


@dataclass(frozen=True)
class Checkpoint:
    """Where a fit is saved, how often, and what it is a fit of.

    Attributes
    ----------
    folder : directory of the files
    every : evaluations (L-BFGS) or epochs (svi) between checkpoints; None = as often as costs at most a twentieth of
        the time
    resume : go on from the checkpoint, where there is one
    options : what the run was asked for, {name: text}; a checkpoint with others is refused
    name : of the fit, where one folder holds several
    notify : called with a sentence when a fit is resumed
    """

    folder: str | Path
    every: int | None = None
    resume: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    name: str = "fit"
    notify: Callable[[str], Any] = lambda sentence: None

    @property
    def path(self) -> Path:
        """The JSON file."""
        return Path(self.folder) / f"{self.name}.json"

    def of(self, **facts: str) -> "Checkpoint":
        """The same, of a fit with these further options."""
        return replace(self, options={**self.options, **facts})

    def save(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Write a checkpoint; the one before stays until this one is complete.

        Parameters
        ----------
        tensors : by name
        state : whatever JSON holds

        Raises
        ------
        InputError : it cannot be written
        """
        folder = self.path.parent
        number = 1 + max((_number(p) for p in self._tensor_files()), default=0)
        file = folder / f"{self.name}-{number}.safetensors"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(file) as temporary:
                _save_tensors(tensors, temporary)
                digest = _digest(temporary)
            facts = {
                "format": FORMAT,
                "versions": {p: version(p) for p in ("bayesref", "torch", "scipy")},
                "options": dict(self.options),
                "tensors": {"file": file.name, "blake2b": digest},
                "state": dict(state),
            }
            with atomic_path(self.path) as temporary:
                temporary.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        except (OSError, InputError) as e:
            file.unlink(missing_ok=True)
            why = e if isinstance(e, InputError) else output_error(self.path, e)
            earlier = (
                " The checkpoint before this one is intact: resume from there." if self.path.exists() else ""
            )
            raise InputError(f"{why}{earlier}") from e
        _sync_folder(folder)
        for old in self._tensor_files():
            if _number(old) != number:
                old.unlink(missing_ok=True)

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Tensors and state of the checkpoint; None where there is none.

        Raises
        ------
        InputError : it is damaged, or of other data or options
        """
        try:
            facts = json.loads(self.path.read_text(encoding="utf-8"))
            if facts["format"] != FORMAT:
                raise InputError(
                    f"{self.path} has format {facts['format']}, this version reads {FORMAT}: resume with the version "
                    f"that wrote it ({facts['versions']['bayesref']}), or start anew without it."
                )
            self.compare(facts["options"])
            file = self.path.parent / facts["tensors"]["file"]
            intact = _digest(file) == facts["tensors"]["blake2b"]
            # Copies have the alignment of any other tensor, on which the last bit of a product can depend.
            tensors = {k: x.clone() for k, x in load_file(file).items()} if intact else {}
        except FileNotFoundError as e:
            if e.filename == str(self.path):
                return None
            raise InputError(_damaged(self.path, f"{Path(e.filename).name} is missing")) from e
        except (OSError, SafetensorError) as e:
            raise InputError(_damaged(self.path, str(e))) from e
        except (ValueError, KeyError, TypeError) as e:
            if isinstance(e, InputError):
                raise
            raise InputError(_damaged(self.path, "it is not the JSON that was written")) from e
        if not intact:
            raise InputError(_damaged(self.path, f"{file.name} has changed since it was written"))
        return tensors, facts["state"]

    def peek(self) -> None:
        """Compare the options known so far, before any data are read.

        Raises
        ------
        InputError : the checkpoint is damaged, or of other options
        """
        try:
            saved = json.loads(self.path.read_text(encoding="utf-8"))["options"]
            self.compare({k: saved[k] for k in self.options if k in saved})
        except (OSError, KeyError, TypeError, json.JSONDecodeError) as e:
            raise InputError(_damaged(self.path, "it is not the JSON that was written")) from e

    def compare(self, saved: Mapping[str, str]) -> None:
        """Raise `InputError` unless the options saved are those of this fit."""
        for k in [*self.options, *(k for k in saved if k not in self.options)]:
            was, now = saved.get(k), self.options.get(k)
            if was == now:
                continue
            what = f"other {k}" if k in ("data", "model") else f"{k} {_shown(was)}, not {_shown(now)}"
            raise InputError(
                f"{self.path} is the checkpoint of a fit with {what}; resume with what it was made with, or start "
                "anew without it."
            )

    def clear(self) -> None:
        """Delete the checkpoints of all fits in the folder."""
        for path in Path(self.folder).glob("*.json"):
            replace(self, name=path.stem).remove()

    def remove(self) -> None:
        """Delete the files of this fit, if there are any."""
        self.path.unlink(missing_ok=True)
        for file in self._tensor_files():
            file.unlink(missing_ok=True)

    def _tensor_files(self) -> list[Path]:
        files = self.path.parent.glob(f"{self.name}-*.safetensors")
        return [p for p in files if re.fullmatch(r"\d+", p.stem.removeprefix(f"{self.name}-"))]


def fingerprint(*things: object) -> str:
    """Digest of tensors, numbers, strings and dataclasses of these: the same for the same content only."""
    h = hashlib.blake2b(digest_size=16)
    for x in things:
        _feed(h, x)
    return h.hexdigest()


def fit_options(model, obs, args, fixed, options: Mapping[str, object]) -> dict[str, str]:
    """What `Checkpoint.options` holds for a fit: data, model, and the options that are numbers or words."""
    plain = {k: str(v) for k, v in options.items() if isinstance(v, (str, int, float))}
    held = {k: torch.as_tensor(v).tolist() for k, v in (fixed or {}).items()}
    return {"data": fingerprint(obs), "model": fingerprint(model, list(args), held), **plain}


def _source(thing) -> str:
    """The file that defines a function or class, or its name where it was typed in."""
    try:
        return Path(inspect.getfile(inspect.unwrap(thing))).read_text(encoding="utf-8")
    except (TypeError, OSError):
        return getattr(thing, "__qualname__", type(thing).__qualname__)


def _feed(h, x, depth: int = 0) -> None:
    """Add what decides about the result: content of data, source of functions and classes, values that objects hold."""
    if depth > DEPTH:
        return
    if isinstance(x, (torch.Tensor, np.ndarray)):
        array = np.ascontiguousarray(x.detach().cpu() if isinstance(x, torch.Tensor) else x)
        h.update(f"{array.dtype}{array.shape}".encode())
        h.update(array.tobytes() if array.dtype != object else repr(array.tolist()).encode())
    elif x is None or isinstance(x, (str, int, float, bool)):
        h.update(repr(x).encode())
    elif isinstance(x, (list, tuple)):
        for part in x:
            _feed(h, part, depth + 1)
    elif isinstance(x, dict):
        _feed(h, [(k, x[k]) for k in sorted(x, key=str)], depth + 1)
    elif isinstance(x, gemmi.UnitCell):
        h.update(repr(x.parameters).encode())
    elif isinstance(x, gemmi.SpaceGroup):
        h.update(x.xhm().encode())
    elif isinstance(x, partial):
        _feed(h, [x.func, x.args, x.keywords], depth)
    elif inspect.isroutine(x) or inspect.isclass(x):
        h.update(_source(x).encode())
        _feed(h, [c.cell_contents for c in getattr(x, "__closure__", None) or ()], depth + 1)
    elif is_dataclass(x):
        _feed(h, {f.name: getattr(x, f.name) for f in fields(x) if f.name not in NOT_DATA}, depth)
    elif not isinstance(x, WeakKeyDictionary) and hasattr(x, "__dict__"):
        _feed(h, [type(x), vars(x)], depth)


def _save_tensors(tensors, path: Path) -> None:
    """Safetensors to a path; its errors carry the system's reason as text only."""
    mode = path.stat().st_mode
    try:
        # Tensors that share memory are refused, and views would be written with what is behind them.
        save_file({k: x.detach().cpu().contiguous().clone() for k, x in tensors.items()}, path)
    except SafetensorError as e:
        found = re.search(r"os error (\d+)", str(e))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number)) from e
    path.chmod(mode)  # others may read what the user's umask lets them


def _digest(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _sync_folder(folder: Path) -> None:
    """A rename is on the disk only when its folder is. Some network file systems do not do this, nor need it."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _shown(value: str | None) -> str:
    return "not given" if value is None else value or "''"


def _damaged(path: Path, why: str) -> str:
    return f"{path} cannot be used ({why}); copy it back whole, or delete {path.parent} and start anew."
