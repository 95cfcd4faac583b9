"""Files of a kinetic analysis of several experiments.

rates.csv           each number, of an experiment or (`experiment` is empty) of all: temperature (K), unit, mean, sd,
                    median, 90 % interval
separate.csv        the same of each experiment by itself
occupancies.csv, predictive.csv      as of one series, with the experiment
sensitivity.csv, shifts.csv, run.json      as of one series
arrhenius.png       rates over 1/T: the law, 90 % band; each experiment by itself, 90 % interval
kinetics.png        occupancies over time, a panel for each experiment
rates.png, scheme.png      rates (where temperature matters, at the reference temperature) and activation energies
posterior.nc        draws of what is one number in all experiments or in each, log likelihood of every reflection
NAME/               all files that one series has, from the draws of all experiments together
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bayesref.kinetics.temperature import activation_entropy
from bayesref.results.arrhenius_plot import plot_arrhenius
from bayesref.results.inference_data import write_posterior
from bayesref.results.kinetics import parameter_table, write_kinetics, write_table
from bayesref.results.kinetics_plots import plot_panels, plot_rates, plot_scheme

UNITS = {"k": "1/s", "Ea": "kJ/mol", "dH": "kJ/mol", "dS": "J/(mol K)", "width": "s", "tail": "s"}


def part(posterior, links, i: int, rows: slice):
    """The posterior as one of a series alone: numbers of the experiment under their own names, its rates with them.

    Parameters
    ----------
    i : which experiment
    rows : its reflections, in the log likelihood of all
    """
    name = links.experiments[i]
    end = f" {name}"
    idle = {f"{kind} {rate}" for rate in links.activated for kind in ("k", links.slope)}
    others = tuple(f" {e}" for e in links.experiments if e != name)
    mine = {k[: -len(end)]: x for k, x in posterior.sites.items() if k.endswith(end)}
    shared = {k: x for k, x in posterior.sites.items() if k not in idle and not k.endswith((end, *others))}
    replicates = None if posterior.replicates is None else posterior.replicates[f"F_obs {name}"]
    sites = dict(sorted((shared | mine).items(), key=lambda item: not item[0].startswith("k ")))
    return replace(
        posterior, sites=sites, log_likelihood=posterior.log_likelihood[:, rows], replicates=replicates
    )


def entropies(posterior, links, fixed) -> dict[str, torch.Tensor]:
    """{"dS NAME": draws} of Eyring's law; nothing without it."""
    if links.law != "eyring":
        return {}
    values = posterior.sites | fixed
    return {
        f"dS {r}": activation_entropy(values[f"k {r}"], values[f"dH {r}"], links.T_ref)
        for r in links.activated
        if not {f"k {r}", f"dH {r}"} <= set(fixed)
    }


def experiment_table(sites: dict[str, torch.Tensor], links) -> pd.DataFrame:
    """A row for each number among the sites, as `parameter_table` has them, with experiment, temperature and unit."""
    temperature = dict(zip(links.experiments, links.temperatures, strict=False))
    rows = []
    for row in parameter_table(sites).to_dict("records"):
        name, experiment = split(row.pop("parameter"), links.experiments)
        T = temperature.get(experiment)
        if name.removeprefix("k ") in links.activated and not experiment:
            T = links.T_ref
        unit = UNITS.get(name.split(" ")[0], "")
        rows.append({"parameter": name, "experiment": experiment, "temperature": T, "unit": unit} | row)
    order = {"k": 0, "Ea": 1, "dH": 1, "dS": 2}
    rows.sort(key=lambda r: order.get(r["parameter"].split(" ")[0], 3))
    return pd.DataFrame(rows)


def split(site: str, experiments) -> tuple[str, str]:
    """A site's name without that of its experiment, and the experiment, or ''."""
    for e in sorted(experiments, key=len, reverse=True):
        if site.endswith(f" {e}"):
            return site[: -len(e) - 1], e
    return site, ""


