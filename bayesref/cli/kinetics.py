"""`bayesref kinetics`: a series of datasets and structures in, rate constants and occupancies out."""

import inspect
import time
from dataclasses import asdict, fields, replace
from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import pyro
import torch
from rich.console import Console

from bayesref import programs
from bayesref._checks import InputError
from bayesref.cli.command import command_from
from bayesref.cli.kinetics_options import (
    KineticsSettings,
    design_of,
    fixed_values,
    gather,
    moving_atoms,
    scheme_of,
    width,
)
from bayesref.cli.merge import merge
from bayesref.cli.options import MergeSettings
from bayesref.cli.resume import stop_with
from bayesref.cli.tables import table, wide_console
from bayesref.inference.laplace import SmallPosterior, fit_small
from bayesref.io.atomic import prepare_output
from bayesref.io.merged import check_against
from bayesref.io.series import SeriesFiles, read_series, rescaled
from bayesref.io.structure import read_structure
from bayesref.kinetics.kinetics import Kinetics
from bayesref.kinetics.simplex import NoScheme
from bayesref.kinetics.swaps import swaps
from bayesref.refinement.states import fit_states, to_model_scale
from bayesref.results.kinetics import log_times, write_kinetics, write_table
from bayesref.results.run import PACKAGES, plain, version_of, write_run
from bayesref.validation.loo import compare, leave_one_out
from bayesref.validation.predictive import predictive_checks
from bayesref.validation.sensitivity import prior_sensitivity

# Options that need a scheme.
REACTIONS = (
    "ground", "start", "light_activated", "structure", "response", "efficiency", "unreacted", "uneven_light",
    "expected_time", "compare",
)  # fmt: skip
N_REPLICATES = 60  # of the data, for predictive checks


def kinetics(settings: KineticsSettings) -> None:
    """Infer rate constants and occupancies from a pump-probe series and the structures of the states.

    Amplitudes of all delays are explained together: the errors of the dark model, the same at every delay, are
    integrated over and cancel in differences. Rates have posteriors; schemes can be compared. Spots that were not
    merged are merged first, all datasets together.

    Example: bayesref kinetics --dark off.mtz --light 10us=a.mtz --light 1ms=b.mtz --state A=dark.pdb --state B=on.pdb
    --scheme "B -> A" --out kinetics
    """
    begin = time.monotonic()
    console = wide_console(quiet=settings.quiet)
    torch.set_num_threads(settings.threads)
    files, settings = gather(settings)
    fixed = fixed_values(settings)
    experiments = experiments_of(settings, files, fixed)
    crystals = {name: read_structure(path) for name, path in files.states.items()}
    moving = moving_atoms(settings, crystals)
    out = prepare_output(settings.out, settings.overwrite)
    files = merged(files, settings, out, console)
    series, dark = read_series(files, settings.dmin)
    for name, path in files.states.items():
        check_against(dark, crystals[name], str(path))
    console.print(
        f"{len(series):,} reflections to {float(series.asu.dHKL.min()):.2f} Å, {series.n_time} delays from "
        f"{float(series.t.min()):g} to {float(series.t.max()):g} s; states {', '.join(crystals)}", highlight=False,
    )  # fmt: skip
    series, dark = rescaled(series, dark, to_model_scale(next(iter(crystals.values())), dark))
    states = fit_states(crystals, dark, programs.load("refine"), moving)
    console.print(f"Dark model against dark data: R {states.R:.3f}")
    posteriors = {
        text: fit_scheme(console, settings, series, states, k, design, fixed, text)
        for text, (k, design) in experiments.items()
    }
    first, (model, design) = next(iter(experiments.items()))
    posterior = posteriors[first]
    states, crystals, shifts = settled(states, crystals, posterior)
    free, curve = None, None
    if design is not None:
        if settings.free_occupancies:
            free = fit_free(console, settings, series, states, model)
        curve_t = log_times(series.t)
        values = {k: v for k, v in (posterior.sites | fixed).items() if k != "uneven"}
        t = torch.from_numpy(curve_t).expand(settings.draws, -1)
        curve = curve_t, design.occupancies(model, values, t).numpy()
    rows = compare({s: leave_one_out(p.log_likelihood) for s, p in posteriors.items()})
    for row in rows:
        row["log_evidence"] = posteriors[row["model"]].log_evidence
    if len(shifts):
        write_table(shifts, out / "shifts.csv")
    report(console, settings, posterior, free, model, series, crystals, rows, curve, out, begin)


