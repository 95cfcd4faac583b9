"""Rates and activation energies from simulated series at several temperatures: do 90 % intervals hold the truth?

    python benchmarks/kinetics_temperature.py --series 24                            # two temperatures, six delays
    python benchmarks/kinetics_temperature.py --series 8 --method nuts
    python benchmarks/kinetics_temperature.py --series 8 --temperatures 277,285,293 --delays 8

The crystals of kinetics_simulations.py (100 atoms, 358 reflections to 2.8 Å), one or two steps in turn, rates at the
reference temperature as there, activation energies drawn from the page's prior, Normal(50, 30) kJ/mol. Every
temperature has its own errors of the dark model and of the measurements, and its own share that the light reaches.
Beside the fit of all: the line through the rates that each temperature gives by itself (`separate`), for which errors
add as those of log k do.
"""

import argparse
import time

import numpy as np
import torch
from bayesref.models import kinetic, kinetic_experiments, refine
from kinetics_simulations import CELL, ordered, save

import bayesref as br
from bayesref.inference.laplace import fit_small
from bayesref.refinement.simulate_series import SeriesOptions, simulate_series
from bayesref.refinement.states import fit_states
from bayesref.refinement.toy_crystal import moved_patch, toy_crystal
from bayesref.results.statistics import interval

R = 8.31446261815324e-3  # kJ/(mol K)


def simulated(seed: int, T: list[float], n_delays: int):
    """Experiments, kinetics, links and the true numbers."""
    g = np.random.default_rng(1000 + seed)
    three = seed % 2 == 0
    kinetics = br.Kinetics("B -> C, C -> A" if three else "B -> A", ground="A", start="B")
    middle = (10 ** g.uniform(3, 4), 10 ** g.uniform(1.3, 2.5)) if three else (10 ** g.uniform(2, 4),)
    links = br.RateLinks(kinetics.rates, tuple(f"{x:g} K" for x in T), "arrhenius", tuple(T))
    truth = {f"k {r}": torch.tensor(k).double() for r, k in zip(kinetics.rates, middle, strict=True)}
    truth |= {f"Ea {r}": torch.tensor(g.normal(50, 30)).double() for r in kinetics.rates}
    names = ["A", *(s for s in "BC" if s in kinetics.occupied)]
    dark = toy_crystal(n=100, cell=CELL, seed=seed)
    crystals = {"A": dark}
    crystals |= {n: moved_patch(dark, n=16, seed=100 * seed + i) for i, n in enumerate(names[1:])}
    t = torch.logspace(-5, -1, n_delays).double()
    experiments = []
    for i, rates in enumerate(links.rates_of(truth)):
        o = kinetics.occupancies(rates, t, activation=g.uniform(0.1, 0.3))
        order = [kinetics.occupied.index(s) for s in names]
        series, data = simulate_series(
            crystals, o[:, order], t, SeriesOptions(dmin=2.8, noise=0.05), seed=10_000 * (i + 1) + seed
        )
        states = ordered(fit_states(crystals, data, refine.model), kinetics)
        experiments.append(br.Experiment(links.experiments[i], series, states, T[i]))
    truth |= {
        f"k {r} {e.name}": links.at(r, truth, e.temperature) for r in kinetics.rates for e in experiments
    }
    return experiments, kinetics, links, truth


def line_error(x, y, sd):
    """Slope of the weighted line through (x, y ± sd), and its standard error."""
    w = 1 / np.square(sd)
    middle = (w * x).sum() / w.sum()
    s = (w * (x - middle) ** 2).sum()
    return (w * (x - middle) * y).sum() / s, s**-0.5


def separate(experiments, kinetics, links, seed):
    """{site: (mean, sd)} of Ea from lines through each temperature's own log k."""
    fits = [
        fit_small(kinetic.model, (e.series, e.states, kinetics), n_starts=2, n_draws=400, seed=seed)
        for e in experiments
    ]
    x = -1 / (R * np.array(links.temperatures))
    out = {}
    for name in kinetics.rates:
        log_k = [p.sites[f"k {name}"].log() for p in fits]
        out[f"Ea {name}"] = line_error(
            x, np.array([float(v.mean()) for v in log_k]), [float(v.std()) for v in log_k]
        )
    return out


def main(asked) -> None:
    T = [float(x) for x in asked.temperatures.split(",")]
    rows = []
    name = f"temperature_{asked.method}_{len(T)}x{asked.delays}"
    for seed in range(asked.first, asked.first + asked.series):
        experiments, kinetics, links, truth = simulated(seed, T, asked.delays)
        begin = time.process_time()
        p = fit_small(
            kinetic_experiments.model, (experiments, kinetics, links), n_starts=2, n_draws=400, seed=seed,
            observed=tuple(f"F_obs {e.name}" for e in experiments), method=asked.method,
        )  # fmt: skip
        cost = time.process_time() - begin
        lines = separate(experiments, kinetics, links, seed) if asked.separate else {}
        for site, true in truth.items():
            x, true = p.sites[site], float(true)
            if site.startswith("k "):
                x, true = x.log(), float(np.log(true))
            low, high = interval(x.numpy())
            kind = "Ea" if site.startswith("Ea") else "k at T" if site.endswith(" K") else "k"
            row = {"seed": seed, "kind": kind, "site": site, "inside": low <= true <= high, "k_hat": p.k_hat}
            row |= {"error": float(x.mean()) - true, "sd": float(x.std()), "cpu": cost, "n": p.y.shape[1]}
            if site in lines:
                row |= {"line_error": lines[site][0] - true, "line_sd": lines[site][1]}
            rows.append(row)
        print(f"series {seed}: {p.y.shape[1]} numbers, k-hat {p.k_hat:.2f}, {cost:.0f} CPU s", flush=True)
        save(name, rows)
    for kind, unit in (("k", "log k at T_ref"), ("k at T", "log k at each T"), ("Ea", "Ea, kJ/mol")):
        mine = [r for r in rows if r["kind"] == kind]
        z = np.array([r["error"] / r["sd"] for r in mine])
        print(
            f"{unit:16s} {len(mine)} intervals of 90 % hold {np.mean([r['inside'] for r in mine]):.3f}; rms error "
            f"{np.sqrt(np.mean([r['error'] ** 2 for r in mine])):.3f}; rms error/sd {np.sqrt((z**2).mean()):.2f}"
        )
    lines = [r for r in rows if "line_sd" in r]
    if lines:
        z = np.array([r["line_error"] / r["line_sd"] for r in lines])
        rms = np.sqrt(np.mean([r["line_error"] ** 2 for r in lines]))
        held, spread = np.mean(np.abs(z) < 1.645), np.sqrt((z**2).mean())
        print(f"Ea, lines        {held:.3f}; rms error {rms:.3f}; rms error/sd {spread:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=24)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--temperatures", default="277,293")
    parser.add_argument("--delays", type=int, default=6)
    parser.add_argument("--method", choices=("laplace", "nuts"), default="laplace")
    parser.add_argument("--separate", action=argparse.BooleanOptionalAction, default=True)
    main(parser.parse_args())