def write_experiments(
    posterior,
    separate,
    free,
    kinetics,
    links,
    experiments,
    folders,
    curves,
    checks,
    priors,
    crystals,
    fixed,
    out: Path,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables, pictures and draws; returns the tables of parameters and of occupancies.

    Parameters
    ----------
    posterior : SmallPosterior of all experiments together
    separate : SmallPosterior of each experiment by itself, or nothing
    free : those of unrestrained occupancies, or nothing
    kinetics, links : Kinetics and RateLinks
    experiments : Experiment, ...
    folders : names of their folders
    curves : occupancies between the measured delays, as `write_kinetics` takes them
    checks : for each experiment, rows of `predictive_checks`; priors, rows of `prior_sensitivity`
    crystals : {state: Crystal} of each experiment
    fixed : {site: value} that were not inferred
    """
    rates = experiment_table(posterior.sites | entropies(posterior, links, fixed), links)
    tables, start, panels = [], 0, []
    for i, e in enumerate(experiments):
        mine = part(posterior, links, i, slice(start, start + len(e.series)))
        start += len(e.series)
        (out / folders[i]).mkdir(exist_ok=True)
        _, occupancies = write_kinetics(
            mine,
            free[i] if free else None,
            kinetics,
            e.series,
            curves[i],
            out / folders[i],
            checks[i],
            (),
            crystals[i],
        )
        occupancies.insert(0, "experiment", e.name)
        tables.append(occupancies)
        points = free[i].sites["occupancy"] if free else None
        panels.append((e.name, e.series.t, curves[i], points))
    occupancies = pd.concat(tables, ignore_index=True)
    write_table(rates, out / "rates.csv")
    if separate:
        alone = {
            f"{k} {e.name}": x for e, p in zip(experiments, separate, strict=True) for k, x in p.sites.items()
        }
        write_table(experiment_table(alone, links), out / "separate.csv")
    write_table(occupancies, out / "occupancies.csv")
    many = [{"experiment": e.name} | r for e, c in zip(experiments, checks, strict=True) for r in c]
    write_table(pd.DataFrame(many), out / "predictive.csv")
    write_table(pd.DataFrame(priors), out / "sensitivity.csv")
    plot_panels(kinetics.occupied, panels, out / "kinetics.png")
    plot_rates(_of_the_reactions(posterior.sites, links), out / "rates.png")
    plot_scheme(kinetics, rates[rates.experiment == ""], out / "scheme.png")
    if links.temperatures:
        plot_arrhenius(links, posterior.sites | fixed, [p.sites for p in separate], out / "arrhenius.png")
    write_posterior(_datasets(posterior, links, experiments), out / "posterior.nc")
    return rates, occupancies


def _of_the_reactions(sites, links):
    """Rates and slopes, without the rates that a law makes of them."""
    made = {f"k {r} {e}" for r in links.activated for e in links.experiments}
    slopes = ("Ea ", "dH ")
    return {k: x for k, x in sites.items() if k.startswith(("k ", *slopes)) and k not in made}


def _datasets(posterior, links, experiments):
    import xarray

    variables: dict = {}
    stacked: dict = {}
    for site, x in posterior.sites.items():
        name, experiment = split(site, links.experiments)
        if experiment and x[0].numel() == 1:
            stacked.setdefault(name, {})[experiment] = x.reshape(-1)
        elif not experiment:
            dims = tuple(f"{name}_dim_{i}" for i in range(x.ndim - 1))
            variables[_plain(name)] = (("chain", "draw", *dims), x.numpy()[None])
    for name, by in stacked.items():
        if len(by) == len(experiments):
            x = torch.stack([by[e] for e in links.experiments], -1)
            own = f"{name} of each" if name in posterior.sites else name
            variables[_plain(own)] = (("chain", "draw", "experiment"), x.numpy()[None])
    coordinates: dict = {"experiment": list(links.experiments)}
    if links.temperatures:
        coordinates["temperature"] = ("experiment", list(links.temperatures))
    attributes = {"log_evidence": posterior.log_evidence}
    attributes |= {"law": links.law, "T_ref": links.T_ref} if links.law else {}
    which = np.repeat(np.arange(len(experiments)), [len(e.series) for e in experiments])
    asu = [e.series.asu for e in experiments]
    by_hkl = {x: (("hkl",), torch.cat([a.hkl[:, i] for a in asu]).numpy()) for i, x in enumerate("HKL")}
    by_hkl |= {
        "dHKL": (("hkl",), torch.cat([a.dHKL for a in asu]).numpy()),
        "experiment_id": (("hkl",), which),
    }
    likelihood = posterior.log_likelihood.numpy().astype(np.float32)[None]
    return {
        "posterior": xarray.Dataset(variables, coords=coordinates, attrs=attributes),
        "log_likelihood": xarray.Dataset({"F_obs": (("chain", "draw", "hkl"), likelihood)}),
        "constant_data": xarray.Dataset(by_hkl),
    }


def _plain(name: str) -> str:
    return name.replace(" ", "_").replace("->", "_to_")
