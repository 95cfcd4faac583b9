"""Options of `bayesref kinetics`, and what they ask for: files, schemes and the design of the experiment."""

from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import typer

from bayesref._checks import InputError
from bayesref.io.series import SeriesFiles, pair, parse_light, read_series_file
from bayesref.kinetics.design import WIDTHS, Design
from bayesref.kinetics.kinetics import Kinetics
from bayesref.kinetics.response import HistogramResponse
from bayesref.kinetics.units import per_second, seconds
from bayesref.refinement.moving_atoms import atoms_near
from bayesref.restraints.dictionary import load_dictionary
from bayesref.restraints.restraints import build_restraints

DATA = partial(typer.Option, rich_help_panel="Series")
KINETICS = partial(typer.Option, rich_help_panel="Kinetics")
INFERENCE = partial(typer.Option, rich_help_panel="Inference")
OUTPUT = partial(typer.Option, rich_help_panel="Output")


@dataclass(frozen=True, kw_only=True)
class KineticsSettings:
    """What `bayesref kinetics` is asked to do; each field is an option and says what it is."""

    series: Annotated[
        Path | None,
        typer.Argument(help="TOML file of the series; or give --dark and --light.", show_default=False),
    ] = None
    dark: Annotated[
        Path | None, DATA(help="Data without light: merged (MTZ, mmCIF), or spots to be merged first.")
    ] = None
    light: Annotated[
        list[str] | None,
        DATA("--light", metavar="DELAY=FILE", help="Data at a delay, 10us=a.mtz; repeated."),
    ] = None
    metadata: Annotated[
        str, DATA(metavar="KEY,...", help="Columns of unmerged data that the scale may depend on.")
    ] = "BATCH,X,Y,dHKL"
    state: Annotated[
        list[str] | None,
        DATA("--state", metavar="NAME=MODEL", help="Structure of a state, the dark one first; repeated."),
    ] = None
    labels: Annotated[str | None, DATA(metavar="F,SIGF", help="Columns, the same in every file.")] = None
    light_labels: Annotated[
        str | None, DATA(metavar="F,SIGF", help="Columns of the light data, where they differ.")
    ] = None
    dmin: Annotated[float | None, DATA(help="High-resolution limit, Å.")] = None
    move: Annotated[
        list[str] | None,
        DATA(
            "--move",
            metavar="STATE=RESIDUE:RADIUS",
            help="Atoms of a state within RADIUS Å of a residue (HC4, or A/69) have shifts to be inferred; repeated.",
        ),
    ] = None
    move_sd: Annotated[
        float, DATA(min=0.01, help="Prior of these shifts: standard deviation along each axis, Å.")
    ] = 0.3
    restraints: Annotated[
        list[Path] | None, DATA("--restraints", help="CIF of ligands, for states that move; repeated.")
    ] = None
    unrestrained: Annotated[
        str | None, DATA(metavar="RES,...", help="Residues to leave without restraints, in states that move.")
    ] = None

    scheme: Annotated[
        str | None,
        KINETICS(
            "--scheme", "-s", help='Reactions, as "B -> C, C -> A". [default: each delay has its own shares]'
        ),
    ] = None
    ground: Annotated[str | None, KINETICS(help="State before the light. [default: the first --state]")] = (
        None
    )
    start: Annotated[
        str | None, KINETICS(help="State right after the light. [default: first of the scheme]")
    ] = None
    light_activated: Annotated[
        bool, KINETICS("--light-activated", help="What returns to the ground state stays there.")
    ] = False
    structure: Annotated[
        list[str] | None,
        KINETICS(
            "--structure",
            metavar="STATE=NAME",
            help="Structure of a kinetic state, if not of its own name; repeated.",
        ),
    ] = None
    response: Annotated[
        str,
        KINETICS(
            metavar="KIND=WIDTH[*FACTOR]",
            help="Of the probe: gaussian=100us, box=1ms, exgaussian=1ps,3ps, histogram=FILE.csv (edges in s, weights), "
            "none. A width with a factor (100us*1.5) is known within it, and inferred.",
        ),
    ] = "none"
    efficiency: Annotated[
        list[str] | None,
        KINETICS(
            "--efficiency",
            metavar='"B->C"',
            help="A reaction that loses a fraction of its molecules, which is inferred; repeated. B->C:A: to A.",
        ),
    ] = None
    unreacted: Annotated[
        str | None,
        KINETICS(
            metavar="B=0.05|inferred",
            help="What molecules are in that the light does not reach, beside the ground state.",
        ),
    ] = None
    uneven_light: Annotated[
        bool, KINETICS("--uneven-light", help="The light reaches another share at each delay.")
    ] = False
    fix: Annotated[
        list[str] | None,
        KINETICS(
            "--fix",
            metavar="NAME=VALUE",
            help='Hold a number, as activation=0.2, "k B->C"=2000/s, or without a scheme the share B=0.2; repeated.',
        ),
    ] = None
    expected_time: Annotated[
        str,
        KINETICS(metavar="TIME[*FACTOR]", help="Prior of 1/k: its median, and the factor it is known to."),
    ] = "1ms*100"
    compare: Annotated[
        list[str] | None, KINETICS("--compare", help="Another scheme to compare with; repeated.")
    ] = None

    page: Annotated[
        str | None, INFERENCE(help="Model page. [default: kinetic, or without a scheme difference]")
    ] = None
    method: Annotated[
        Literal["laplace", "nuts"],
        INFERENCE(help="How draws are made: from Laplace's Gaussian with importance weights, or by NUTS."),
    ] = "laplace"
    starts: Annotated[int, INFERENCE(min=1, help="Optimisations from different starts.")] = 4
    draws: Annotated[int, INFERENCE(min=50, help="Draws of the posterior.")] = 400
    free_occupancies: Annotated[bool, INFERENCE(help="Fit occupancies without a scheme as well.")] = True
    threads: Annotated[int, INFERENCE(min=1, help="Threads.")] = 1
    seed: Annotated[int, INFERENCE(help="Of the random numbers.")] = 0

    out: Annotated[Path, OUTPUT("--out", "-o", help="Directory for the results.", show_default=False)]
    overwrite: Annotated[bool, OUTPUT("--overwrite", help="Replace files that are there already.")] = False
    quiet: Annotated[bool, OUTPUT("--quiet", "-q", help="Print nothing but errors.")] = False


