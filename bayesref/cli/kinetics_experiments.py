"""`bayesref kinetics` on several experiments: series at several temperatures, or others that share rates."""

import time
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import torch

from bayesref._checks import InputError
from bayesref.cli.kinetics_design import design_of, fixed_values, moving_atoms, scheme_of, transition
from bayesref.cli.kinetics_fit import (
    fit_free,
    fit_page,
    fit_scheme,
    label_swaps,
    occupancy_rows,
    ordered,
    prepared,
    remarks,
    scheme_rows,
    sensitivity,
    settled,
)
from bayesref.cli.kinetics_options import KineticsSettings, gather_experiments, pairs
from bayesref.cli.tables import table
from bayesref.io.atomic import prepare_output
from bayesref.io.structure import read_structure
from bayesref.kinetics.rate_links import RateLinks
from bayesref.refinement.experiment import Experiment
from bayesref.results.kinetics import log_times, write_table
from bayesref.results.kinetics_experiments import split, write_experiments
from bayesref.results.run import PACKAGES, plain, version_of, write_run
from bayesref.validation.departures import departures
from bayesref.validation.loo import LeaveOneOut, compare, leave_one_out
from bayesref.validation.predictive import predictive_checks

ODD = 0.01  # p of rates that are not tied as they are said to be
ALONE = "each by itself"
PAGE = "experiments need model(experiments, kinetics, links, design, priors)"


def kinetics_of_experiments(settings: KineticsSettings, console, begin: float) -> None:
    """See `kinetics`; the experiments are described in a TOML file, `io.experiments`."""
    files, settings = gather_experiments(settings)
    if not settings.scheme:
        raise InputError(
            f'Experiments share rates; give their reactions, scheme = "B -> C, C -> A" in {settings.series}.'
        )
    schemes = linked_schemes(settings, files)
    model, design, links = next(iter(schemes.values()))
    fixed = fixed_numbers(settings, schemes)
    crystals = [{state: read_structure(path) for state, path in f.files.states.items()} for f in files]
    moving = moved_together(settings, files, crystals)
    out = prepare_output(settings.out, settings.overwrite)
    experiments = []
    for f, mine in zip(files, crystals, strict=True):
        console.print(f"[bold]{f.name}[/bold]", highlight=False)
        series, states = prepared(console, settings, f.files, mine, moving, out / f.folder)
        experiments.append(Experiment(f.name, series, states, f.temperature))
    posteriors = {
        text: fit_linked(console, settings, experiments, k, d, x, fixed, text)
        for text, (k, d, x) in schemes.items()
    }
    posterior = posteriors[settings.scheme]
    separate = []
    if settings.separate:
        for i, e in enumerate(experiments):
            values = values_of(fixed, links, i)
            one = replace(settings, page=None)
            separate.append(fit_scheme(console, one, e.series, e.states, model, design, values, e.name))
    rows = comparison(posteriors, separate)
    report(console, settings, posterior, separate, model, design, links, experiments, files, crystals, rows, fixed,
           out, begin)  # fmt: skip


def linked_schemes(settings, files) -> dict[str, tuple]:
    """{scheme: (Kinetics, Design, RateLinks)} of those asked for, the first to report."""
    texts = (settings.scheme, *(settings.compare or ()))
    models = {s: scheme_of(s, settings, files[0].files) for s in texts}
    own, shared = (tuple(transition(r) for r in x or ()) for x in (settings.own_rate, settings.shared_rate))
    rates = list(dict.fromkeys(r for k in models.values() for r in k.rates))
    for option, given in (("own", own), ("shared", shared)):
        for name in given:
            if name not in rates:
                raise InputError(
                    f"--{option}-rate {name}: there is no such reaction; there are {', '.join(rates)}."
                )
    law = settings.temperature_law or ""
    if shared and not law:
        raise InputError(
            f"--shared-rate {shared[0]}: without a temperature law all rates are shared; leave it out."
        )
    missing = [e.name for e in files if e.temperature is None]
    if law and missing:
        raise InputError(
            f"{settings.series}: {missing[0]} has no temperature, which the law {law} needs; add temperature = 277 (K)."
        )
    T = tuple(e.temperature for e in files if e.temperature is not None and not missing)
    names = tuple(e.name for e in files)
    return {
        s: (
            k,
            design_of(settings, k),
            RateLinks(k.rates, names, law, T, *(tuple(r for r in x if r in k.rates) for x in (own, shared))),
        )
        for s, k in models.items()
    }


