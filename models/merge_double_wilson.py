"""Merging related datasets: amplitudes of one crystal form before and after light are nearly the same.

    root dataset   F_h ~ Wilson(ε_h)
    its children   F_h ~ Rice or, centric, Woolfson about r F'_h of the parent, variance ε_h (1 - r²)
    logit r² = logit r_k² + Σ_j shape_kj x^j,  x = (2 Å/d)² - ½        where r may change with resolution
    K_i = exp(scale(w; x_i)),  w ~ Normal(0, 1)              spot i, with all that is known of it, x_i
    I_i ~ (1 - π) t_ν(K_i F_h², σ'_i) + π Normal(0, a σ_i)   measured; or a blank: predicted, but not there
    σ'² = a² [σ² + b σ̄ K F² + (c K F²)²]                     σ: SIGI as given, σ̄: its median

Each F alone has Wilson's distribution with ⟨F²⟩ = ε, which brings the datasets to one scale. A priori r² is uniform.
Needs observations that `br.DatasetTree.arrange` has laid out.
"""

from dataclasses import dataclass
from math import log

import pyro
import pyro.distributions as dist
import torch

import bayesref as br


@dataclass(frozen=True)
class Priors:
    """Priors: of r the two exponents of a beta law, of the error model median and spread of the logarithm."""

    r: tuple = (2.0, 1.0)  # density 2r: r² is uniform
    shape: float = 1.0  # sd of a coefficient of logit r²
    a: tuple = (1.0, 0.7)  # factor on σ
    least_a: float = 0.1  # spots written as exactly zero would drive a to none
    b: tuple = (0.05, 1.5)  # gain, in units of σ̄
    c: tuple = (0.05, 1.5)  # relative error of strong spots
    nu: tuple = (15.0, 1.0)  # degrees of freedom, beyond two
    blank: tuple = (0.01, 1.5)  # odds that a spot is a blank


def lognormal(median, spread):
    return dist.LogNormal(torch.tensor(log(median)).double(), torch.tensor(spread).double())


def beta(p, q):
    return dist.Beta(torch.tensor(p).double(), torch.tensor(q).double())


def coefficients(n, sd):
    return dist.Normal(torch.zeros(n).double(), torch.full((n,), sd).double()).to_event(1)


def model(obs: br.Observations, scale: br.Scale, tree: br.DatasetTree, priors: Priors = Priors()):
    asu = obs.asu
    names = tree.names(asu.anomalous)
    r = torch.stack([pyro.sample(f"r_{k}", beta(*priors.r)) for k in names])
    shape = None
    if tree.orders:
        prior = coefficients(tree.orders, priors.shape)
        shape = torch.stack([pyro.sample(f"shape_{k}", prior) for k in names])
    r_row = tree.correlation(asu, r, shape)
    F = pyro.sample("F", br.dist.WilsonTree(asu.epsilon, asu.centric, tree.parent_rows(asu), r_row))
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