def gather(settings: KineticsSettings) -> tuple[SeriesFiles, KineticsSettings]:
    """Files and settings, from the TOML file or the options."""
    default = {f.name: f.default for f in fields(KineticsSettings)}
    if settings.series is not None:
        if settings.dark or settings.light:
            raise InputError("Give either a series file or --dark and --light, not both.")
        files = read_series_file(settings.series)
        known = (
            "scheme", "ground", "start", "light_activated", "response", "efficiency", "unreacted", "uneven_light",
            "structure", "fix", "expected_time",
        )  # fmt: skip
        unknown = sorted(set(files.kinetics) - set(known))
        if unknown:
            raise InputError(
                f"{settings.series}: [kinetics] has an unknown key {unknown[0]}; expected {', '.join(known)}."
            )
        given = {k: v for k, v in files.kinetics.items() if getattr(settings, k) == default[k]}
        settings = replace(settings, **given)
    elif settings.dark is None or not settings.light:
        raise InputError("A series needs --dark FILE and at least one --light DELAY=FILE, or a TOML file.")
    else:
        files = SeriesFiles(settings.dark, parse_light(settings.light))
    if settings.labels:
        files = replace(files, labels=pair(settings.labels))
    if settings.light_labels:
        files = replace(files, light_labels=pair(settings.light_labels))
    states = dict(files.states)
    states |= {name: Path(path) for name, path in pairs(settings.state, "--state").items()}
    if not settings.move:
        for name in ("move_sd", "restraints", "unrestrained"):
            if getattr(settings, name) != default[name]:
                raise InputError(
                    f"--{name.replace('_', '-')} is about states that move; add --move, or leave it out."
                )
    if len(states) < 2:
        raise InputError(
            f"Found {len(states)} states; give the dark one and at least one other, --state NAME=MODEL."
        )
    return replace(files, states=states), settings


def pairs(texts, option: str) -> dict[str, str]:
    """{name: value} of "NAME=VALUE", ..."""
    out = {}
    for text in texts or ():
        name, _, value = text.rpartition("=")
        if not name or not value:
            raise InputError(f"{option} {text} is not of the form NAME=VALUE.")
        if name.strip() in out:
            raise InputError(f"{option} names {name.strip()} twice; leave one out.")
        out[name.strip()] = value.strip()
    return out


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
