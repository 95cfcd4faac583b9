"""Merging: one amplitude per reflection explains every spot that measured it.

    F_h ~ Wilson(ε_h)                                        reflection h, centric or acentric
    K_i = exp(scale(w; x_i)),  w ~ Normal(0, 1)              spot i, with all that is known of it, x_i
    I_i ~ (1 - π) t_ν(K_i F_h², σ'_i) + π Normal(0, a σ_i)   measured; or a blank: predicted, but not there
    σ'² = a² [σ² + b σ̄ K F² + (c K F²)²]                     σ: SIGI as given, σ̄: its median

F is on the scale where ⟨F²⟩ = ε, so the fall-off with resolution is in K.
The error model is that of Evans (2011), Acta Cryst. D67, 282, with the variance at the true intensity.
"""

from dataclasses import dataclass
from math import log

import pyro
import pyro.distributions as dist
import torch

import bayesref as br


@dataclass(frozen=True)
class Priors:
    """Priors of the error model: median and spread of the logarithm."""

    a: tuple = (1.0, 0.7)  # factor on σ
    least_a: float = 0.1  # spots written as exactly zero would drive a to none
    b: tuple = (0.05, 1.5)  # gain, in units of σ̄
    c: tuple = (0.05, 1.5)  # relative error of strong spots
    nu: tuple = (15.0, 1.0)  # degrees of freedom, beyond two
    blank: tuple = (0.01, 1.5)  # odds that a spot is a blank


def lognormal(median, spread):
    return dist.LogNormal(torch.tensor(log(median)).double(), torch.tensor(spread).double())


def model(obs: br.Observations, scale: br.Scale, priors: Priors = Priors()):
    asu = obs.asu
    with pyro.plate("hkl", len(asu)):
        F = pyro.sample("F", br.dist.Wilson(asu.epsilon, asu.centric))
    w = pyro.sample("w", scale.prior())
    a = pyro.sample("a", lognormal(*priors.a)).clamp(min=priors.least_a)
    b = pyro.sample("b", lognormal(*priors.b))
    c = pyro.sample("c", lognormal(*priors.c))
    nu = pyro.sample("nu", lognormal(*priors.nu))
    odds = pyro.sample("blank_odds", lognormal(*priors.blank))
    with pyro.plate("spot", len(obs)):
        I_pred = torch.exp(scale(w, obs)) * F[..., obs.hkl_id] ** 2
        sigma = a * torch.sqrt(obs.SIGI**2 + b * obs.typical_SIGI * I_pred + (c * I_pred) ** 2)
        spot = br.dist.SpotIntensity(2 + nu, I_pred, sigma, odds / (1 + odds), a * obs.SIGI)
        pyro.sample("I", spot, obs=obs.I)
