"""Posterior as ArviZ data: the one place that knows which ArviZ is installed.

ArviZ before 1.0 (Python 3.11) returns an InferenceData, later ones a DataTree; both are made by `from_dict` with
another signature, and both are written as NetCDF groups.
"""

import numpy as np

from bayesref.io.atomic import atomic_path


def inference_data(posterior, amplitudes, n_draws: int = 200, seed: int = 0):
    """Draws of the model's sites and of F (float32), observed intensities, and the indices of the reflections.

    Draws of F have their own dimension `F_draw`, since they are kept in smaller number than those of the sites.
    """
    import arviz

    obs = posterior.obs
    sites = {k: v.numpy()[None] for k, v in posterior.sites(n_draws, seed).items()}
    dims = {k: [f"{k}_dim_{i}" for i in range(v.ndim - 2)] for k, v in sites.items()}
    groups: dict = {
        "posterior": sites,
        "observed_data": {"I": obs.I.numpy()},
        "constant_data": {
            **dict(zip("HKL", obs.asu.hkl.numpy().T, strict=True)),
            "dHKL": obs.asu.dHKL.numpy(),
            "dataset": obs.asu.dataset_id.numpy(),
            "hkl_id": obs.hkl_id.numpy(),
            "SIGI": obs.SIGI.numpy(),
            "F_mean": amplitudes.F.numpy(),
            "F_sd": amplitudes.SIGF.numpy(),
        },
    }
    dims |= {k: ["hkl"] for k in ("H", "K", "L", "dHKL", "dataset", "F_mean", "F_sd")}
    dims |= {k: ["spot"] for k in ("I", "hkl_id", "SIGI")}
    coords = {"hkl": np.arange(len(obs.asu)), "spot": np.arange(len(obs))}
    if amplitudes.draws is not None:
        groups["constant_data"]["F_draws"] = amplitudes.draws.numpy().astype(np.float32)
        dims["F_draws"] = ["F_draw", "hkl"]
        coords["F_draw"] = np.arange(len(amplitudes.draws))
    attributes = {"elbo": posterior.elbo, "elbo_error": posterior.elbo_error, "reason": posterior.reason}
    if hasattr(arviz, "InferenceData"):
        data = arviz.from_dict(**groups, coords=coords, dims=dims)
        data.posterior.attrs.update(attributes)
    else:
        data = arviz.from_dict(groups, coords=coords, dims=dims)
        data["posterior"].attrs.update(attributes)
    return data


def write_inference_data(data, path) -> None:
    """NetCDF, atomically."""
    with atomic_path(path) as temporary:
        data.to_netcdf(str(temporary), engine="h5netcdf")
