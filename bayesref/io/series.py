"""A series of merged datasets from files.

    [series]                 # TOML; paths are relative to the file
    dark = "off.mtz"
    labels = ["F", "SIGF"]   # optional; light_labels where those of the light data differ
    [[light]]
    delay = "10 us"
    file = "10us.mtz"

Every dataset is brought to the reflections of the dark one. Intensities become amplitudes by French & Wilson's
posterior. One smooth function of resolution takes all datasets together to the scale of the dark model, so that data
without a fall-off (as `bayesref merge` writes) will do; differences between datasets are left as they are.
"""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from bayesref._checks import InputError
from bayesref.crystal import symmetry
from bayesref.data.merged import MergedData
from bayesref.data.series import TimeSeries
from bayesref.distributions.falloff import wilson_sigma
from bayesref.distributions.french_wilson import french_wilson
from bayesref.io.merged import read_merged
from bayesref.kinetics.units import seconds


@dataclass(frozen=True)
class SeriesFiles:
    """What a series is made of.

    Attributes
    ----------
    dark : merged dataset without light
    light : delay, s -> merged dataset
    labels : columns, or None
    light_labels : those of the datasets after light, where they differ
    states : name -> model file; the first is the dark state
    kinetics : further settings: scheme, ground, start, light_activated, time
    """

    dark: Path
    light: dict[float, Path]
    labels: tuple[str, str] | None = None
    states: dict[str, Path] = field(default_factory=dict)
    kinetics: dict = field(default_factory=dict)
    light_labels: tuple[str, str] | None = None


def pair(text: str | None) -> tuple[str, str] | None:
    """The labels "F,SIGF", or None.

    Raises
    ------
    InputError : not two of them
    """
    if text is None:
        return None
    labels = [x.strip() for x in text.split(",")]
    if len(labels) != 2 or not all(labels):
        raise InputError(f"The labels {text} are not of the form F,SIGF; give the two columns.")
    return labels[0], labels[1]


def parse_light(texts) -> dict[float, Path]:
    """{delay: file} of "10us=a.mtz", ...

    Raises
    ------
    InputError : not of that form, or a delay twice
    """
    out: dict[float, Path] = {}
    for text in texts:
        delay, _, file = text.partition("=")
        if not file:
            raise InputError(f"--light {text} is not of the form DELAY=FILE, such as 10us=10us.mtz.")
        t = seconds(delay.strip())
        if t in out:
            raise InputError(f"The delay {delay} is given twice; name each dataset once.")
        out[t] = Path(file)
    return out


