"""Prior standard deviations of a scale from the evidence, the likelihood taken as quadratic.

    log p(I | w) ≈ bᵀw - ½ wᵀH w,     b = H w₀ + ∂ log p(I | w₀)/∂w
    sds that grow by f turn b into f b and H into f H f, so that w ~ Normal(C f b, C),  C = (f H f + 1)⁻¹

The fixed point of the sds (see `scaling.scale`) is then reached without another look at the data.
"""

from dataclasses import replace

import torch

from bayesref.inference import distributed
from bayesref.inference.arrow import Arrow
from bayesref.inference.curvature import gauss_newton, inverse_root, prior_precision


def adapt_scales(collapsed, z, names, passes: int = 20):
    """New prior sds for the scales among the model's arguments.

    Returns
    -------
    z : (latent,) at which to go on: the optimum of the quadratic where the scales are linear, else the same K
    root : (n, n), root of the posterior covariance of the sites `names` there
    """
    where = collapsed.latents.columns(names)
    if not len(where):
        return z, torch.zeros(0, 0, dtype=z.dtype)
    scales = [a for a in collapsed.args if hasattr(a, "adapt") and a.site in names]
    # Sums over the spots; what follows is algebra, for one process alone.
    H = gauss_newton(collapsed, z, names)
    gradient = collapsed.surrogate(z)[1][where]
    z, root = distributed.from_first(lambda: _optimum(collapsed, z, names, scales, H, gradient, passes))
    if distributed.size() > 1:
        set_scale_sds(collapsed.args, distributed.from_first(lambda: scale_sds(collapsed.args)))
    return z, root


def _optimum(collapsed, z, names, scales, H, gradient, passes):
    """`adapt_scales`, from the curvature of the likelihood and the gradient of the surrogate in the sites `names`."""
    where = collapsed.latents.columns(names)
    arrow = H if isinstance(H, Arrow) else None
    prior = (
        None if arrow is not None else prior_precision(collapsed, z, names)
    )  # of whitened image-wise weights: one
    w0 = z[where]
    b = H @ w0 + (w0 if prior is None else prior @ w0) + gradient
    f = torch.ones_like(w0)

    def posterior(f):
        """Precision at sds that have grown by f."""
        return arrow.scaled(f).plus_identity() if arrow is not None else H * f[:, None] * f + prior

    def moments(f):
        """Mean and variance of the weights there."""
        if arrow is not None:
            P = arrow.scaled(f).plus_identity()
            root = P.root()
            return root @ (root.T @ (f * b)), P.variance()
        cov = torch.linalg.inv(posterior(f))
        return cov @ (f * b), cov.diagonal()

    for _ in range(passes if scales else 0):
        f = f * _growth(collapsed.latents, scales, where, *moments(f))
    z = z.clone()
    z[where] = moments(f)[0] if scales and all(a.linear for a in scales) else w0 / f
    return z, inverse_root(posterior(f))


def _growth(latents, scales, where, w, variance):
    """Factors by which the prior sds grow at this posterior, (n,)."""
    growth, mean, var = (torch.ones(latents.n, dtype=w.dtype) for _ in range(3))
    mean[where], var[where] = w, variance
    for a in scales:
        mine = latents.sites[a.site].where
        growth[mine] = a.adapt(mean[mine], var[mine])
    return growth[where]


def _leaves(args):
    """The scales among the model's arguments, products taken apart."""
    return [t for a in args if hasattr(a, "groups") for t in getattr(a, "terms", (a,))]


def scale_sds(args) -> torch.Tensor:
    """Prior sds of the scales among the model's arguments, (group,)."""
    return torch.tensor([g.sd for a in _leaves(args) for g in a.groups], dtype=torch.float64)


def set_scale_sds(args, sds: torch.Tensor) -> None:
    """Put prior sds back."""
    rest = iter(sds.tolist())
    for a in _leaves(args):
        a.groups = [replace(g, sd=next(rest)) for g in a.groups]
    for a in (*_leaves(args), *args):
        if hasattr(a, "forget"):
            a.forget()
