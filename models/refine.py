"""Refinement: one structure explains every amplitude, up to the errors of a model.

    xyz ~ stereochemistry,  B ~ similar along bonds          atoms; w: log odds of alternate conformers
    F_calc = k A(h) [F_atoms(xyz, B, w) + k_sol exp(-B_sol s²) F_mask]        A: anisotropy, traceless
    F_h ~ Rice or Woolfson around D(s) |F_calc| with variance ε β(s)
    I_h ~ Normal(F_h², SIGI), or F_obs ~ Normal(F_h, SIGF)                    work reflections only

D and β are smooth in resolution; β is a share of ⟨F²/ε⟩. R-free reflections are masked: nothing is learned from
them here. Read (1990), Acta Cryst. A46, 900; Murshudov et al. (1997), Acta Cryst. D53, 240.
"""

from dataclasses import dataclass
from math import log

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

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


def normal(shape, spread):
    return dist.Normal(torch.zeros(shape).double(), spread).to_event(1)


def lognormal(median, spread):
    return dist.LogNormal(torch.tensor(log(median)).double(), spread)


def model(data: br.MergedData, atoms: br.AtomicModel, priors: Priors = Priors()):
    asu, s2 = data.asu, atoms.stol2
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
    beta = atoms.Sigma * error * torch.exp(phi @ shape)

    with pyro.plate("hkl", len(asu)):
        F = pyro.sample("F", br.dist.RiceWoolfson(D * F_calc.abs(), asu.epsilon * beta, asu.centric))
        with poutine.mask(mask=~data.free):
            pyro.sample("I", data.law(F), obs=data.value)
