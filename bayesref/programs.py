"""The model pages of `models/`: list, load and copy them.

A model page is a Python file with a Pyro program `model(obs, scale)`. It is named by the page ("merge"), by a
path to a file of one's own ("my_merge.py"), or by an importable module ("my_lab.merging").
"""

import ast
import importlib
import importlib.util
import shutil
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from bayesref._checks import InputError


def folder() -> Path:
    """Where the pages that come with bayesref are."""
    spec = importlib.util.find_spec("bayesref.models")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("This installation of bayesref has no model pages; install it again.")
    return Path(next(iter(spec.submodule_search_locations)))


def names() -> list[str]:
    """Names of the pages that come with bayesref."""
    return sorted(p.stem for p in folder().glob("*.py") if not p.stem.startswith("_"))


def summary(name: str) -> str:
    """First line of a page's docstring."""
    doc = ast.get_docstring(ast.parse(source(name)))
    return (doc or "").split("\n", 1)[0]


def path(name: str) -> Path:
    """The file of a page, by name or by path.

    Raises
    ------
    InputError : there is no such page
    """
    if _is_path(name):
        if not Path(name).is_file():
            raise InputError(f"There is no model file {name}; give the path of a .py file.")
        return Path(name)
    if name not in names():
        raise InputError(_unknown(name))
    return folder() / f"{name}.py"


def source(name: str) -> str:
    """Text of a page."""
    return path(name).read_text(encoding="utf-8")


def load(name: str) -> Callable:
    """The function `model` of a page.

    Parameters
    ----------
    name : of a page, path of a .py file, or an importable module

    Raises
    ------
    InputError : it does not exist, cannot be run, or has no function `model`
    """
    module = _import(name)
    model = getattr(module, "model", None)
    if not callable(model):
        raise InputError(f"{name} has no function 'model'; define model(obs, scale) as models/merge.py does.")
    return model


def copy(name: str, destination: str | Path | None = None, overwrite: bool = False) -> Path:
    """Copy a page to edit it.

    Parameters
    ----------
    name : of a page
    destination : file or folder; default NAME.py in the current folder

    Raises
    ------
    InputError : no such page, or a file is in the way
    """
    page = path(name)
    target = Path(destination) if destination is not None else Path(page.name)
    if target.is_dir():
        target = target / page.name
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists already; choose another name or give --overwrite.")
    try:
        shutil.copyfile(page, target)
    except OSError as e:
        raise InputError(f"{target} cannot be written ({e.strerror or e}); choose another place.") from e
    return target


def _is_path(name: str) -> bool:
    return name.endswith(".py") or "/" in name


def _import(name: str) -> ModuleType:
    try:
        if _is_path(name):
            return _import_file(path(name))
        if name in names():
            return importlib.import_module(f"bayesref.models.{name}")
        if "." not in name and importlib.util.find_spec(name) is None:
            raise InputError(_unknown(name))
        return importlib.import_module(name)
    except InputError:
        raise
    except Exception as e:  # anything may happen in a page of the user's
        raise InputError(f"The model {name} cannot be loaded ({type(e).__name__}: {e}); correct it.") from e


def _import_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bayesref_page_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} is not a Python file; give the path of a .py file.")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _unknown(name: str) -> str:
    known = names()
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean '{close[0]}'? Models" if close else "models"
    return f"There is no model '{name}'; {hint} are {', '.join(known)}, or give the path of a .py file."
