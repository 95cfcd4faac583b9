"""`bayesref kinetics`: a series of merged datasets and structures in, rate constants and occupancies out."""

import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from rich.console import Console

from bayesref import programs
from bayesref._checks import InputError
from bayesref.cli.command import command_from
from bayesref.cli.tables import table
from bayesref.inference.laplace import SmallPosterior, fit_small
from bayesref.io.atomic import prepare_output
from bayesref.io.merged import check_against
from bayesref.io.series import SeriesFiles, parse_light, read_series, read_series_file, rescaled
from bayesref.io.structure import read_structure
from bayesref.kinetics.kinetics import Kinetics
from bayesref.kinetics.swaps import swaps
from bayesref.refinement.states import fit_states, to_model_scale
from bayesref.results.kinetics import log_times, write_kinetics
from bayesref.results.run import PACKAGES, plain, version_of, write_run
from bayesref.validation.loo import compare, leave_one_out

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
    dark: Annotated[Path | None, DATA(help="Merged data without light (MTZ or mmCIF).")] = None
    light: Annotated[
        list[str] | None,
        DATA("--light", metavar="DELAY=FILE", help="Merged data at a delay, 10us=a.mtz; repeated."),
    ] = None
    state: Annotated[
        list[str] | None,
        DATA("--state", metavar="NAME=MODEL", help="Structure of a state, the dark one first; repeated."),
    ] = None
    labels: Annotated[str | None, DATA(metavar="F,SIGF", help="Columns, the same in every file.")] = None
    dmin: Annotated[float | None, DATA(help="High-resolution limit, Å.")] = None

    scheme: Annotated[str | None, KINETICS("--scheme", "-s", help='Reactions, as "B -> C, C -> A".')] = None
    ground: Annotated[str | None, KINETICS(help="State before the light. [default: the first --state]")] = (
        None
    )
    start: Annotated[
        str | None, KINETICS(help="State right after the light. [default: first of the scheme]")
    ] = None
    light_activated: Annotated[
        bool, KINETICS("--light-activated", help="What returns to the ground state stays there.")
    ] = False
    compare: Annotated[
        list[str] | None, KINETICS("--compare", help="Another scheme to compare with; repeated.")
    ] = None

    page: Annotated[str, INFERENCE(help="Model page of the scheme.")] = "kinetic"
    method: Annotated[
        Literal["laplace", "nuts"],
        INFERENCE(help="How draws are made: from Laplace's Gaussian with importance weights, or by NUTS."),
    ] = "laplace"
    starts: Annotated[int, INFERENCE(min=1, help="Optimisations from different starts.")] = 4
    draws: Annotated[int, INFERENCE(min=50, help="Draws of the posterior.")] = 400
    unrestrained: Annotated[bool, INFERENCE(help="Fit occupancies without a scheme as well.")] = True
    threads: Annotated[int, INFERENCE(min=1, help="Threads.")] = 1
    seed: Annotated[int, INFERENCE(help="Of the random numbers.")] = 0

    out: Annotated[Path, OUTPUT("--out", "-o", help="Directory for the results.", show_default=False)]
    overwrite: Annotated[bool, OUTPUT("--overwrite", help="Replace files that are there already.")] = False
    quiet: Annotated[bool, OUTPUT("--quiet", "-q", help="Print nothing but errors.")] = False


def kinetics(settings: KineticsSettings) -> None:
    """Infer rate constants and occupancies from a pump-probe series and the structures of the states.

    Amplitudes of all delays are explained together: the errors of the dark model, the same at every delay, are
    integrated over and cancel in differences. Rates have posteriors; schemes can be compared.

    Example: bayesref kinetics --dark off.mtz --light 10us=a.mtz --light 1ms=b.mtz --state A=dark.pdb --state B=on.pdb
    --scheme "B -> A" --out kinetics
    """
    begin = time.monotonic()
    console = Console(quiet=settings.quiet)
    torch.set_num_threads(settings.threads)
    files, settings = gather(settings)
    out = prepare_output(settings.out, settings.overwrite)
    series, dark = read_series(files, settings.dmin)
    crystals = {name: read_structure(path) for name, path in files.states.items()}
    for name, path in files.states.items():
        check_against(dark, crystals[name], str(path))
    console.print(
        f"{len(series):,} reflections to {float(series.asu.dHKL.min()):.2f} Å, {series.n_time} delays from "
        f"{float(series.t.min()):g} to {float(series.t.max()):g} s; states {', '.join(crystals)}", highlight=False,
    )  # fmt: skip
    series, dark = rescaled(series, dark, to_model_scale(next(iter(crystals.values())), dark))
    states = fit_states(crystals, dark, programs.load("refine"))
    console.print(f"Dark model against dark data: R {states.R:.3f}")
    schemes = [s for s in (settings.scheme, *(settings.compare or ())) if s]
    models = {s: scheme_of(s, settings, files) for s in schemes}
    posteriors = {s: fit_scheme(console, settings, series, states, k, s) for s, k in models.items()}
    first = schemes[0]
    free = fit_free(console, settings, series, states, models[first]) if settings.unrestrained else None
    rows = compare({s: leave_one_out(p.log_likelihood) for s, p in posteriors.items()})
    for row in rows:
        row["log_evidence"] = posteriors[row["model"]].log_evidence
    report(console, settings, posteriors[first], free, models[first], series, rows, out, begin)


