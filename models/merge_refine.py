"""Merging and refinement in one: a structure explains every spot, up to the errors of a model and of the scale.

    xyz ~ stereochemistry,  B ~ similar along bonds          atoms; w: log odds of alternate conformers
    F_calc = k A(h) [F_atoms(xyz, B, w) + k_sol exp(-B_sol s²) F_mask]
    F_h ~ Rice or Woolfson around u_h D(s) |F_calc| with variance ε β(s)    work reflections
    F_h ~ Wilson(ε Σ)                                                       free reflections, u_h = 0
    K_i = exp(scale(weights; x_i))                                          spot i, with all that is known of it
    I_i ~ (1 - π) t_ν(K_i F_h², σ'_i) + π Normal(0, a σ_i),   σ'² = a² [σ² + b σ̄ K F² + (c K F²)²]

Spots of free reflections know of no structure, and tell it nothing; u takes from the structure what it has from the
spots of this reflection itself, which are not to count twice. Fall-off with resolution is in K and in the atoms;
the data fix their product, so that the overall B stays where the model has it. Structure as in `refine`, spots as in
`merge`. Fitted by `bayesref.refinement.joint`, one of the two at a time.
"""

from dataclasses import dataclass
from math import log

import pyro
import pyro.distributions as dist
import torch

import bayesref as br


@dataclass(frozen=True)
class Priors:
    """Median and spread of the logarithm, unless said otherwise."""

    k: float = 1.0  # spread of the scale about its first estimate
    k_sol: tuple = (0.35, 0.25)  # solvent density, electrons/Å³
    B_sol: tuple = (46.0, 0.4)  # Å²
    anisotropy: float = 10.0  # Å², spread of each component
    log_D: float = 0.05  # spread of log D
    error: tuple = (0.15, 1.0)  # β / ⟨F²/ε⟩: overall
    error_shape: float = 0.7  # spread of its logarithm with resolution
    n_bumps: int = 7
    conformer: float = 1.5  # spread of log odds
    a: tuple = (1.0, 0.7)  # factor on σ
    least_a: float = 0.1  # spots written as exactly zero would drive a to none
    b: tuple = (0.05, 1.5)  # gain, in units of σ̄
    c: tuple = (0.05, 1.5)  # relative error of strong spots
    nu: tuple = (15.0, 1.0)  # degrees of freedom, beyond two
    blank: tuple = (0.01, 1.5)  # odds that a spot is a blank


def normal(shape, spread):
    return dist.Normal(torch.zeros(shape).double(), spread).to_event(1)


def lognormal(median, spread):
    return dist.LogNormal(torch.tensor(log(median)).double(), torch.tensor(spread).double())


def expected(atoms, priors):
    """D |F_calc| and β of every reflection of `atoms`."""
    s2 = atoms.stol2
    xyz = pyro.sample("xyz", atoms.geometry)
    B = pyro.sample("B", atoms.thermal)
    w = pyro.sample("w", normal(atoms.conformers.n, priors.conformer))

    k = pyro.sample("k", lognormal(atoms.scale, priors.k))
    k_sol = pyro.sample("k_sol", lognormal(*priors.k_sol))
    B_sol = pyro.sample("B_sol", lognormal(*priors.B_sol))
    b = pyro.sample("anisotropy", normal(len(atoms.aniso_basis()), priors.anisotropy))
    F_solvent = k_sol * torch.exp(-B_sol * s2) * atoms.F_mask
    F_calc = k * atoms.anisotropy(b) * (atoms.F_atoms(xyz, B, w) + F_solvent)

    phi = atoms.resolution_bumps(priors.n_bumps)
    line = torch.stack([torch.ones_like(s2), s2], 1)  # of log D: k and the B of all atoms have that already
    bent = phi - line @ torch.linalg.lstsq(line, phi).solution
    D = torch.exp(bent @ pyro.sample("log_D", normal(priors.n_bumps, priors.log_D)))
    error = pyro.sample("error", lognormal(*priors.error))
    shape = pyro.sample("error_shape", normal(priors.n_bumps, priors.error_shape))
    return D * F_calc.abs(), atoms.Sigma * error * torch.exp(phi @ shape)


def model(obs: br.Observations, scale: br.Scale, atoms: br.AtomicModel, u, priors: Priors = Priors()):
    asu, h = obs.asu, br.rows_of(obs.asu, atoms.plan.hkl)
    G, beta = expected(atoms, priors)
    G = (u * G)[h]
    V = asu.epsilon * torch.where(u == 0, atoms.Sigma, beta)[h]
    with pyro.plate("hkl", len(asu)):
        F = pyro.sample("F", br.dist.RiceWoolfson(G, V, asu.centric))

    weights = pyro.sample("weights", scale.prior())
    a = pyro.sample("a", lognormal(*priors.a)).clamp(min=priors.least_a)
    b = pyro.sample("b", lognormal(*priors.b))
    c = pyro.sample("c", lognormal(*priors.c))
    nu = pyro.sample("nu", lognormal(*priors.nu))
    odds = pyro.sample("blank_odds", lognormal(*priors.blank))
    with pyro.plate("spot", len(obs)):
        I_pred = torch.exp(scale(weights, obs)) * F[..., obs.hkl_id] ** 2
        sigma = a * torch.sqrt(obs.SIGI**2 + b * obs.typical_SIGI * I_pred + (c * I_pred) ** 2)
        spot = br.dist.SpotIntensity(2 + nu, I_pred, sigma, odds / (1 + odds), a * obs.SIGI)
        pyro.sample("I", spot, obs=obs.I)
