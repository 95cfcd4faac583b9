"""Kinetics of several experiments: temperatures, pump energies, mutants or repeats that share rate constants.

    k_j(T) = k_j exp[-(Ea_j/R) (1/T - 1/T_r)]        or Eyring's law, or one k_j in all, or one in each: `br.RateLinks`
    k_j ~ LogNormal at T_r,   Ea_j ~ Normal(50, 30) kJ/mol
    p(data) = Π_e p(F_e | o_e(t))                    each experiment is as in kinetic.py

An experiment has its own crystal, dark data, delays, scales and errors, its own share α that the light reaches and
its own unreacted molecules. All have the scheme, its rates, losses, the response of the probe and the shifts of atoms.
Ea: rates that double or treble in 10 K at room temperature, as van 't Hoff (1884) has them, have 51 and 81 kJ/mol;
within one standard deviation of this prior they grow 1.3 to 3.0 times, and within two they may as well fall.
"""

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch

import bayesref as br


@dataclass(frozen=True)
class Priors:
    time: str = "1 ms"  # median of 1/k, at T_r where temperatures are linked
    factor: float = 100.0  # spread of k, as a factor
    energy: tuple = (50.0, 30.0)  # Ea or ΔH‡, kJ/mol: middle and spread
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


def in_common(links, design, priors):
    """Priors of what all experiments share."""
    x = {f"k {name}": br.rate_prior(priors.time, priors.factor) for name in links.common}
    middle, spread = torch.tensor(priors.energy).double()
    x |= {f"{links.slope} {name}": dist.Normal(middle, spread) for name in links.activated}
    x |= {f"efficiency {name}": br.fraction_prior(*priors.efficiency) for name in design.efficiencies}
    return x | {name: br.width_prior(*w) for name, w in design.widths.items() if w[1] > 1}


def of_one(n, kinetics, design, priors):
    """Priors of what an experiment of n delays has for itself beside rates: of its reaction, and of its data."""
    x = {"activation": br.fraction_prior(*priors.activation)}
    if design.unreacted == "inferred":
        x["unreacted"] = dist.Dirichlet(torch.ones(len(kinetics.occupied)).double())
    if design.uneven:
        x["unevenness"] = dist.HalfNormal(torch.tensor(priors.uneven).double())
        x["uneven"] = normal(n, 0.0, 1.0)
    data = {"log_scale": normal(n, 0.0, priors.scale), "falloff": normal(n, 0.0, priors.falloff)}
    data |= {"log_common": normal(1, 0.0, priors.common), "log_own": normal(n, *priors.own)}
    return x, data


def sampled(priors, name=""):
    """{site: value}, each sampled under its name and that of the experiment."""
    return {site: pyro.sample(f"{site} {name}".strip(), prior) for site, prior in priors.items()}


def model(experiments, kinetics: br.Kinetics, links: br.RateLinks, design=None, priors=Priors()):
    design = design or br.Design()
    common = sampled(in_common(links, design, priors))
    own = {
        f"k {r} {e.name}": br.rate_prior(priors.time, priors.factor) for e in experiments for r in links.own
    }
    rates = links.rates_of(common | sampled(own))
    shifts = {}
    for name, atoms in experiments[0].states.movers.items():
        prior = dist.Normal(torch.zeros(len(atoms), 3).double(), priors.shift)
        shifts[name] = pyro.sample(f"shift {name}", prior.to_event(2))
        pyro.factor(f"geometry {name}", atoms.log_geometry(shifts[name]))

    for e, k in zip(experiments, rates, strict=True):
        for name in links.activated:
            pyro.deterministic(f"k {name} {e.name}", k[name])
        reaction, data = (sampled(x, e.name) for x in of_one(e.series.n_time, kinetics, design, priors))
        values = common | {f"k {name}": value for name, value in k.items()} | reaction
        o = pyro.deterministic(f"occupancy {e.name}", design.occupancies(kinetics, values, e.series.t))
        with pyro.plate(f"hkl {e.name}", len(e.series.asu)):
            pyro.sample(f"F_obs {e.name}", e.amplitudes(o, shifts, **data), obs=e.series.F)
