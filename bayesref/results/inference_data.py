"""posterior.nc: the posterior as ArviZ data, and the one place that knows which ArviZ is installed.

    posterior      draws of the model's sites, and of F (float32) with coordinate `hkl`, the row of the reflection
    observed_data  I of the spots
    constant_data  H K L dHKL dataset centric epsilon N, and mean and sd of F, by `hkl`;  SIGI and the row of its
                   reflection, by `spot`;  log joint density of each step of the fit, by `step`
    attributes     elbo, elbo_error, reason

ArviZ before 1.0 (Python 3.11) has InferenceData, later ones xarray's DataTree; both are written as NetCDF groups.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bayesref.io.atomic import atomic_path
from bayesref.results.run import plain


def inference_data(posterior, amplitudes, n_draws: int = 16, seed: int = 0):
    """InferenceData, or DataTree, of a fit.

    Draws of F come with the draws of the sites that they are conditional on, of which there are `n_draws`. (F is on
    one scale in all of them; that of the sites is free.) Without draws of F there are 200 of the sites.

    Parameters
    ----------
    posterior : Posterior
    amplitudes : from `posterior.amplitudes(n_draws=n_draws, seed=seed)`
    """
    groups = {
        "posterior": _posterior(posterior, amplitudes, n_draws, seed),
        "observed_data": {"I": (("spot",), posterior.obs.I.numpy())},
        "constant_data": _constant(posterior, amplitudes),
    }
    attributes = {"elbo": posterior.elbo, "elbo_error": posterior.elbo_error, "reason": posterior.reason}
    return _arviz(groups, attributes)


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


def _arviz(groups, attributes):
    """{group: {name: (dimensions, values)}} as the installed ArviZ holds them."""
    import arviz
    import xarray

    attributes = {k: v for k, v in plain(attributes).items() if v is not None}  # NetCDF has no null
    datasets: dict[str, Any] = {}
    for name, variables in groups.items():
        sizes = {d: n for dims, x in variables.values() for d, n in zip(dims, np.shape(x), strict=True)}
        coords = {d: np.arange(n) for d, n in sizes.items()}
        datasets[name] = xarray.Dataset(variables, coords=coords, attrs=attributes)
    if hasattr(arviz, "InferenceData"):
        return arviz.InferenceData(**datasets, attrs=attributes)
    return xarray.DataTree.from_dict({"/": xarray.Dataset(attrs=attributes)} | datasets)


def write_inference_data(data, path: str | Path) -> None:
    """NetCDF, atomically.

    Raises
    ------
    InputError : the file cannot be written
    """
    with atomic_path(path) as temporary:
        data.to_netcdf(str(temporary), engine="h5netcdf")
