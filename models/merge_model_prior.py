"""Merging with a model: structure factors correlate with those calculated from coordinates and solvent.

    F_h ~ Rice(D G_h, ε (1 - D²)),   G = |F_atoms + k_sol exp(-B_sol s²) F_mask|      acentric; centric: Woolfson
    logit D = d₀ + Σ_k d_k φ_k(s²)                             d₀ of each dataset; D = 0 where h is free
    K_i = exp(scale(w; x_i)),  w ~ Normal(0, 1)                spot i, with all that is known of it, x_i
    I_i ~ (1 - π) t_ν(K_i F_h², σ'_i) + π Normal(0, a σ_i)     as in merge.py

F_atoms and F_mask are over √⟨|F_model|²/ε⟩ at their resolution, so that G² is ε on average and K holds scale and
fall-off: β = 1 - D² is then no parameter of its own, and D is σ_A (Read, 1990, Acta Cryst. A46, 900). It is learned
from the reflections that are not free. A model refined against these very data knows their noise and makes D too
large; give one that is not, and flags, so that free reflections are merged without it.
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
    k_sol: tuple = (0.35, 0.2)  # electron density of the solvent, e/Å³
    B_sol: tuple = (46.0, 0.4)  # its blur, Å²
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
    k_sol = pyro.sample("k_sol", lognormal(*priors.k_sol))
    B_sol = pyro.sample("B_sol", lognormal(*priors.B_sol))
    D = torch.sigmoid(d0[asu.dataset_id] + ref.basis @ dk) * ref.known
    G = torch.abs(ref.F_atoms + k_sol * torch.exp(-B_sol * asu.stol2) * ref.F_mask)
    with pyro.plate("hkl", len(asu)):
        rice = br.dist.RiceWoolfson(D * G, asu.epsilon * (1 - D**2 + 1e-6), asu.centric)
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
