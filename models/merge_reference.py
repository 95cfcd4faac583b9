"""Merging with amplitudes known beforehand: each is near that of a reference, such as another crystal.

    F_h ~ t₄(r F'_h, r w_h), F ≥ 0,   w_h² = (m σ'_h)² + ε_h δ²,   r² = 1/(1 + δ²)
    F_h ~ Wilson(ε_h)                                          where the reference does not have h
    K_i = exp(scale(w; x_i)),  w ~ Normal(0, 1)                spot i, with all that is known of it, x_i
    I_i ~ (1 - π) t_ν(K_i F_h², σ'_i) + π Normal(0, a σ_i)     as in merge.py

F' and σ' are amplitude and standard deviation of the reference over √⟨F²/ε⟩ at their resolution: all are on the scale
where ⟨F²⟩ = ε, where r keeps them, and K holds scale and fall-off of the data. δ is how far a dataset is from it, m
what is wrong with σ'; both are learned. The law is Student's t; `law` may be `ReferenceNormal` or `ReferenceLaplace`.
"""

from dataclasses import dataclass
from math import log

import pyro
import pyro.distributions as dist
import torch

import bayesref as br


@dataclass(frozen=True)
class Priors:
    """Priors of the reference and of the error model: median and spread of the logarithm."""

    m: tuple = (1.0, 0.5)  # factor on the standard deviations of the reference
    delta: tuple = (0.2, 1.0)  # rms difference of the crystals' amplitudes, in units of √ε
    a: tuple = (1.0, 0.7)  # factor on σ
    least_a: float = 0.1  # spots written as exactly zero would drive a to none
    b: tuple = (0.05, 1.5)  # gain, in units of σ̄
    c: tuple = (0.05, 1.5)  # relative error of strong spots
    nu: tuple = (15.0, 1.0)  # degrees of freedom, beyond two
    blank: tuple = (0.01, 1.5)  # odds that a spot is a blank


def lognormal(median, spread):
    return dist.LogNormal(torch.tensor(log(median)).double(), torch.tensor(spread).double())


def model(
    obs: br.Observations,
    scale: br.Scale,
    reference: br.Reference,
    law=br.dist.ReferenceStudentT,
    priors=Priors(),
):
    asu, ref = obs.asu, reference(obs.asu)
    m = pyro.sample("reference_m", lognormal(*priors.m))
    delta = pyro.sample("reference_delta", lognormal(*priors.delta).expand([reference.n_dataset]).to_event(1))
    delta = delta[asu.dataset_id]
    r = 1 / torch.sqrt(1 + delta**2)
    width = r * torch.sqrt((m * ref.SIGF) ** 2 + asu.epsilon * delta**2 + 1e-8)
    with pyro.plate("hkl", len(asu)):
        F = pyro.sample("F", law(r * ref.F, width, ref.known, asu.epsilon, asu.centric))
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
