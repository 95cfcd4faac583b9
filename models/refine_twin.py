"""Refinement against twinned data: two domains of one structure, so that every intensity is the sum of two.

    xyz ~ stereochemistry,  B ~ similar along bonds,  A, C as in `refine_anisotropic` (no elements: spheres)
    F_calc = k A(h) [F_atoms(xyz, B, w, A, C) + k_sol exp(-B_sol s²) F_mask]
    F_h ~ Rice or Woolfson around D(s) |F_calc| with variance ε β(s)
    I_h ~ Normal((1 - α) F_h² + α F_h'², SIGI)         h' = h T, the twin mate; α ~ Uniform(0, 1)
    or F_obs ~ Normal(√[(1 - α) F_h² + α F_h'²], SIGF)                                 work reflections only

`data.mate` has the row of h'. α above ½ says that the model is indexed as the smaller domain.
Yeates (1997), Methods Enzymol. 276, 344; Murshudov et al. (2011), Acta Cryst. D67, 355.
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


def model(data: br.TwinnedData, atoms: br.AtomicModel, priors: Priors = Priors()):
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

    alpha = pyro.sample("twin_fraction", dist.Uniform(*torch.tensor([0.0, 1.0]).double()))

    with pyro.plate("hkl", len(asu)):
        F = pyro.sample("F", br.dist.RiceWoolfson(D * F_calc.abs(), asu.epsilon * beta, asu.centric))
        with poutine.mask(mask=data.measured & ~data.free):
            pyro.sample("I", data.law(data.total(F, alpha)), obs=data.value)
