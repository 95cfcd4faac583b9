"""Merging with amplitudes known beforehand: structure factors correlate with those of a reference crystal.

    F_h ~ Rice(D F'_h, ε (1 - D²) + n D² (m σ'_h)²)            acentric, n = 2; centric: Woolfson, n = 1
    logit D = d₀ + Σ_k d_k φ_k(s²)                             d₀ of each dataset; D = 0 where there is no reference
    K_i = exp(scale(w; x_i)),  w ~ Normal(0, 1)                spot i, with all that is known of it, x_i
    I_i ~ (1 - π) t_ν(K_i F_h², σ'_i) + π Normal(0, a σ_i)     as in merge.py

F' and σ' are amplitude and standard deviation of the reference over √⟨F²/ε⟩ at their resolution. Phases of the
reference are not known and not needed: only |F - D F'| enters, averaged over them. With D = 0 this is Wilson's
distribution, so a reference that has nothing to do with the data does no harm: D is learned (Luzzati's D, or σ_A;
Read, 1990, Acta Cryst. A46, 900).
"""

from dataclasses import dataclass
from math import log

import pyro
import pyro.distributions as dist
import torch

import bayesref as br


@dataclass(frozen=True)
class Priors:
    """D: mean and spread of d₀, spread of d_k. Others: median and spread of the logarithm."""

    D: tuple = (1.5, 1.5, 1.0)
    m: tuple = (1.0, 0.5)  # factor on the standard deviations of the reference
    a: tuple = (1.0, 0.7)  # factor on σ
    least_a: float = 0.1  # spots written as exactly zero would drive a to none
    b: tuple = (0.05, 1.5)  # gain, in units of σ̄
    c: tuple = (0.05, 1.5)  # relative error of strong spots
    nu: tuple = (15.0, 1.0)  # degrees of freedom, beyond two
    blank: tuple = (0.01, 1.5)  # odds that a spot is a blank


def lognormal(median, spread):
    return dist.LogNormal(torch.tensor(log(median)).double(), torch.tensor(spread).double())


def normal(mean, spread, n):
    return dist.Normal(torch.full((n,), mean).double(), torch.full((n,), spread).double()).to_event(1)


def model(obs: br.Observations, scale: br.Scale, reference: br.Reference, priors: Priors = Priors()):
    asu, ref = obs.asu, reference(obs.asu)
    mean, spread, spread_k = priors.D
    d0 = pyro.sample("D_logit", normal(mean, spread, reference.n_dataset))
    dk = pyro.sample("D_shape", normal(0.0, spread_k, ref.basis.shape[1]))
    m = pyro.sample("reference_m", lognormal(*priors.m))
    D = torch.sigmoid(d0[asu.dataset_id] + ref.basis @ dk) * ref.known
    error = torch.where(asu.centric, 1.0, 2.0) * (D * m * ref.SIGF) ** 2
    with pyro.plate("hkl", len(asu)):
        rice = br.dist.RiceWoolfson(D * ref.F, asu.epsilon * (1 - D**2 + 1e-6) + error, asu.centric)
        F = pyro.sample("F", rice)
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
