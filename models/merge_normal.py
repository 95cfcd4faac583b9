"""Merging with a normal error law: as `merge`, without outliers and blanks.

    F_h ~ Wilson(ε_h)
    K_i = exp(scale(w; x_i)),  w ~ Normal(0, 1)
    I_i ~ Normal(K_i F_h², σ'_i),    σ'² = a² [σ² + b σ̄ K F² + (c K F²)²]

For clean rotation data, and for comparison: one bad spot pulls its amplitude as far as it likes.
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
    with pyro.plate("spot", len(obs)):
        I_pred = torch.exp(scale(w, obs)) * F[..., obs.hkl_id] ** 2
        sigma = a * torch.sqrt(obs.SIGI**2 + b * obs.typical_SIGI * I_pred + (c * I_pred) ** 2)
        pyro.sample("I", dist.Normal(I_pred, sigma), obs=obs.I)