def fixed_numbers(settings, schemes) -> dict[str, torch.Tensor]:
    """{site: value} of --fix; what each experiment has for itself may be named once for all of them."""
    out = {}
    links = [parts[2] for parts in schemes.values()]
    rates = {r for x in links for r in x.rates}
    each = {"activation", "unevenness"} | {f"k {r}" for x in links for r in x.own}
    for name, value in pairs(settings.fix, "--fix").items():
        base, experiment = split(name, links[0].experiments)
        kind, _, rate = base.partition(" ")
        if kind in ("k", "Ea", "dH"):
            if transition(rate) not in rates:
                raise InputError(
                    f"--fix {name}: there is no such reaction; there are {', '.join(sorted(rates))}."
                )
            base = f"{kind} {transition(rate)}"
        ((site, number),) = fixed_values(replace(settings, fix=[f"{base}={value}"])).items()
        names = [experiment] if experiment else links[0].experiments if site in each else [""]
        for e in names:
            out[f"{site} {e}".strip()] = number
    return out


def of_scheme(fixed: dict, links: RateLinks) -> dict:
    """Those numbers that a scheme with these links has."""
    rate = {site: split(site, links.experiments)[0].partition(" ") for site in fixed}
    return {
        s: v for s, v in fixed.items() if rate[s][0] not in ("k", "Ea", "dH") or rate[s][2] in links.rates
    }


def values_of(fixed: dict, links: RateLinks, i: int) -> dict:
    """Those numbers that experiment `i` has by itself."""
    out = {}
    for site, value in of_scheme(fixed, links).items():
        base, experiment = split(site, links.experiments)
        tied = base.partition(" ")[2] in links.activated and base.startswith(("k ", "Ea ", "dH "))
        if experiment in ("", links.experiments[i]) and not tied:
            out[base] = value
    return out


def moved_together(settings, files, crystals) -> dict:
    """{state: (rows, Restraints)} of --move, for states of the same atoms in all experiments."""
    moving = moving_atoms(settings, crystals[0])
    for name in moving:
        for e, mine in zip(files, crystals, strict=True):
            if mine[name].name != crystals[0][name].name:
                raise InputError(
                    f"--move {name}: its atoms in {e.name} are not those in {files[0].name}; give models of like atoms."
                )
    return moving


def fit_linked(console, settings, experiments, model, design, links, fixed, text):
    """Posterior of all experiments under one scheme."""
    arguments = ([replace(e, states=ordered(e.states, model)) for e in experiments], model, links, design)
    return fit_page(
        console, settings, settings.page or "kinetic_experiments", PAGE, arguments, of_scheme(fixed, links), text,
        tuple(f"F_obs {e.name}" for e in experiments),
    )  # fmt: skip


def comparison(posteriors, separate) -> list[dict]:
    """Rows of `compare`, of schemes and of experiments that share nothing."""
    models = {s: leave_one_out(p.log_likelihood) for s, p in posteriors.items()}
    evidence = {s: p.log_evidence for s, p in posteriors.items()}
    if separate:
        each = [leave_one_out(p.log_likelihood) for p in separate]
        untrusted = float(np.average([x.untrusted for x in each], weights=[len(x.each) for x in each]))
        models[ALONE] = LeaveOneOut(np.concatenate([x.each for x in each]), untrusted)
        evidence[ALONE] = sum(p.log_evidence for p in separate)
    return [row | {"log_evidence": evidence[row["model"]]} for row in compare(models)]


