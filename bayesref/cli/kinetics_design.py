"""What the options of `bayesref kinetics` ask for: schemes, the design of the experiment, numbers to hold."""

import itertools
from pathlib import Path

import numpy as np
import torch

from bayesref._checks import InputError
from bayesref.cli.kinetics_options import KineticsSettings, pairs
from bayesref.io.series import SeriesFiles
from bayesref.kinetics.design import WIDTHS, Design
from bayesref.kinetics.kinetics import Kinetics
from bayesref.kinetics.response import HistogramResponse
from bayesref.kinetics.units import per_second, seconds
from bayesref.refinement.moving_atoms import atoms_near
from bayesref.restraints.dictionary import load_dictionary
from bayesref.restraints.restraints import build_restraints


def scheme_of(text: str, settings: KineticsSettings, files: SeriesFiles) -> Kinetics:
    """The kinetics of one scheme, its states checked against the structures."""
    names = tuple(files.states)
    ground = settings.ground or names[0]
    scheme = Kinetics(text)
    given = pairs(settings.structure, "--structure")
    returns = {}
    for e in settings.efficiency or ():
        name, _, to = e.partition(":")
        if to and transition(name) in scheme.rates:
            returns[transition(name)] = to.strip()
    start = settings.start or scheme.states[0]
    structures = {k: v for k, v in given.items() if k in scheme.states}
    # Those of other schemes are for --compare.
    unknown = [] if settings.compare else sorted(set(given) - set(structures))
    if unknown:
        raise InputError(
            f"--structure {unknown[0]}={given[unknown[0]]}: the scheme has no such state; it has "
            f"{', '.join(scheme.states)}."
        )
    missing = [s for s in scheme.states if structures.get(s, s) not in names]
    if missing:
        raise InputError(
            f"The scheme {text} has a state {missing[0]} without a structure; give --state {missing[0]}=MODEL."
        )
    return Kinetics(
        text, ground=ground, start=start, light_activated=settings.light_activated, returns=returns,
        structures=structures,
    )  # fmt: skip


def check_distinct(crystals: dict, moving: dict) -> None:
    """Raise `InputError` for two states of one structure, neither of which moves."""
    for a, b in itertools.combinations((k for k in crystals if k not in moving), 2):
        x, y = crystals[a], crystals[b]
        if x.name == y.name and all(
            torch.equal(getattr(x, k), getattr(y, k)) for k in ("xyz", "B", "occupancy")
        ):
            raise InputError(
                f"The states {a} and {b} have the same structure, so that no data can tell them apart; give another "
                f"model of one, let it move (--move), or map both states of a scheme to it (--structure {b}={a})."
            )


def moving_atoms(settings: KineticsSettings, crystals: dict) -> dict:
    """{state: (rows, Restraints)} of --move."""
    out = {}
    given = [x.strip() for x in (settings.unrestrained or "").split(",") if x.strip()]
    for name, text in pairs(settings.move, "--move").items():
        residue, colon, radius = text.rpartition(":")
        if name not in list(crystals)[1:] or not colon:
            others = ", ".join(list(crystals)[1:])
            raise InputError(
                f"--move {name}={text}: expected STATE=RESIDUE:RADIUS, the state one of {others}."
            )
        try:
            reach = float(radius)
        except ValueError as error:
            raise InputError(f"--move {name}={text}: {radius} is no distance, Å.") from error
        rows = atoms_near(crystals[name], residue, reach)
        names = residue_names(crystals[name])
        restraints = None
        if set(names) - set(given):
            dictionary = load_dictionary(names, settings.restraints or (), None, given)
            restraints = build_restraints(crystals[name], dictionary.monlib, unrestrained=given)
        out[name] = (rows, restraints)
    check_distinct(crystals, out)
    return out


def residue_names(crystal) -> list[str]:
    """Names of the residues of a crystal."""
    return sorted({n.split("/")[1].split(" ")[0] for n in crystal.name})


def transition(text: str) -> str:
    """'B -> C' as rates are named, 'B->C'."""
    return text.replace(" ", "")


def width(text: str, option: str) -> tuple[float, float]:
    """(s, factor) of "100us*1.5"; the factor is 1 where none is given."""
    value, star, factor = text.partition("*")
    try:
        return seconds(value.strip()), float(factor) if star else 1.0
    except ValueError as error:
        raise InputError(
            f"{option} has {text}; expected a time and perhaps a factor, as 100us*1.5."
        ) from error


def design_of(settings: KineticsSettings, kinetics: Kinetics) -> Design:
    """The design of the experiment, for one scheme."""
    kind, _, text = settings.response.partition("=")
    kind = kind.strip()
    widths, histogram = {}, None
    if kind == "histogram":
        histogram = read_histogram(Path(text.strip()))
    elif text:
        values = [width(x, "--response") for x in text.split(",")]
        names = WIDTHS.get(kind, ())
        if kind in WIDTHS and len(values) != len(names):
            raise InputError(
                f"--response {settings.response} has {len(values)} widths; {kind} takes {len(names)}."
            )
        widths = dict(zip(names, values, strict=False))
    asked = tuple(transition(e.partition(":")[0]) for e in settings.efficiency or ())
    unknown = [e for e in asked if e not in kinetics.rates]
    if unknown and not settings.compare:
        raise InputError(
            f"--efficiency {unknown[0]}: the scheme has no such reaction; it has {', '.join(kinetics.rates)}."
        )
    unreacted: dict[str, float] | str | None = settings.unreacted
    if isinstance(unreacted, str) and unreacted != "inferred":
        unreacted = {k: float(v) for k, v in pairs(unreacted.split(","), "--unreacted").items()}
    efficiencies = tuple(e for e in asked if e in kinetics.rates)
    return Design(kind, widths, histogram, efficiencies, unreacted, settings.uneven_light)


def fixed_values(settings: KineticsSettings) -> dict[str, torch.Tensor]:
    """{site: value} of --fix."""
    out = {}
    for name, value in pairs(settings.fix, "--fix").items():
        site = f"k {transition(name[1:])}" if name.startswith("k ") else name
        number = (
            per_second(value)
            if site.startswith("k ")
            else seconds(value)
            if site in ("width", "tail")
            else None
        )
        try:
            out[site] = torch.tensor(float(value) if number is None else number, dtype=torch.float64)
        except ValueError as error:
            raise InputError(f"--fix {name}={value}: expected a number.") from error
    return out


def read_histogram(path: Path) -> HistogramResponse:
    """Lines "edge,weight": the left edge of each bin, s, and its weight; the last line has the right edge alone."""
    if not path.is_file():
        raise InputError(f"There is no file {path}; --response histogram=FILE takes lines 'edge,weight'.")
    try:
        rows = [
            line.split(",") for line in path.read_text(encoding="utf-8").split() if not line.startswith("#")
        ]
        edges = [float(r[0]) for r in rows]
        weights = [float(r[1]) for r in rows[:-1]]
    except (ValueError, IndexError) as error:
        raise InputError(
            f"{path} is not a histogram: expected lines 'edge,weight' with edges in s and a last line 'edge'."
        ) from error
    return HistogramResponse(torch.from_numpy(np.array(edges)), torch.from_numpy(np.array(weights)))
