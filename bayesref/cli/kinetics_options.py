"""Options of `bayesref kinetics`, from the command line and from a TOML file."""

from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from bayesref._checks import InputError
from bayesref.io.default_metadata import AUTO
from bayesref.io.experiments import ExperimentFiles, read_experiments_file
from bayesref.io.series import SeriesFiles, pair, parse_light, read_series_file

DATA = partial(typer.Option, rich_help_panel="Series")
KINETICS = partial(typer.Option, rich_help_panel="Kinetics")
SEVERAL = partial(typer.Option, rich_help_panel="Several experiments")
INFERENCE = partial(typer.Option, rich_help_panel="Inference")
OUTPUT = partial(typer.Option, rich_help_panel="Output")


@dataclass(frozen=True, kw_only=True)
class KineticsSettings:
    """What `bayesref kinetics` is asked to do; each field is an option and says what it is."""

    series: Annotated[
        Path | None,
        typer.Argument(
            help="TOML file of the series, or of several experiments; or give --dark and --light.",
            show_default=False,
        ),
    ] = None
    dark: Annotated[
        Path | None, DATA(help="Data without light: merged (MTZ, mmCIF), or spots to be merged first.")
    ] = None
    light: Annotated[
        list[str] | None,
        DATA(
            "--light",
            metavar="DELAY=FILE",
            help="Data at a delay, 10us=a.mtz; a number alone is in s; repeated.",
        ),
    ] = None
    metadata: Annotated[
        str, DATA(metavar="KEY,...", help="Columns of unmerged data that the scale depends on, as in merge.")
    ] = AUTO
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
            help='A reaction that loses a fraction of its molecules, which is inferred; repeated. "B->C:A" loses '
            "them to A.",
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

    temperature_law: Annotated[
        str | None,
        SEVERAL(
            metavar="arrhenius|eyring",
            help="How rates depend on the temperatures of the experiments. [default: all experiments share them]",
        ),
    ] = None
    own_rate: Annotated[
        list[str] | None,
        SEVERAL("--own-rate", metavar='"B->C"', help="A rate that each experiment has for itself; repeated."),
    ] = None
    shared_rate: Annotated[
        list[str] | None,
        SEVERAL("--shared-rate", metavar='"B->C"', help="A rate that does not follow the law; repeated."),
    ] = None
    separate: Annotated[
        bool,
        SEVERAL(help="Fit each experiment by itself as well, and compare: do they share what they should?"),
    ] = True

    page: Annotated[
        str | None,
        INFERENCE(
            help="Model page. [default: kinetic; without a scheme difference; of experiments kinetic_experiments]"
        ),
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


DEFAULT = {f.name: f.default for f in fields(KineticsSettings)}
# Keys of the table [kinetics], and the fields that they fill.
KEYS = {
    k: k
    for k in (
        "scheme", "ground", "start", "light_activated", "response", "efficiency", "unreacted", "uneven_light",
        "structure", "fix", "expected_time",
    )
}  # fmt: skip
REPEATED = ("efficiency", "structure", "fix", "own_rate", "shared_rate")
LINKS = {"temperature_law": "temperature_law", "own": "own_rate", "shared": "shared_rate"}


def gather(settings: KineticsSettings) -> tuple[SeriesFiles, KineticsSettings]:
    """Files and settings, from the TOML file or the options."""
    if settings.series is not None:
        if settings.dark or settings.light:
            raise InputError("Give either a series file or --dark and --light, not both.")
        files = read_series_file(settings.series)
        links = sorted(set(files.kinetics) & set(LINKS))
        if links:
            raise InputError(
                f"{settings.series}: {links[0]} in [kinetics] is about several experiments; describe each in an "
                "[[experiment]]."
            )
        settings = with_table(settings, files.kinetics, KEYS)
    elif settings.dark is None or not settings.light:
        raise InputError("A series needs --dark FILE and at least one --light DELAY=FILE, or a TOML file.")
    else:
        files = SeriesFiles(settings.dark, parse_light(settings.light))
    for name in (*LINKS.values(), "separate"):
        if getattr(settings, name) != DEFAULT[name]:
            option = f"{'no-' if name == 'separate' else ''}{name.replace('_', '-')}"
            raise InputError(f"--{option} is about several experiments; describe them in a TOML file.")
    if settings.labels:
        files = replace(files, labels=pair(settings.labels))
    if settings.light_labels:
        files = replace(files, light_labels=pair(settings.light_labels))
    states = files.states | {name: Path(path) for name, path in pairs(settings.state, "--state").items()}
    check_states(settings, states)
    return replace(files, states=states), settings


def gather_experiments(settings: KineticsSettings) -> tuple[list[ExperimentFiles], KineticsSettings]:
    """Files of several experiments and settings, from their TOML file and the options."""
    path = cast(Path, settings.series)
    if settings.dark or settings.light:
        raise InputError(f"{path} describes the experiments; leave out --dark and --light.")
    given = {name: Path(file) for name, file in pairs(settings.state, "--state").items()}
    found, table = read_experiments_file(path, given)
    settings = with_table(settings, table, KEYS | LINKS)
    files = []
    for e in found:
        labels = pair(settings.labels) if settings.labels else e.files.labels
        light = pair(settings.light_labels) if settings.light_labels else e.files.light_labels
        files.append(replace(e, files=replace(e.files, labels=labels, light_labels=light)))
        check_states(settings, e.files.states)
    return files, settings


def with_table(settings: KineticsSettings, table: dict, keys: dict[str, str]) -> KineticsSettings:
    """Settings with what a table [kinetics] says, where an option does not say otherwise."""
    unknown = sorted(set(table) - set(keys))
    if unknown:
        raise InputError(
            f"{settings.series}: [kinetics] has an unknown key {unknown[0]}; expected {', '.join(keys)}."
        )
    given = {keys[k]: v for k, v in table.items()}
    for name in REPEATED:
        if isinstance(given.get(name), str):  # one of what may be several
            given[name] = [given[name]]
    return replace(settings, **{k: v for k, v in given.items() if getattr(settings, k) == DEFAULT[k]})


def check_states(settings: KineticsSettings, states: dict) -> None:
    """Raise `InputError` for too few states, and for options about states that move where none does."""
    if not settings.move:
        for name in ("move_sd", "restraints", "unrestrained"):
            if getattr(settings, name) != DEFAULT[name]:
                raise InputError(
                    f"--{name.replace('_', '-')} is about states that move; add --move, or leave it out."
                )
    for name, text in pairs(settings.move, "--move").items():
        if text.rpartition(":")[2].strip().startswith("-"):
            raise InputError(f"--move {name}={text}: a radius is not negative; give a distance in Å.")
    if len(states) < 2:
        raise InputError(
            f"Found {len(states)} states; give the dark one and at least one other, --state NAME=MODEL."
        )


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