def gather(settings: KineticsSettings) -> tuple[SeriesFiles, KineticsSettings]:
    """Files and settings, from the TOML file or the options."""
    if settings.series is not None:
        if settings.dark or settings.light:
            raise InputError("Give either a series file or --dark and --light, not both.")
        files = read_series_file(settings.series)
        known = ("scheme", "ground", "start", "light_activated")
        unknown = sorted(set(files.kinetics) - set(known))
        if unknown:
            raise InputError(
                f"{settings.series}: [kinetics] has an unknown key {unknown[0]}; expected {', '.join(known)}."
            )
        given = {k: v for k, v in files.kinetics.items() if not getattr(settings, k)}
        settings = replace(settings, **given)
    elif settings.dark is None or not settings.light:
        raise InputError("A series needs --dark FILE and at least one --light DELAY=FILE, or a TOML file.")
    else:
        files = SeriesFiles(settings.dark, parse_light(settings.light))
    if settings.labels:
        pair = [x.strip() for x in settings.labels.split(",")]
        files = replace(files, labels=(pair[0], pair[-1]))
    states = dict(files.states)
    for text in settings.state or ():
        name, _, path = text.partition("=")
        if not path:
            raise InputError(f"--state {text} is not of the form NAME=MODEL, such as A=dark.pdb.")
        states[name.strip()] = Path(path)
    if len(states) < 2:
        raise InputError(
            f"Found {len(states)} states; give the dark one and at least one other, --state NAME=MODEL."
        )
    if not settings.scheme:
        raise InputError('Give the reactions, such as --scheme "B -> C, C -> A".')
    return replace(files, states=states), settings


def scheme_of(text: str, settings: KineticsSettings, files: SeriesFiles) -> Kinetics:
    """The kinetics of one scheme, its states checked against the structures."""
    names = tuple(files.states)
    ground = settings.ground or names[0]
    scheme = Kinetics(text)
    missing = [s for s in scheme.occupied if s not in names]
    if missing:
        raise InputError(
            f"The scheme {text} has a state {missing[0]} without a structure; give --state {missing[0]}=MODEL."
        )
    start = settings.start or scheme.states[0]
    return Kinetics(text, ground=ground, start=start, light_activated=settings.light_activated)


def ordered(states, kinetics: Kinetics):
    """The states in the order of the scheme's occupancies."""
    rows = [states.names.index(n) for n in kinetics.occupied]
    return replace(states, names=kinetics.occupied, d=states.d[:, rows])


def fit_scheme(console, settings, series, states, kinetics, text) -> SmallPosterior:
    """Posterior of the rates of one scheme."""
    posterior = fit_small(
        programs.load(settings.page), (series, ordered(states, kinetics), kinetics), n_starts=settings.starts,
        n_draws=settings.draws, method=settings.method, seed=settings.seed,
        report=lambda line: console.print(f"{text}: {line}", highlight=False),
    )  # fmt: skip
    for note in posterior.notes:
        console.print(f"[bold]{text}: {note}.[/bold]")
    return posterior


def fit_free(console, settings, series, states, kinetics) -> SmallPosterior:
    """Occupancies of each delay by itself."""
    return fit_small(
        programs.load("occupancy"), (series, ordered(states, kinetics)), n_starts=1, n_draws=settings.draws,
        seed=settings.seed, report=lambda line: console.print(f"no scheme: {line}", highlight=False),
    )  # fmt: skip


def report(console, settings, posterior, free, model, series, rows, out, begin) -> None:
    """Write and print the results."""
    curve_t = log_times(series.t)
    rates = {k.removeprefix("k "): x for k, x in posterior.sites.items() if k.startswith("k ")}
    alpha = posterior.sites.get("activation", torch.ones(len(posterior.y), dtype=torch.float64))
    curve = model.occupancies(rates, torch.from_numpy(curve_t).expand(len(alpha), -1), activation=alpha)
    parameters, occupancies = write_kinetics(posterior, free, model, series, curve_t, curve.numpy(), out)
    record = {
        "options": asdict(settings), "versions": {p: version_of(p) for p in PACKAGES},
        "parameters": parameters.to_dict("records"), "log_evidence": posterior.log_evidence, "k_hat": posterior.k_hat,
        "modes": [{"log_joint": m.log_joint, "log_evidence": m.log_evidence} for m in posterior.modes],
        "notes": posterior.notes, "comparison": rows,
        "swaps": [{"rates": list(s.rates), "unchanged": list(s.unchanged)} for s in swaps(model)],
        "cost": {"seconds": time.monotonic() - begin, "cpu_seconds": time.process_time()},
    }  # fmt: skip
    write_run(plain(record), out / "run.json")
    t = table("Rates", "", "median", "90 % from", "to")
    for row in parameters.to_dict("records"):
        t.add_row(row["parameter"], *(f"{row[k]:.4g}" for k in ("median", "low", "high")))
    console.print("", t, "")
    o = table(
        "Occupancies", "delay (s)", *(f"{n}" for n in model.occupied), *(f"{n} free" for n in model.occupied)
    )
    for delay, group in occupancies.groupby("delay"):
        cells = [f"{r['mean']:.3f} ± {r['sd']:.3f}" for r in group.to_dict("records")]
        o.add_row(f"{delay:g}", *cells, *[""] * (2 * len(model.occupied) - len(cells)))
    console.print(o, "")
    for s in swaps(model):
        console.print(
            f"The rates {' and '.join(s.rates)} may be exchanged without a change of {', '.join(s.unchanged)}."
        )
    if len(rows) > 1:
        c = table("Schemes, by leave-one-out", "scheme", "elpd", "difference", "se", "log evidence", "")
        for r in rows:
            c.add_row(r["model"], f"{r['elpd']:,.1f}", f"{r['difference']:.1f}", f"{r['se']:.1f}",
                      f"{r['log_evidence']:,.1f}", r["verdict"])  # fmt: skip
        console.print(c, "")
    console.print(f"Results are in {out}.")


command = command_from(KineticsSettings, kinetics)