def experiments_of(settings: KineticsSettings, files: SeriesFiles, fixed: dict) -> dict[str, tuple]:
    """{scheme: (Kinetics, Design)} of those asked for, the first to report; without any, (NoScheme, None).

    Raises
    ------
    InputError
        Without a scheme, for options that are about reactions, and for shares that cannot be.
    """
    if settings.scheme:
        models = {s: scheme_of(s, settings, files) for s in (settings.scheme, *(settings.compare or ()))}
        rates = list(dict.fromkeys(r for k in models.values() for r in k.rates))
        for name in fixed:
            if name.startswith("k ") and name[2:] not in rates:
                raise InputError(f"--fix {name}: there is no such reaction; there are {', '.join(rates)}.")
        return {s: (k, design_of(settings, k)) for s, k in models.items()}
    default = {f.name: f.default for f in fields(KineticsSettings)}
    for name in REACTIONS:
        if getattr(settings, name) != default[name]:
            raise InputError(
                f'--{name.replace("_", "-")} is about reactions; give them, such as --scheme "B -> C, C -> A".'
            )
    model = NoScheme(tuple(files.states))
    model.shares(fixed, 1)  # a bad one is told before the work begins
    return {"no scheme": (model, None)}


def merged(files: SeriesFiles, settings: KineticsSettings, out: Path, console: Console) -> SeriesFiles:
    """The files of merged data: those given, or what all spots give when merged together, in out/merged."""
    paths = [files.dark, *(files.light[t] for t in sorted(files.light))]
    spots = [is_unmerged(path) for path in paths]
    if not any(spots):
        if settings.metadata != KineticsSettings.metadata:
            raise InputError("--metadata is about spots, and these data are merged; leave it out.")
        return files
    if not all(spots):
        a, b = paths[spots.index(True)], paths[spots.index(False)]
        raise InputError(
            f"{a} holds spots and {b} merged data; give all datasets of a series in one of the two ways."
        )
    console.print("Spots are merged first, all datasets on one scale.\n")
    merge(
        MergeSettings(
            files=paths, out=out / "merged", separate_files=True, metadata=settings.metadata, dmin=settings.dmin,
            threads=settings.threads, seed=settings.seed, quiet=settings.quiet, overwrite=settings.overwrite,
        )
    )  # fmt: skip
    stop_with(out / "merged")
    new = [out / "merged" / f"merged_{i}.mtz" for i in range(len(paths))]
    return replace(
        files, dark=new[0], light=dict(zip(sorted(files.light), new[1:], strict=True)), labels=("F", "SIGF")
    )


def is_unmerged(path: Path) -> bool:
    """Whether a file holds spots rather than merged data."""
    if path.suffix.lower() != ".mtz" or not path.is_file():
        return path.suffix.lower() not in (".mtz", ".cif", ".mmcif", ".ent", ".gz")
    try:
        mtz = gemmi.read_mtz_file(str(path), with_data=False)
    except (RuntimeError, ValueError):
        return False  # told where the data are read
    return mtz.column_with_label("M/ISYM") is not None or mtz.column_with_label("BATCH") is not None


def ordered(states, kinetics: Kinetics):
    """The states in the order of the scheme's occupancies."""
    rows = [states.names.index(n) for n in kinetics.occupied]
    return replace(states, names=kinetics.occupied, d=states.d[:, rows])


def fit_scheme(console, settings, series, states, kinetics, design, fixed, text) -> SmallPosterior:
    """Posterior of the rates of one scheme."""
    page = programs.load(settings.page or ("kinetic" if kinetics.rates else "difference"))
    values = {k: v for k, v in fixed.items() if not k.startswith("k ") or k[2:] in kinetics.rates}
    if not kinetics.rates:
        shares = kinetics.shares(fixed, series.n_time)
        values = {} if shares is None else {"shares": shares}
    prior = page.__globals__.get("Priors")
    takes = list(inspect.signature(page).parameters)
    if prior is None or len(takes) < 5:
        raise InputError(
            f"The page {settings.page} is model({', '.join(takes)}); a series needs model(series, states, kinetics, "
            "design, priors) and its Priors: choose another with --page."
        )
    time, factor = width(settings.expected_time, "--expected-time")
    given = {"time": time, "factor": factor, "shift": settings.move_sd}
    priors = prior(**{f.name: given[f.name] for f in fields(prior) if f.name in given})
    arguments = (series, ordered(states, kinetics), kinetics, design, priors)
    check_sites(page, arguments, values)
    model = pyro.condition(page, data=values) if values else page
    posterior = fit_small(
        model, arguments,
        n_starts=settings.starts, n_draws=settings.draws, method=settings.method, n_replicates=N_REPLICATES,
        seed=settings.seed, report=lambda line: console.print(f"{text}: {line}", highlight=False),
    )  # fmt: skip
    for note in posterior.notes:
        console.print(f"[bold]{text}: {note}.[/bold]")
    return posterior


def check_sites(page, arguments: tuple, values: dict) -> None:
    """Raise `InputError` for a number to hold that the page does not have."""
    if not values:
        return
    nodes = pyro.poutine.trace(page).get_trace(*arguments).nodes
    known = [k for k, n in nodes.items() if n["type"] == "sample" and not n["is_observed"]]
    for name in values:
        if name not in known:
            raise InputError(f"--fix {name}: the model has no such number; it has {', '.join(known)}.")


