"""Files of a kinetic analysis.

rates.csv           each parameter: mean, sd, median, 90 % highest-density interval
occupancies.csv     each delay and state: by the scheme, and unrestrained
sensitivity.csv     each parameter: what becomes of it when its prior is half or twice as strong
predictive.csv      each delay: size of the difference as measured, and as the model would give it
kinetics.png, rates.png, scheme.png, predictive.png      see `kinetics_plots`
state_NAME.cif      structure of each state; with the mean of its shifts, where atoms move
shifts.csv          these shifts, with their standard deviations, Å
posterior.nc        draws, log likelihood, data and replicates (ArviZ reads it), by delay, state, transition and hkl
run.json            options, evidence, comparison of schemes, notes
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bayesref.io.atomic import atomic_path
from bayesref.io.structure import write_structure
from bayesref.results.inference_data import write_posterior
from bayesref.results.kinetics_plots import plot_occupancies, plot_predictive, plot_rates, plot_scheme
from bayesref.results.statistics import interval


def parameter_table(sites: dict[str, torch.Tensor]) -> pd.DataFrame:
    """A row for each number among the sites: mean, sd, median, low, high; rates first, as 1/s."""
    rows = []
    for name, x in sites.items():
        if x[0].numel() == 1:
            v = x.reshape(-1).numpy()
            low, high = interval(np.log(v)) if name.startswith("k ") else interval(v)
            if name.startswith("k "):  # shortest in log k: a rate is known to a factor
                low, high = float(np.exp(low)), float(np.exp(high))
            row = {"parameter": name, "mean": v.mean(), "sd": v.std(), "median": np.median(v)}
            rows.append(row | {"low": low, "high": high})
    return pd.DataFrame(rows)


def occupancy_table(t, names, kinds: dict[str, torch.Tensor]) -> pd.DataFrame:
    """A row for each kind of model, delay and state, from occupancies {kind: (draw, time, state)}."""
    rows = []
    for kind, o in kinds.items():
        for i, delay in enumerate(t.tolist()):
            for j, state in enumerate(names):
                x = o[:, i, j].numpy()
                low, high = interval(x)
                rows.append(
                    {
                        "model": kind,
                        "delay": delay,
                        "state": state,
                        "mean": x.mean(),
                        "sd": x.std(),
                        "low": low,
                        "high": high,
                    }
                )
    return pd.DataFrame(rows)


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """As CSV, without an index."""
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False)


def write_kinetics(
    posterior, free, kinetics, series, curve, out: Path, checks=(), priors=(), crystals=None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables, pictures and draws; returns the tables of parameters and of occupancies.

    Parameters
    ----------
    posterior : SmallPosterior of the scheme; `free` that of unrestrained occupancies, or None
    kinetics : Kinetics, or NoScheme: then there are neither rates.csv nor rates.png and scheme.png
    curve : delays (n,) and occupancies (draw, n, state) between the measured ones, or None
    checks, priors : rows of `predictive_checks` and `prior_sensitivity`
    crystals : {state: Crystal}
    """
    names = kinetics.occupied
    kinds = {"scheme" if kinetics.rates else "unrestrained": posterior.sites["occupancy"]}
    if free is not None:
        kinds["unrestrained"] = free.sites["occupancy"]
    rates, occupancies = parameter_table(posterior.sites), occupancy_table(series.t, names, kinds)
    tables = {"rates": rates} if kinetics.rates else {}
    tables["occupancies"] = occupancies
    tables |= {"sensitivity": pd.DataFrame(priors)} if priors else {}
    tables |= {"predictive": pd.DataFrame(checks)} if checks else {}
    for name, frame in tables.items():
        write_table(frame, out / f"{name}.csv")
    plot_occupancies(series.t, names, curve, kinds.get("unrestrained"), out / "kinetics.png")
    if kinetics.rates:
        plot_rates(posterior.sites, out / "rates.png")
        plot_scheme(kinetics, rates, out / "scheme.png")
    if checks:
        plot_predictive(checks, out / "predictive.png")
    for name, crystal in (crystals or {}).items():
        with atomic_path(out / f"state_{name}.cif") as temporary:
            write_structure(crystal, temporary)
    write_posterior(_datasets(posterior, series, kinetics), out / "posterior.nc")
    return rates, occupancies


def _datasets(posterior, series, kinetics):
    import xarray

    variables = {}
    for name, x in posterior.sites.items():
        dims = ("delay", "state") if name in ("occupancy", "shares") else _own_dims(name, x.ndim - 1, series)
        variables[name.replace(" ", "_").replace("->", "_to_")] = (("chain", "draw", *dims), x.numpy()[None])
    known = [k for k in kinetics.rates if f"k {k}" in posterior.sites]
    if known:
        k = torch.stack([posterior.sites[f"k {name}"] for name in known], -1)
        variables["rate"] = (("chain", "draw", "transition"), k.numpy()[None])
    coordinates = {"delay": series.t.numpy(), "state": list(kinetics.occupied), "transition": known}
    attributes = {"log_evidence": posterior.log_evidence, "dark": kinetics.structures[kinetics.ground]}
    asu, dataset = series.asu, {"dataset": list(series.names)}
    by_hkl = {x: (("hkl",), asu.hkl[:, i].numpy()) for i, x in enumerate("HKL")}
    by_hkl["dHKL"] = (("hkl",), asu.dHKL.numpy())
    sigma = {"SIGF": (("hkl", "dataset"), series.SIGF.numpy())}
    likelihood = {"F_obs": (("chain", "draw", "hkl"), _float32(posterior.log_likelihood)[None])}
    groups = {
        "posterior": xarray.Dataset(variables, coords=coordinates, attrs=attributes),
        "log_likelihood": xarray.Dataset(likelihood),
        "observed_data": xarray.Dataset({"F_obs": (("hkl", "dataset"), series.F.numpy())}, coords=dataset),
        "constant_data": xarray.Dataset(by_hkl | sigma, coords=dataset),
    }
    if posterior.replicates is not None:
        many = (("chain", "draw", "hkl", "dataset"), _float32(posterior.replicates)[None])
        groups["posterior_predictive"] = xarray.Dataset({"F_obs": many}, coords=dataset)
    return groups


def _float32(x: torch.Tensor) -> np.ndarray:
    return x.numpy().astype(np.float32)


def _own_dims(name, n, series):
    return ("delay",) if n == 1 and name in ("log_scale", "falloff", "log_own", "uneven") else tuple(
        f"{name}_dim_{i}" for i in range(n)
    )  # fmt: skip


def log_times(t, n: int = 80) -> np.ndarray:
    """Delays between the first and the last measured, even in their logarithm, half a decade beyond each."""
    positive = np.asarray(t)[np.asarray(t) > 0]
    if not len(positive):
        return np.linspace(float(np.min(t)), 1.0, n)
    return np.geomspace(positive.min() / 3, positive.max() * 3, n)
