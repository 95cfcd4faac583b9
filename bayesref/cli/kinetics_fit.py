"""The steps of `bayesref kinetics` that one series and several experiments have in common."""

import inspect
from dataclasses import fields, replace
from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import pyro
import torch
from rich.console import Console

from bayesref import programs
from bayesref._checks import InputError
from bayesref.cli.kinetics_design import width
from bayesref.cli.kinetics_options import KineticsSettings
from bayesref.cli.merge import merge
from bayesref.cli.options import MergeSettings
from bayesref.cli.resume import stop_with
from bayesref.cli.tables import table
from bayesref.inference.laplace import SmallPosterior, fit_small
from bayesref.io.merged import check_against
from bayesref.io.series import SeriesFiles, read_series, rescaled
from bayesref.kinetics.kinetics import Kinetics
from bayesref.kinetics.swaps import swaps
from bayesref.refinement.states import fit_states, to_model_scale
from bayesref.validation.sensitivity import prior_sensitivity

N_REPLICATES = 60  # of the data, for predictive checks


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


def prepared(console, settings, files, crystals, moving, out):
    """The series on the scale of the dark model, and the states."""
    files = merged(files, settings, out, console)
    series, dark = read_series(files, settings.dmin)
    for name, path in files.states.items():
        check_against(dark, crystals[name], str(path))
    first, last = float(series.t.min()), float(series.t.max())
    delays = (
        f"{series.n_time} delays from {first:g} to {last:g} s"
        if series.n_time > 1
        else f"one delay, {first:g} s"
    )
    console.print(
        f"{len(series):,} reflections to {float(series.asu.dHKL.min()):.2f} Å, {delays}; states {', '.join(crystals)}",
        highlight=False,
    )
    series, dark = rescaled(series, dark, to_model_scale(next(iter(crystals.values())), dark))
    states = fit_states(crystals, dark, programs.load("refine"), moving)
    console.print(f"Dark model against dark data: R {states.R:.3f}")
    return series, states


def fit_scheme(console, settings, series, states, kinetics, design, fixed, text) -> SmallPosterior:
    """Posterior of the rates of one scheme."""
    values = {k: v for k, v in fixed.items() if not k.startswith("k ") or k[2:] in kinetics.rates}
    if not kinetics.rates:
        shares = kinetics.shares(fixed, series.n_time)
        values = {} if shares is None else {"shares": shares}
    page = settings.page or ("kinetic" if kinetics.rates else "difference")
    what = "a series needs model(series, states, kinetics, design, priors)"
    arguments = (series, ordered(states, kinetics), kinetics, design)
    return fit_page(console, settings, page, what, arguments, values, text)


def fit_page(console, settings, name, what, arguments, values, text, observed="F_obs") -> SmallPosterior:
    """Posterior of a page's numbers, but those that `values` holds.

    Parameters
    ----------
    what : what a page has to be, for the message where it is not
    arguments : of its model, but for the priors, which come last
    observed : its observed site, or sites
    """
    page = programs.load(name)
    prior = page.__globals__.get("Priors")
    takes = list(inspect.signature(page).parameters)
    several = not isinstance(observed, str)
    if prior is None or len(takes) < 5 or (takes[0] == "experiments") != several:
        raise InputError(
            f"The page {name} is model({', '.join(takes)}); {what} and its Priors: choose another with --page."
        )
    time, factor = width(settings.expected_time, "--expected-time")
    given = {"time": time, "factor": factor, "shift": settings.move_sd}
    priors = prior(**{f.name: given[f.name] for f in fields(prior) if f.name in given})
    arguments = (*arguments, priors)
    check_sites(page, arguments, values)
    model = pyro.condition(page, data=values) if values else page
    posterior = fit_small(
        model, arguments, observed=observed,
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


def fit_free(console, settings, series, states, kinetics, text="no scheme") -> SmallPosterior:
    """Occupancies of each delay by itself."""
    return fit_small(
        programs.load("occupancy"), (series, ordered(states, kinetics)), n_starts=1, n_draws=settings.draws,
        seed=settings.seed, report=lambda line: console.print(f"{text}: {line}", highlight=False),
    )  # fmt: skip


def sensitivity(posterior: SmallPosterior) -> list[dict]:
    """How the numbers of the kinetics would move with their priors."""
    draws = {}
    for name in posterior.log_prior:
        x = posterior.sites[name]
        if x[0].numel() == 1 and not name.startswith("log_common"):
            flat = x.reshape(-1).numpy()
            draws[name] = np.log(flat) if (flat > 0).all() else flat
    return prior_sensitivity(draws, {k: v.numpy() for k, v in posterior.log_prior.items()})


def label_swaps(model) -> tuple:
    """See `swaps`; none where there are no rates."""
    return swaps(model) if model.rates else ()


def remarks(model, checks, priors, swapped: bool = True) -> list[str]:
    """Sentences on what the data cannot tell (with the rates that may be swapped), and on where the model fails."""
    lines = [
        f"Where structures are free, the rates {' and '.join(s.rates)} may be exchanged"
        + (f" without a change of {', '.join(s.unchanged)}." if s.unchanged else ".")
        for s in (label_swaps(model) if swapped else ())
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


def occupancy_rows(title: str, model, occupancies, free: bool):
    """A table to print of one series: mean and sd of each occupancy, by the scheme and (`free`) without it."""
    unrestrained = [f"{n} free" for n in model.occupied] if free else []
    o = table(title, "delay (s)", *model.occupied, *unrestrained)
    for delay, group in occupancies.groupby("delay"):
        o.add_row(f"{delay:g}", *(f"{r['mean']:.3f} ± {r['sd']:.3f}" for r in group.to_dict("records")))
    return o


def scheme_rows(rows: list[dict]):
    """A table to print of a comparison."""
    c = table("Schemes, by leave-one-out", "scheme", "elpd", "difference", "se", "log evidence", "")
    for r in rows:
        c.add_row(r["model"], f"{r['elpd']:,.1f}", f"{r['difference']:.1f}", f"{r['se']:.1f}",
                  f"{r['log_evidence']:,.1f}", r["verdict"])  # fmt: skip
    return c