def settled(states, crystals, posterior):
    """States and crystals with the mean shifts of a posterior, and a table of the shifts."""
    d, crystals, rows = list(states.d.unbind(1)), dict(crystals), []
    for name, atoms in states.movers.items():
        draws = posterior.sites[f"shift {name}"]
        mean, sd = draws.mean(0), draws.std(0)
        with torch.no_grad():
            d[states.names.index(name)] = atoms.change(mean)
        crystals[name] = replace(crystals[name], xyz=crystals[name].xyz.index_add(0, atoms.rows, mean))
        for i, a in enumerate(atoms.rows.tolist()):
            row = {"state": name, "atom": crystals[name].name[a]}
            row |= {f"d{x}": float(mean[i, j]) for j, x in enumerate("xyz")}
            rows.append(row | {f"sd_{x}": float(sd[i, j]) for j, x in enumerate("xyz")})
    return replace(states, d=torch.stack(d, 1), movers={}), crystals, pd.DataFrame(rows)


def fit_free(console, settings, series, states, kinetics) -> SmallPosterior:
    """Occupancies of each delay by itself."""
    return fit_small(
        programs.load("occupancy"), (series, ordered(states, kinetics)), n_starts=1, n_draws=settings.draws,
        seed=settings.seed, report=lambda line: console.print(f"no scheme: {line}", highlight=False),
    )  # fmt: skip


def sensitivity(posterior: SmallPosterior) -> list[dict]:
    """How the numbers of the kinetics would move with their priors."""
    draws = {}
    for name in posterior.log_prior:
        x = posterior.sites[name]
        if x[0].numel() == 1 and name != "log_common":
            flat = x.reshape(-1).numpy()
            draws[name] = np.log(flat) if (flat > 0).all() else flat
    return prior_sensitivity(draws, {k: v.numpy() for k, v in posterior.log_prior.items()})


def report(console, settings, posterior, free, model, series, crystals, rows, curve, out, begin) -> None:
    """Write and print the results."""
    checks = predictive_checks(series.F, series.SIGF, posterior.replicates, series.t)
    priors = sensitivity(posterior)
    parameters, occupancies = write_kinetics(
        posterior, free, model, series, curve, out, checks, priors, crystals
    )
    record = {
        "options": asdict(settings), "versions": {p: version_of(p) for p in PACKAGES},
        "parameters": parameters.to_dict("records"), "log_evidence": posterior.log_evidence, "k_hat": posterior.k_hat,
        "modes": [{"log_joint": m.log_joint, "log_evidence": m.log_evidence} for m in posterior.modes],
        "notes": posterior.notes, "comparison": rows, "predictive_checks": checks, "prior_sensitivity": priors,
        "swaps": [{"rates": list(s.rates), "unchanged": list(s.unchanged)} for s in label_swaps(model)],
        "cost": {"seconds": time.monotonic() - begin, "cpu_seconds": time.process_time()},
    }  # fmt: skip
    write_run(plain(record), out / "run.json")
    if model.rates:
        t = table("Rates", "", "median", "90 % from", "to")
        for row in parameters.to_dict("records"):
            t.add_row(row["parameter"], *(f"{row[k]:.4g}" for k in ("median", "low", "high")))
        console.print("", t, "")
    unrestrained = [f"{n} free" for n in model.occupied] if free is not None else []
    o = table("Occupancies", "delay (s)", *model.occupied, *unrestrained)
    for delay, group in occupancies.groupby("delay"):
        o.add_row(f"{delay:g}", *(f"{r['mean']:.3f} ± {r['sd']:.3f}" for r in group.to_dict("records")))
    console.print(o, "")
    for line in remarks(model, checks, priors):
        console.print(line, highlight=False)
    if len(rows) > 1:
        c = table("Schemes, by leave-one-out", "scheme", "elpd", "difference", "se", "log evidence", "")
        for r in rows:
            c.add_row(r["model"], f"{r['elpd']:,.1f}", f"{r['difference']:.1f}", f"{r['se']:.1f}",
                      f"{r['log_evidence']:,.1f}", r["verdict"])  # fmt: skip
        console.print(c, "")
    console.print(f"Results are in {out}.")


def label_swaps(model) -> tuple:
    """See `swaps`; none where there are no rates."""
    return swaps(model) if model.rates else ()


def remarks(model, checks, priors) -> list[str]:
    """Sentences on what the data cannot tell, and on where the model fails."""
    lines = [
        f"Where structures are free, the rates {' and '.join(s.rates)} may be exchanged"
        + (f" without a change of {', '.join(s.unchanged)}." if s.unchanged else ".")
        for s in label_swaps(model)
    ]
    told = [r["parameter"] for r in priors if r["matters"]]
    if told:
        lines.append(f"The prior matters to {', '.join(told)}: see sensitivity.csv.")
    large = [f"{r['delay']:g} s" for r in checks if r["p"] < 0.01]
    small = [r for r in checks if r["p"] > 0.99]
    if large:
        lines.append(
            f"Differences are larger than the model has them at {', '.join(large)}: see predictive.png."
        )
    if small:
        lines.append(
            f"At {len(small)} of {len(checks)} delays differences are smaller than SIGF would have them, as errors "
            "that datasets share cancel."
        )
    return lines


command = command_from(KineticsSettings, kinetics)
