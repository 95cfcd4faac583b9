"""Differences: shares and structures of the states at each delay, without a scheme.

    o(t) ~ Dirichlet                                    a point of the simplex for each delay, no scheme
    Δx ~ Normal(0, 0.3 Å) · stereochemistry         of those atoms of the states that may move, the same at all delays
    F_t = F_0 + Σ_s o_s(t) (F_s - F_dark) + δ_t        F_0 = F_dark,calc + Δ: the error Δ is the same at all times
    a_t e^{-b_t s²} |F_t| measured                      a_t, b_t: scale of the dataset against the dark one

Differences decide: the error of the dark model cancels in them. See `distributions.shared_error`.
"""

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch

import bayesref as br


@dataclass(frozen=True)
class Priors:
    concentration: float = 1.0  # of the Dirichlet: 1 is uniform
    shift: float = 0.3  # Å, of atoms of the states that move
    scale: float = 0.03  # spread of log a_t
    falloff: float = 0.5  # spread of b_t, Å²
    common: float = 0.3  # spread of the log of what multiplies β
    own: tuple = (-4.0, 1.5)  # log of E|δ_t|²/β: middle and spread


def normal(shape, middle, spread):
    return dist.Normal(torch.full((shape,), middle).double(), spread).to_event(1)


def model(series: br.TimeSeries, states: br.States, kinetics=None, design=None, priors=Priors()):
    asu, n = series.asu, series.n_time
    simplex = br.SimplexOccupancies(states.names, n, priors.concentration)
    shares = pyro.sample("shares", simplex.prior().to_event(1))
    o = pyro.deterministic("occupancy", shares)  # (time, state)
    shifts = {}
    for name, atoms in states.movers.items():
        prior = dist.Normal(torch.zeros(len(atoms), 3).double(), priors.shift)
        shifts[name] = pyro.sample(f"shift {name}", prior.to_event(2))
        pyro.factor(f"geometry {name}", atoms.log_geometry(shifts[name]))

    a = pyro.sample("log_scale", normal(n, 0.0, priors.scale))
    b = pyro.sample("falloff", normal(n, 0.0, priors.falloff))
    K = torch.exp(a - b * asu.stol2[:, None])  # (hkl, time)
    V = states.V * torch.exp(pyro.sample("log_common", normal(1, 0.0, priors.common)))
    V_time = V[:, None] * torch.exp(pyro.sample("log_own", normal(n, *priors.own)))

    F = br.dist.SharedError(states.G, V, states.change(o, shifts), V_time, series.SIGF, asu.centric, K)
    with pyro.plate("hkl", len(asu)):
        pyro.sample("F_obs", F, obs=series.F)
