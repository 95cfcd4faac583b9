"""`bayesref kinetics`: a series of datasets and structures in, rate constants and occupancies out."""

import time
from dataclasses import asdict

import torch

from bayesref._checks import InputError
from bayesref.cli.command import command_from
from bayesref.cli.kinetics_design import (
    design_of,
    fixed_values,
    moving_atoms,
    scheme_of,
)
from bayesref.cli.kinetics_experiments import kinetics_of_experiments
from bayesref.cli.kinetics_fit import (
    fit_free,
    fit_scheme,
    label_swaps,
    occupancy_rows,
    prepared,
    remarks,
    scheme_rows,
    sensitivity,
    settled,
)
from bayesref.cli.kinetics_options import DEFAULT, KineticsSettings, gather
from bayesref.cli.tables import table, wide_console
from bayesref.io.atomic import prepare_output
from bayesref.io.experiments import describes_experiments
from bayesref.io.series import SeriesFiles
from bayesref.io.structure import read_structure
from bayesref.kinetics.simplex import NoScheme
from bayesref.results.kinetics import log_times, write_kinetics, write_table
from bayesref.results.run import PACKAGES, plain, version_of, write_run
from bayesref.validation.loo import compare, leave_one_out
from bayesref.validation.predictive import predictive_checks

# Options that need a scheme.
REACTIONS = (
    "ground", "start", "light_activated", "structure", "response", "efficiency", "unreacted", "uneven_light",
    "expected_time", "compare",
)  # fmt: skip


def kinetics(settings: KineticsSettings) -> None:
    """Infer rate constants and occupancies from a pump-probe series and the structures of the states.

    Amplitudes of all delays are explained together: the errors of the dark model, the same at every delay, are
    integrated over and cancel in differences. Rates have posteriors; schemes can be compared. Spots that were not
    merged are merged first, all datasets together.

    Example: bayesref kinetics --dark off.mtz --light 10us=a.mtz --light 1ms=b.mtz --state A=dark.pdb --state B=on.pdb
    --scheme "B -> A" --out kinetics

    A TOML file may describe several experiments, such as a series at each of several temperatures: they share rates,
    or an activation energy for each reaction, and all that is not their own.
    """
    begin = time.monotonic()
    console = wide_console(quiet=settings.quiet)
    torch.set_num_threads(settings.threads)
    if describes_experiments(settings.series):
        kinetics_of_experiments(settings, console, begin)
        return
    files, settings = gather(settings)
    fixed = fixed_values(settings)
    experiments = experiments_of(settings, files, fixed)
    crystals = {name: read_structure(path) for name, path in files.states.items()}
    moving = moving_atoms(settings, crystals)
    out = prepare_output(settings.out, settings.overwrite)
    series, states = prepared(console, settings, files, crystals, moving, out)
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
    for name in REACTIONS:
        if getattr(settings, name) != DEFAULT[name]:
            raise InputError(
                f'--{name.replace("_", "-")} is about reactions; give them, such as --scheme "B -> C, C -> A".'
            )
    model = NoScheme(tuple(files.states))
    model.shares(fixed, 1)  # a bad one is told before the work begins
    return {"no scheme": (model, None)}


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
    console.print(occupancy_rows("Occupancies", model, occupancies, free is not None), "")
    for line in remarks(model, checks, priors):
        console.print(line, highlight=False)
    if len(rows) > 1:
        console.print(scheme_rows(rows), "")
    console.print(f"Results are in {out}.")


command = command_from(KineticsSettings, kinetics)
