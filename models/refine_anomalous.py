"""Refinement with Friedel mates apart: their mean says what an amplitude says, their difference where scatterers are.

    F(±h) = K (A ± i B),  conj for -h           A: atoms with f', and solvent;   B: f'' of the anomalous scatterers
    F_h ~ Rice or Woolfson around D(s) K √(|A|² + |B|²) with variance ε β(s)           mean of the mates
    I_h ~ Normal(F_h², SIGI), or F_obs ~ Normal(F_h, SIGF)
    F₊ - F₋ ~ Normal(m K (|A + iB| - |A - iB|), σ² + e² K² ‹|B|²›)                     difference of the mates

The mates share the errors of the model, β, which therefore count once; e is what is left in the difference. m is how
well the phase of A is known, f'' of each element a latent. Displacements as in `refine_anisotropic`.
Read (1990), Acta Cryst. A46, 900; Sim (1959), Acta Cryst. 12, 813; `bayesref.refinement.anomalous`.
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
    f2: float = 0.3  # spread of log f'' about the table
    difference: tuple = (0.5, 0.7)  # e


def normal(shape, spread):
    return dist.Normal(torch.zeros(shape).double(), spread).to_event(1)


def lognormal(median, spread):
    return dist.LogNormal(torch.tensor(log(median)).double(), spread)


def model(data: br.MergedData, atoms: br.AtomicModel, priors: Priors = Priors()):
    asu, s2, pairs = data.asu, atoms.stol2, atoms.anomalous.pairs
    xyz = pyro.sample("xyz", atoms.geometry)
    B = pyro.sample("B", atoms.thermal)
    w = pyro.sample("w", normal(atoms.conformers.n, priors.conformer))
    shapes = pyro.sample("A", atoms.ellipsoids(B))
    sites = (xyz, B, w, shapes, pyro.sample("tls", atoms.motion))

    k = pyro.sample("k", lognormal(atoms.scale, priors.k))
    k_sol = pyro.sample("k_sol", lognormal(*priors.k_sol))
    B_sol = pyro.sample("B_sol", lognormal(*priors.B_sol))
    b = pyro.sample("anisotropy", normal(len(atoms.aniso_basis()), priors.anisotropy))
    A = atoms.F_atoms(*sites) + k_sol * torch.exp(-B_sol * s2) * atoms.F_mask
    f2 = {e: pyro.sample(f"f2_{e}", lognormal(x, priors.f2)) for e, x in atoms.anomalous.f2.items()}
    K = k * atoms.anisotropy(b)
    mean, difference = br.mean_and_difference(A, atoms.F_anomalous(f2, *sites))

    phi = atoms.resolution_bumps(priors.n_bumps)
    line = torch.stack([torch.ones_like(s2), s2], 1)  # of log D: k and the B of all atoms have that already
    bent = phi - line @ torch.linalg.lstsq(line, phi).solution
    D = torch.exp(bent @ pyro.sample("log_D", normal(priors.n_bumps, priors.log_D)))
    error = pyro.sample("error", lognormal(*priors.error))
    shape = pyro.sample("error_shape", normal(priors.n_bumps, priors.error_shape))
    beta = atoms.Sigma * error * torch.exp(phi @ shape)

    G, V = D * K * mean, asu.epsilon * beta
    with pyro.plate("hkl", len(asu)):
        F = pyro.sample("F", br.dist.RiceWoolfson(G, V, asu.centric))
        with poutine.mask(mask=~data.free):
            pyro.sample("I", data.law(F), obs=data.value)

    e = pyro.sample("difference_error", lognormal(*priors.difference))
    h = pairs.row
    m = br.phase_confidence(pairs.F, pairs.sigma, G[h], V[h])
    spread = (pairs.sigma**2 + (e * K[h]) ** 2 * atoms.anomalous.mean2[h]).sqrt()
    with pyro.plate("pair", len(pairs)), poutine.mask(mask=~data.free[h]):
        pyro.sample("difference", dist.Normal(m * K[h] * difference[h], spread), obs=pairs.difference)
