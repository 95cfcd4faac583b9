"""Several experiments, each a series of merged datasets, from one file.

    [[experiment]]                     # TOML; paths are relative to the file
    name = "277 K"                     # or that of its temperature
    temperature = 277                  # K; where rates depend on it
    dark = "277/off.mtz"               # labels, light_labels, as in [series]
    light = [{delay = "10 us", file = "277/10us.mtz"}, {delay = "1 ms", file = "277/1ms.mtz"}]
    states = {A = "277/dark.pdb", B = "277/on.pdb"}     # where they are not those of all

    [states]                           # of the experiments that have none of their own
    [kinetics]

Crystals may differ in cell and space group from experiment to experiment.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bayesref._checks import InputError
from bayesref.io.series import SeriesFiles, read_toml, series_files

KEYS = ("name", "temperature", "dark", "light", "labels", "light_labels", "states")
NAME = re.compile(r"\w[\w .+-]*")  # also a folder, with _ for blanks


@dataclass(frozen=True)
class ExperimentFiles:
    """What one of several experiments is made of: its name, its temperature in K or None, and the files."""

    name: str
    temperature: float | None
    files: SeriesFiles

    @property
    def folder(self) -> str:
        """Name of the folder for its results."""
        return self.name.replace(" ", "_")


def describes_experiments(path: Path | None) -> bool:
    """Whether a file describes several experiments; False for what cannot be read."""
    try:
        return path is not None and "experiment" in read_toml(path)
    except InputError:
        return False


def read_experiments_file(
    path: Path, states: Mapping[str, Path] | None = None
) -> tuple[list[ExperimentFiles], dict]:
    """Experiments described in TOML, and its table [kinetics].

    Parameters
    ----------
    states : given elsewhere, {name: model}; they go before those of [states]

    Raises
    ------
    InputError : keys that are missing or unknown, fewer than two experiments, or states that do not fit
    """
    table = read_toml(path)
    for name in ("series", "light"):
        if name in table:
            raise InputError(
                f"{path} has both [[experiment]] and [{name}]; give dark and light in each experiment."
            )
    unknown = sorted(set(table) - {"experiment", "states", "kinetics"})
    if unknown:
        raise InputError(
            f"{path} has an unknown table [{unknown[0]}]; expected experiment, states, kinetics."
        )
    rows = table["experiment"]
    if not isinstance(rows, list) or len(rows) < 2:
        raise InputError(
            f"{path} has one experiment; give two [[experiment]] or more, or describe it as a [series]."
        )
    common = {k: path.parent / v for k, v in table.get("states", {}).items()} | dict(states or {})
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} has an experiment that is no table; write each as [[experiment]].")
    found = [_experiment(path, i + 1, row, common) for i, row in enumerate(rows)]
    _check_together(path, found, common if common and all("states" in row for row in rows) else {})
    return found, table.get("kinetics", {})


def _experiment(path, number, row, common) -> ExperimentFiles:
    unknown = sorted(set(row) - set(KEYS))
    if unknown:
        raise InputError(
            f"{path}: [[experiment]] {number} has an unknown key {unknown[0]}; expected {', '.join(KEYS)}."
        )
    T = _temperature(path, row.get("name", f"[[experiment]] {number}"), row.get("temperature"))
    name = str(row.get("name", "" if T is None else f"{T:g} K")).strip()
    if not NAME.fullmatch(name):
        raise InputError(
            f"{path}: [[experiment]] {number} has the name {name!r}; expected letters, digits and blanks, as '277 K'."
        )
    light, models = row.get("light"), row.get("states", {})
    if not isinstance(row.get("dark"), str) or not light or not isinstance(light, list):
        raise InputError(
            f"{path}: the experiment {name} needs dark = FILE and light = [{{delay, file}}, ...]."
        )
    if not isinstance(models, dict) or not all(isinstance(v, str) for v in models.values()):
        raise InputError(
            f'{path}: the states of {name} are {models}; expected {{A = "dark.pdb", B = "on.pdb"}}.'
        )
    own = {k: path.parent / v for k, v in models.items()}
    files = series_files(path, f"light of {name}", row, light, own or common, {})
    return ExperimentFiles(name, T, files)


def _temperature(path, name, value) -> float | None:
    """A number is in K; text may say so, or be in °C."""
    if value is None:
        return None
    found = re.fullmatch(r"\s*(-?\d+\.?\d*)\s*(K|°?C)?\s*", str(value))
    T = None if not found else float(found[1]) + (273.15 if found[2] in ("C", "°C") else 0.0)
    if T is None or T <= 0:
        raise InputError(f"{path}: the temperature of {name} is {value}; expected K above zero, as 277.")
    return T


def _check_together(path, found, idle) -> None:
    seen: set[str] = set()
    for e in found:
        if e.folder in seen:
            raise InputError(f"{path} has two experiments named {e.name}; give each a name of its own.")
        seen.add(e.folder)
    if idle:
        raise InputError(
            f"{path}: every experiment has states of its own, so that those of all ({', '.join(idle)}) mean nothing; "
            "leave one out."
        )
    names = list(found[0].files.states)
    for e in found:
        mine = list(e.files.states)
        missing = [s for s in names if s not in mine] + [s for s in mine if s not in names]
        if missing:
            raise InputError(
                f"{path}: {found[0].name} has the states {', '.join(names) or 'none'}, {e.name} has "
                f"{', '.join(mine) or 'none'}; give the same of all."
            )
        if mine[:1] != names[:1]:
            raise InputError(
                f"{path}: the first state is {names[0]} in {found[0].name} and {mine[0]} in {e.name}; name the dark "
                "one first in all."
            )
