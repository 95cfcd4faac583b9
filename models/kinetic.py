"""Kinetics: rate constants explain the amplitudes of every delay through the occupancies of known structures.

    k_j ~ LogNormal;   o(t) = occupancies of the scheme, of which the light reaches a share α; see `br.Design` for
                       the response of the probe, losses, unreacted molecules and uneven light
    Δx ~ Normal(0, 0.3 Å) · stereochemistry         of those atoms of the states that may move
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
    time: str = "1 ms"  # median of 1/k
    factor: float = 100.0  # spread of k, as a factor
    activation: tuple = (0.3, 2.0)  # mean of α, and its weight in observations
    efficiency: tuple = (0.5, 2.0)  # of each transition that loses molecules, likewise
    shift: float = 0.3  # Å, of atoms of the states that move
    uneven: float = 0.3  # spread of logit α over delays, where the light is uneven
    scale: float = 0.03  # spread of log a_t
    falloff: float = 0.5  # spread of b_t, Å²
    common: float = 0.3  # spread of the log of what multiplies β
    own: tuple = (-4.0, 1.5)  # log of E|δ_t|²/β: middle and spread


def normal(shape, middle, spread):
    return dist.Normal(torch.full((shape,), middle).double(), spread).to_event(1)


def occupancies(t, kinetics, design, priors):
    """Occupancies (time, state) with the numbers they come from."""
    x = {f"k {name}": br.rate_prior(priors.time, priors.factor) for name in kinetics.rates}
    x["activation"] = br.fraction_prior(*priors.activation)
    x |= {f"efficiency {name}": br.fraction_prior(*priors.efficiency) for name in design.efficiencies}
    x |= {name: br.width_prior(*w) for name, w in design.widths.items() if w[1] > 1}
    if design.unreacted == "inferred":
        x["unreacted"] = dist.Dirichlet(torch.ones(len(kinetics.occupied)).double())
    if design.uneven:
        x["unevenness"] = dist.HalfNormal(torch.tensor(priors.uneven).double())
        x["uneven"] = normal(len(t), 0.0, 1.0)
    values = {name: pyro.sample(name, prior) for name, prior in x.items()}
    return pyro.deterministic("occupancy", design.occupancies(kinetics, values, t))


def model(series: br.TimeSeries, states: br.States, kinetics: br.Kinetics, design=None, priors=Priors()):
    asu, n = series.asu, series.n_time
    o = occupancies(series.t, kinetics, design or br.Design(), priors)
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
