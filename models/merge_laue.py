"""Merging of Laue data: spots that several orders of a ray share are sums over these orders.

    F_h ~ Wilson(ε_h)                                        reflection h, centric or acentric
    K_i(h) = exp(scale(w; x_ih)),  w ~ Normal(0, 1)          order h on spot i, at its wavelength, x_ih
    S_i = Σ_{h in i} K_i(h) F_h²                             one order, or all orders that the beam lets onto the spot
    I_i ~ (1 - π) t_ν(S_i, σ'_i) + π Normal(0, a σ_i)        measured; or a blank: predicted, but not there
    σ'² = a² [σ² + b σ̄ S + (c S)²]                           σ: SIGI as given, σ̄: its median

As `merge`, which is the case of one order everywhere.
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

    def intensity(orders):
        return torch.exp(scale(w, orders)) * F[..., orders.hkl_id] ** 2

    def measured(name, spots, S):
        sigma = a * torch.sqrt(spots.SIGI**2 + b * obs.typical_SIGI * S + (c * S) ** 2)
        spot = br.dist.SpotIntensity(2 + nu, S, sigma, odds / (1 + odds), a * spots.SIGI)
        with pyro.plate(f"{name}_spots", len(spots)):
            pyro.sample(name, spot, obs=spots.I)

    measured("I", obs, intensity(obs))
    if obs.overlaps:  # spots that several orders share
        measured("I_overlap", obs.overlaps, obs.overlaps.total(intensity(obs.overlaps.orders)))
