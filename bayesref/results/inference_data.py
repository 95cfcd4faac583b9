"""posterior.nc: the posterior as ArviZ data, and the one place that knows which ArviZ is installed.

    posterior      draws of the model's sites, and of F (float32) with coordinate `hkl`, the row of the reflection
    observed_data  I of the spots
    constant_data  H K L dHKL dataset centric epsilon N, and mean and sd of F, by `hkl`;  SIGI and the row of its
                   reflection, by `spot`;  log joint density of each step of the fit, by `step`
    attributes     elbo, elbo_error, reason

The file is NetCDF with one group for each of these, which `arviz.from_netcdf` reads in every version. It is written
without ArviZ, whose import takes a second and 100 MB. In memory ArviZ before 1.0 (Python 3.11) has InferenceData,
later ones xarray's DataTree.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bayesref.io.atomic import atomic_path
from bayesref.results.run import plain


def posterior_datasets(posterior, amplitudes, n_draws: int = 16, seed: int = 0) -> dict[str, Any]:
    """The groups as xarray datasets, {group: Dataset}.

    Draws of F come with the draws of the sites that they are conditional on, of which there are `n_draws`. (F is on
    one scale in all of them; that of the sites is free.) Without draws of F there are 200 of the sites.

    Parameters
    ----------
    posterior : Posterior
    amplitudes : from `posterior.amplitudes(n_draws=n_draws, seed=seed)`
    """
    import xarray

    groups = {
        "posterior": _posterior(posterior, amplitudes, n_draws, seed),
        "observed_data": {"I": (("spot",), posterior.obs.I.numpy())},
        "constant_data": _constant(posterior, amplitudes),
    }
    fit = {"elbo": posterior.elbo, "elbo_error": posterior.elbo_error, "reason": posterior.reason}
    attributes = {k: v for k, v in plain(fit).items() if v is not None}  # NetCDF has no null
    return {
        name: xarray.Dataset(variables, coords=_coordinates(variables), attrs=attributes)
        for name, variables in groups.items()
    }


def _coordinates(variables):
    """0, 1, 2 ... along each dimension."""
    sizes = {d: n for dims, x in variables.values() for d, n in zip(dims, np.shape(x), strict=True)}
    return {d: np.arange(n) for d, n in sizes.items()}


def inference_data(posterior, amplitudes, n_draws: int = 16, seed: int = 0):
    """InferenceData, or DataTree, of a fit; see `posterior_datasets`."""
    import arviz
    import xarray

    datasets = posterior_datasets(posterior, amplitudes, n_draws, seed)
    attributes = datasets["posterior"].attrs
    if hasattr(arviz, "InferenceData"):
        return arviz.InferenceData(attrs=attributes, **datasets)
    return xarray.DataTree.from_dict({"/": xarray.Dataset(attrs=attributes)} | datasets)


def write_posterior(datasets: dict[str, Any], path: str | Path) -> None:
    """Write the groups of `posterior_datasets` as NetCDF, atomically.

    Raises
    ------
    InputError : the file cannot be written
    """
    with atomic_path(path) as temporary:
        for i, (name, data) in enumerate(datasets.items()):
            data.to_netcdf(temporary, mode="a" if i else "w", group=name, engine="h5netcdf")


def _posterior(posterior, amplitudes, n_draws, seed):
    """{site: (dimensions, draws)}."""
    F = amplitudes.draws
    if F is None:
        sites = posterior.sites(200, seed)
    else:
        # `amplitudes` takes the same number of draws of F from each draw of z, one after the other.
        which = torch.arange(len(F)) // -(-len(F) // n_draws)
        sites = {k: x[which] for k, x in posterior.sites(n_draws, seed).items()}
    named = {k: (("chain", "draw", *_own_dims(k, x.ndim - 1)), x.numpy()[None]) for k, x in sites.items()}
    if F is not None:
        named["F"] = (("chain", "draw", "hkl"), F.numpy().astype(np.float32)[None])
    return named


def _own_dims(site, n):
    return [f"{site}_dim_{i}" for i in range(n)]


def _constant(posterior, amplitudes):
    obs, asu = posterior.obs, posterior.obs.asu
    by_hkl = dict(zip("HKL", asu.hkl.T, strict=True)) | {
        "dHKL": asu.dHKL,
        "dataset": asu.dataset_id,
        "centric": asu.centric.to(torch.int8),  # NetCDF has no bool
        "epsilon": asu.epsilon,
        "N": amplitudes.N,
        "F_mean": amplitudes.F,
        "F_sd": amplitudes.SIGF,
    }
    by_spot = {"SIGI": obs.SIGI, "hkl_id": obs.hkl_id}
    groups = {k: (("hkl",), x.numpy()) for k, x in by_hkl.items()}
    groups |= {k: (("spot",), x.numpy()) for k, x in by_spot.items()}
    groups |= {"history_elbo": (("step",), np.array([row["elbo"] for row in posterior.history], dtype=float))}
    return groups | _weights(posterior)


def _weights(posterior):
    """Which term of log K each weight belongs to, and its prior standard deviation."""
    found = {}
    for a in posterior.args:
        if hasattr(a, "groups") and getattr(a, "site", None) in posterior.latents.sites:
            (dim,) = _own_dims(a.site, 1)
            found[f"{a.site}_term"] = ((dim,), np.repeat([g.name for g in a.groups], [g.n for g in a.groups]))
            found[f"{a.site}_sd"] = ((dim,), a.sd().numpy())
    return found
