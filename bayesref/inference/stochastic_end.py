"""The end of a stochastic fit of stills: one Newton step with all spots, and the posterior that its curvature gives.

    z <- z + H⁻¹ ∂ log p(I, z)/∂z,    q(z) = Normal(z, H⁻¹),    elbo ≈ log p(I, z) + (n/2) log 2π - ½ log |H|

The E-step starts from what (a, b) say of each amplitude, which is where it would end but for the tails of the error law.
"""

import math

import torch

from bayesref.guides.latents import INTENSITY
from bayesref.inference.collapsed import Collapsed
from bayesref.inference.curvature import inverse_root, log_det, precision
from bayesref.inference.posterior import Posterior
from bayesref.inference.stochastic_batch import prior_of, span_of

STEPS = 3  # Newton steps at most
ENOUGH = 0.5  # log units that a further step may still promise


def finished(model, obs, args, latents, z, names, natural) -> Posterior:
    """The posterior of the spots `obs` near z.

    Parameters
    ----------
    model, obs, args, latents : what is fitted
    z : (latent,)
    names : sites of the scale
    natural : (2, hkl) of `obs.asu`, (a, b)
    """
    collapsed = Collapsed(model, obs, args, latents)
    _start_spans(collapsed, latents.unpack(z), natural)
    z, root = z.detach().clone(), None
    for k in range(STEPS):
        collapsed.refresh(z, warm=True)
        if root is None:
            root = inverse_root(precision(collapsed, z, names))
        value, gradient = collapsed.exact(z)
        step = root.T @ gradient
        gain = 0.5 * float(step @ step)
        moved = z + root @ step
        if (gain < ENOUGH and k) or not collapsed.value(moved) > value:
            break
        z = moved
    log_joint = collapsed.value(z)
    elbo = log_joint + 0.5 * len(z) * math.log(2 * math.pi) + log_det(root)
    return Posterior(model, obs, args, latents, z, root, log_joint, elbo)


@torch.no_grad()
def _start_spans(collapsed, values, natural) -> None:
    """Spans and scales that a warm E-step starts from."""
    first = 0
    for piece in collapsed.pieces:
        mine = slice(first, first + len(piece.asu))
        first = mine.stop
        a, b = natural[:, mine]
        collapsed.spans.append(span_of(prior_of(collapsed.model, piece, collapsed.args, values), a, b))
        collapsed.K.append(collapsed.run(piece, values).nodes[INTENSITY]["fn"].loc)
