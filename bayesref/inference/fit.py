"""Fit a model to observations: one call, several methods.

posterior = fit(model, obs, scale)                      # deterministic, the default
posterior = fit(model, obs, scale, method="svi")        # stochastic, minibatches of images
"""

from collections.abc import Callable

import pyro

from bayesref._checks import InputError
from bayesref.guides.latents import Latents
from bayesref.inference.checkpoint import Checkpoint, fit_options
from bayesref.inference.deterministic import fit_deterministic
from bayesref.inference.posterior import Posterior
from bayesref.inference.stochastic import fit_stochastic
from bayesref.inference.stochastic_stills import fit_stills

METHODS: dict[str, Callable[..., Posterior]] = {
    "deterministic": fit_deterministic,
    "svi": fit_stochastic,
    "stills": fit_stills,
}


def fit(
    model, obs, *args, method="deterministic", fixed=None, checkpoint: Checkpoint | None = None, **options
) -> Posterior:
    """Posterior of the latent variables of a model, its amplitudes integrated out exactly.

    Parameters
    ----------
    model : Pyro model `model(obs, *args)` with amplitudes at the site "F" and intensities at the site "I"
    obs : Observations
    args : further arguments of the model, such as its scale
    method : "deterministic" (L-BFGS, Gauss-Newton posterior), "svi" (Adam, minibatches of images) or "stills"
        (minibatches from memory or disk; indexing, bad images and weights found on the way)
    fixed : {site: value}, latent sites to hold at a value instead of inferring them
    checkpoint : where to save the fit as it goes, and whether to resume it (see `Checkpoint`)
    options : of `fit_deterministic`, `fit_stochastic` or `fit_stills`

    Raises
    ------
    InputError : unknown method or site; a checkpoint that cannot be used
    """
    if method not in METHODS:
        raise InputError(f"Unknown method '{method}'; choose one of {', '.join(METHODS)}.")
    if checkpoint is not None:
        options["checkpoint"] = checkpoint.of(method=method, **fit_options(model, obs, args, fixed, options))
    if fixed:
        known = Latents(model, (obs, *args)).sites
        for name in fixed:
            if name not in known:
                raise InputError(
                    f"The model has no latent site '{name}' to fix; it has {', '.join(known) or 'none'}."
                )
        model = pyro.condition(model, data=fixed)
    return METHODS[method](model, obs, args, **options)