def read_toml(path: Path) -> dict:
    """The tables of a file in TOML.

    Raises
    ------
    InputError : no such file, or not TOML
    """
    if not path.is_file():
        raise InputError(f"There is no series file {path}; check the name.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no text, or no TOML
        raise InputError(f"{path} is not TOML: {error}.") from error


def read_series_file(path: str | Path) -> SeriesFiles:
    """A series described in TOML, see the module's text.

    Raises
    ------
    InputError : no such file, not TOML, or keys that are missing or unknown
    """
    path = Path(path)
    table = read_toml(path)
    unknown = sorted(set(table) - {"series", "light", "states", "kinetics"})
    if unknown:
        raise InputError(
            f"{path} has an unknown table [{unknown[0]}]; expected series, light, states, kinetics."
        )
    series, light = table.get("series", {}), table.get("light", [])
    if "dark" not in series or not light:
        raise InputError(
            f"{path} needs dark = FILE in [series] and at least one [[light]] with delay and file."
        )
    states = {k: path.parent / v for k, v in table.get("states", {}).items()}
    return series_files(path, "[[light]]", series, light, states, table.get("kinetics", {}))


def series_files(
    path: Path, where: str, series: dict, light: list, states: dict, kinetics: dict
) -> SeriesFiles:
    """Files of a series from tables of the TOML file `path`; `where` is what the file calls a dataset after light."""
    for entry in light:
        if not isinstance(entry, dict) or not {"delay", "file"} <= set(entry):
            keys = ", ".join(entry) if isinstance(entry, dict) else ""
            raise InputError(f"{path}: a {where} has the keys {keys or 'none'}; expected delay and file.")
    folder = path.parent
    return SeriesFiles(
        folder / series["dark"],
        parse_light(f"{e['delay']}={folder / e['file']}" for e in light),
        tuple(series["labels"]) if "labels" in series else None,
        states,
        kinetics,
        tuple(series["light_labels"]) if "light_labels" in series else None,
    )


def read_series(files: SeriesFiles, dmin: float | None = None) -> tuple[TimeSeries, MergedData]:
    """The series, and its dark dataset as merged amplitudes.

    Raises
    ------
    InputError : a file that cannot be read, or datasets of different crystals
    """
    dark = as_amplitudes(read_merged(files.dark, labels=files.labels, dmin=dmin))
    columns_F, columns_s = [dark.value], [dark.sigma]
    delays = sorted(files.light)
    for t in delays:
        data = as_amplitudes(
            read_merged(files.light[t], labels=files.light_labels or files.labels, dmin=dmin)
        )
        _check_same(dark, data, files.dark, files.light[t])
        F, sigma = _onto(dark.asu, data)
        columns_F.append(F)
        columns_s.append(sigma)
    names = ("dark", *(f"{t:g} s" for t in delays))
    times = torch.tensor(delays, dtype=torch.float64)
    return TimeSeries(dark.asu, times, torch.stack(columns_F, 1), torch.stack(columns_s, 1), names), dark


def as_amplitudes(data: MergedData) -> MergedData:
    """The data as F and SIGF."""
    if data.kind == "F":
        return data
    asu = data.asu
    Sigma = wilson_sigma(data.value, data.sigma, asu.stol2, asu.epsilon, asu.centric)
    q = french_wilson(data.value, data.sigma, Sigma, asu.centric, asu.epsilon)
    return MergedData(asu, "F", q.F, q.SIGF, data.free, data.columns, data.notes)


def rescaled(series: TimeSeries, dark: MergedData, factor: torch.Tensor) -> tuple[TimeSeries, MergedData]:
    """Both with all amplitudes times `factor` (hkl,)."""
    F, s = series.F * factor[:, None], series.SIGF * factor[:, None]
    return (
        TimeSeries(series.asu, series.t, F, s, series.names),
        MergedData(
            dark.asu, "F", F[:, 0].contiguous(), s[:, 0].contiguous(), dark.free, dark.columns, dark.notes
        ),
    )


def _check_same(dark, data, dark_file, file):
    a, b = dark.asu, data.asu
    if a.spacegroup.operations() != b.spacegroup.operations():
        raise InputError(
            f"{file} has space group {b.spacegroup.xhm()}, {dark_file} has {a.spacegroup.xhm()}; use one crystal form."
        )
    lengths = np.array([[c.a, c.b, c.c] for c in (a.cell, b.cell)])
    if np.abs(lengths[0] / lengths[1] - 1).max() > 0.01:
        raise InputError(
            f"The cell of {file} differs from that of {dark_file} by more than 1 %; such crystals cannot be compared."
        )


def _onto(asu, data):
    """Amplitudes on the rows of `asu`: σ = ∞ where there are none."""
    bound = int(max(asu.hkl.abs().max(), data.asu.hkl.abs().max()))
    mine, theirs = symmetry.pack(asu.hkl.numpy(), bound), symmetry.pack(data.asu.hkl.numpy(), bound)
    order = np.argsort(theirs)
    where = order[np.searchsorted(theirs, mine, sorter=order).clip(max=len(theirs) - 1)]
    there = torch.from_numpy(theirs[where] == mine)
    F = torch.where(there, data.value[where], 0.0)
    return F, torch.where(there, data.sigma[where], torch.inf)
