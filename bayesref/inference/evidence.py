"""Prior standard deviations of a scale from the evidence, the likelihood taken as quadratic.

    log p(I | w) ≈ bᵀw - ½ wᵀH w,     b = H w₀ + ∂ log p(I | w₀)/∂w
    sds that grow by f turn b into f b and H into f H f, so that w ~ Normal(C f b, C),  C = (f H f + 1)⁻¹

The fixed point of the sds (see `scaling.scale`) is then reached without another look at the data.
"""

import torch

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
    H, prior = gauss_newton(collapsed, z, names), prior_precision(collapsed, z, names)
    w0 = z[where]
    b = H @ w0 + prior @ w0 + collapsed.surrogate(z)[1][where]
    f = torch.ones_like(w0)
    for _ in range(passes if scales else 0):
        cov = torch.linalg.inv(H * f[:, None] * f + prior)
        f = f * _growth(collapsed.latents, scales, where, cov @ (f * b), cov.diagonal())
    precision = H * f[:, None] * f + prior
    z = z.clone()
    z[where] = torch.linalg.solve(precision, f * b) if scales and all(a.linear for a in scales) else w0 / f
    return z, inverse_root(precision)


def _growth(latents, scales, where, w, variance):
    """Factors by which the prior sds grow at this posterior, (n,)."""
    growth, mean, var = (torch.ones(latents.n, dtype=w.dtype) for _ in range(3))
    mean[where], var[where] = w, variance
    for a in scales:
        mine = latents.sites[a.site].where
        growth[mine] = a.adapt(mean[mine], var[mine])
    return growth[where]
