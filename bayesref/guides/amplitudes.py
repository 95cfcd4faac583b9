"""A Pyro guide that samples amplitudes from their exact conditional.

    q(z, F) = q(z) Π_h q(F_h | z),    q(F_h | z) ∝ p(F_h) exp(-a_h F⁴/2 + b_h F²)
    a_h = Σ_i λ_i K_i²,   b_h = Σ_i λ_i K_i I_i,    λ_i = (ν + 1)/(ν v_i + r_i²), or 1/v_i for a normal law

For normal errors whose variance does not depend on F this is p(F | I, z) itself, and
log p(F) + log p(I | F, z) - log q(F | z) = log p(I | z) for every draw of F. Otherwise λ is taken at the current
estimate of F, and q is the best normal stand-in: the ELBO stays a bound, if not a tight one.
"""

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide, AutoNormal

from bayesref.distributions import AmplitudePosterior
from bayesref.guides.latents import AMPLITUDE, INTENSITY, trace_model


def natural_parameters(obs, K, precision):
    """a = Σ λ K² and b = Σ λ K I of each reflection, (hkl,) each, from K and λ of each spot, (spot,)."""
    zero = K.new_zeros(len(obs.asu))
    a = zero.index_add(0, obs.hkl_id, precision * K**2)
    return a, zero.index_add(0, obs.hkl_id, precision * K * obs.I)


def conditional(model, args, values, passes: int = 4) -> AmplitudePosterior:
    """q(F | z) of a model at these values of its other sites; args[0] are the observations.

    `passes` re-estimates of F, without gradient, bring the precisions to their fixed point.
    """
    obs = args[0]
    F = torch.ones(len(obs.asu), dtype=obs.I.dtype)
    for k in range(passes):
        with torch.set_grad_enabled(k == passes - 1 and torch.is_grad_enabled()):
            trace = trace_model(model, args, {**values, AMPLITUDE: F})
            law = trace.nodes[INTENSITY]["fn"]
            v, K = law.scale**2, law.loc / F[obs.hkl_id] ** 2
            if hasattr(law, "df"):
                v = (law.df * v + (obs.I - law.loc.detach()) ** 2) / (law.df + 1)
            a, b = natural_parameters(obs, K, 1 / v)
            q = AmplitudePosterior(trace.nodes[AMPLITUDE]["fn"], a, b, validate_args=False)
        F = q.mean_intensity.detach().sqrt()
    return q


class ConditionalAmplitudes(AutoGuide):
    """Exact conditional of the amplitudes under any guide of the other sites.

    Parameters
    ----------
    model : Pyro model with sites "F" (plate "hkl") and "I", called with the observations first
    latent_guide : class of the guide of the other sites, an AutoGuide; None where there are none
    """

    def __init__(self, model, latent_guide=AutoNormal):
        super().__init__(model)
        others = latent_guide(poutine.block(model, hide=[AMPLITUDE])) if latent_guide else None
        # Not an attribute that AutoGuide sees: it would expect the parts to share its own prototype and plates.
        object.__setattr__(self, "others", others)

    def forward(self, *args, **kwargs):
        values = dict(self.others(*args, **kwargs)) if self.others else {}
        q = conditional(self.model, args, values)
        with pyro.plate("hkl", len(args[0].asu)):
            values[AMPLITUDE] = pyro.sample(AMPLITUDE, q)
        return values