def curve_of(settings, model, design, links, series, values, i):
    """Delays, and draws of the occupancies there, of experiment `i`."""
    own = {split(k, links.experiments)[0]: x for k, x in values.items() if split(k, links.experiments)[1]
           == links.experiments[i]}  # fmt: skip
    rates = {f"k {name}": k for name, k in links.rates_of(values)[i].items()}
    numbers = {k: x for k, x in (values | own | rates).items() if k != "uneven"}
    t = log_times(series.t)
    return t, design.occupancies(model, numbers, torch.from_numpy(t).expand(settings.draws, -1)).numpy()


def report(
    console,
    settings,
    posterior,
    separate,
    model,
    design,
    links,
    experiments,
    files,
    crystals,
    rows,
    fixed,
    out,
    begin,
) -> None:
    """Write and print the results."""
    free, curves, checks, shown, shifts = [], [], [], [], pd.DataFrame()
    for i, e in enumerate(experiments):
        states, mine, shifts = settled(e.states, crystals[i], posterior)
        shown.append(mine)
        if settings.free_occupancies:
            free.append(fit_free(console, settings, e.series, states, model, f"{e.name}, no scheme"))
        curves.append(curve_of(settings, model, design, links, e.series, posterior.sites | fixed, i))
        replicates = posterior.replicates[f"F_obs {e.name}"]
        checks.append(predictive_checks(e.series.F, e.series.SIGF, replicates, e.series.t))
    if len(shifts):
        write_table(shifts, out / "shifts.csv")
    priors = sensitivity(posterior)
    ties = departures(links, [p.sites for p in separate]) if separate else []
    folders = [f.folder for f in files]
    parameters, occupancies = write_experiments(
        posterior,
        separate,
        free,
        model,
        links,
        experiments,
        folders,
        curves,
        checks,
        priors,
        shown,
        fixed,
        out,
    )
    record = {
        "options": asdict(settings), "versions": {p: version_of(p) for p in PACKAGES},
        "experiments": [{"name": e.name, "temperature": e.temperature, "reflections": len(e.series), "R": e.states.R}
                        for e in experiments],
        "law": links.law or None, "T_ref": links.T_ref if links.law else None,
        "parameters": parameters.to_dict("records"), "log_evidence": posterior.log_evidence, "k_hat": posterior.k_hat,
        "modes": [{"log_joint": m.log_joint, "log_evidence": m.log_evidence} for m in posterior.modes],
        "notes": posterior.notes, "comparison": rows, "departures": ties,
        "predictive_checks": {e.name: c for e, c in zip(experiments, checks, strict=True)},
        "prior_sensitivity": priors,
        "swaps": [{"rates": list(s.rates), "unchanged": list(s.unchanged)} for s in label_swaps(model)],
        "cost": {"seconds": time.monotonic() - begin, "cpu_seconds": time.process_time()},
    }  # fmt: skip
    write_run(plain(record), out / "run.json")
    t = table("Rates", "", "experiment", "K", "median", "90 % from", "to", "")
    for row in parameters.to_dict("records"):
        T = row["temperature"]
        t.add_row(row["parameter"], row["experiment"], "" if T is None or T != T else f"{T:.5g}",
                  *(f"{row[k]:.4g}" for k in ("median", "low", "high")), row["unit"])  # fmt: skip
    console.print("", t, "")
    for e in experiments:
        mine = occupancies[occupancies.experiment == e.name]
        console.print(occupancy_rows(f"Occupancies, {e.name}", model, mine, bool(free)), "")
    for line in told(model, checks, priors, experiments, links, ties):
        console.print(line, highlight=False)
    if len(rows) > 1:
        console.print(scheme_rows(rows), "")
    console.print(f"Results are in {out}.")


def told(model, checks, priors, experiments, links, ties) -> list[str]:
    """Remarks on all experiments, and whether they share what they are said to."""
    lines = remarks(model, [], priors)
    for e, c in zip(experiments, checks, strict=True):
        lines += [f"{e.name}: {line}" for line in remarks(model, c, [], swapped=False)]
    for r in ties:
        if r["p"] < ODD:
            tie = f"the law {links.law}" if r["rate"] in links.activated else "one rate for all"
            lines.append(
                f"The rates of {r['rate']} that experiments have by themselves depart from {tie} (p {r['p']:.2g}): see "
                "separate.csv."
            )
    return lines
