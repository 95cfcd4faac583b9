"""What a structure says of each reflection without the measurement of that reflection.

    G_h without h = G_h - v/(1 - v W) ∂ log p(y_h)/∂G          v: posterior variance of G_h,  W = -∂² log p(y_h)/∂G²

in Laplace's approximation; v W is the share that a measurement has in its own G, and Σ v W the number of parameters
that the data determine. So every reflection can do what free ones do, where there are none.
"""

import torch

from bayesref.refinement.simulate import smooth_mean
from bayesref.refinement.target import Target

MOST = 0.8  # share of a measurement that its G may have: beyond, a quadratic says nothing of the structure without it


@torch.no_grad()
def left_out(target: Target, z: torch.Tensor, draws: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """G of each reflection without its own measurement, over G, and the share of that in G, (hkl,) each.

    Parameters
    ----------
    z : (latent,)
    draws : (draw, latent), of the posterior about z
    """
    data, m = target.data, target.measured(z)
    G, _ = target.expected(target.latents.unpack(z))
    scattered = torch.stack([target.expected(target.latents.unpack(d))[0] for d in draws])
    # errors along the phase only, or in both directions
    kind = data.asu.epsilon * (1.0 + data.asu.centric.double())
    v = kind * smooth_mean(scattered.var(0) / kind, data.asu.stol2)
    share = (-v * m.curvature_G).clamp(0.0, MOST)
    without = G - v / (1 - share) * m.slope_G
    # a Rice distribution knows no sign: past zero the phase has turned
    return (without.abs() / G.clamp(min=1e-300)).clamp(min=1e-6), share
