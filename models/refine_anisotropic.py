"""Refinement with ellipsoids or rigid groups: as `refine`, but the atoms move more in some directions than in others.

    U_i = (B_i / 8π²) exp(A_i) + W_i C W_iᵀ                  A: shapes of single atoms;  C: (T, L, S) of their group
    xyz ~ stereochemistry,  B ~ similar along bonds,  A | B ~ nearly round, similar, rigid along bonds,  C ~ Wishart
    F_calc = k A(h) [F_atoms(xyz, B, w, A, tls) + k_sol exp(-B_sol s²) F_mask]
    F_h ~ Rice or Woolfson around D(s) |F_calc| with variance ε β(s)
    I_h ~ Normal(F_h², SIGI), or F_obs ~ Normal(F_h, SIGF)                    work reflections only

Which of A and C there are is a choice of the atoms (`--adp`); a site without elements is not there.
Schomaker & Trueblood (1968), Acta Cryst. B24, 63; Merritt (1999), Acta Cryst. D55, 1109.
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
    anisotropy: float = 1.0  # Å², spread of each component: the atoms have their own
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
    A = pyro.sample("A", atoms.ellipsoids(B))
    tls = pyro.sample("tls", atoms.motion)

    k = pyro.sample("k", lognormal(atoms.scale, priors.k))
    k_sol = pyro.sample("k_sol", lognormal(*priors.k_sol))
    B_sol = pyro.sample("B_sol", lognormal(*priors.B_sol))
    b = pyro.sample("anisotropy", normal(len(atoms.aniso_basis()), priors.anisotropy))
    F_solvent = k_sol * torch.exp(-B_sol * s2) * atoms.F_mask
    F_calc = k * atoms.anisotropy(b) * (atoms.F_atoms(xyz, B, w, A, tls) + F_solvent)

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
