"""Rates and occupancies from simulated series: calibration, beside point estimates, choice of schemes, ranks.

    python benchmarks/kinetics_simulations.py calibration --series 40     # 90 % intervals, error, log score
    python benchmarks/kinetics_simulations.py schemes --series 20         # leave-one-out finds the true scheme
    python benchmarks/kinetics_simulations.py ranks --series 200 --method laplace
    python benchmarks/kinetics_simulations.py ranks --series 60 --method nuts

A crystal of 100 atoms in P 2₁2₁2₁, 358 reflections to 2.8 Å, six delays, dark model with R 0.24, light reaching 10 to
30 %; every series has another crystal, other states and other rates. The point estimate that is compared is what is
usually done: occupancies of each delay by weighted least squares of ΔF_obs against ΔF_calc, then a curve through them.
kinetics_torchref.py gives the same series to torchref.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.optimize
import scipy.stats
import torch
from bayesref.models import kinetic, occupancy, refine

import bayesref as br
from bayesref.inference.laplace import fit_small
from bayesref.refinement.simulate_series import SeriesOptions, simulate_series
from bayesref.refinement.states import fit_states
from bayesref.refinement.toy_crystal import moved_patch, toy_crystal
from bayesref.results.statistics import interval
from bayesref.validation.loo import compare, leave_one_out

WORK = Path(__file__).parent / "work"
CELL = (20.0, 23.0, 26.0)


def simulated(seed: int, scheme: str, rates: dict, activation: float, noise: float = 0.05):
    """Series, states, kinetics, true occupancies in the order of the scheme, and {state: Crystal}."""
    kinetics = br.Kinetics(scheme, ground="A", start="B")
    names = ["A", *(s for s in ("B", "C") if s in kinetics.occupied)]
    dark = toy_crystal(n=100, cell=CELL, seed=seed)
    crystals = {"A": dark} | {
        n: moved_patch(dark, n=16, seed=100 * seed + i) for i, n in enumerate(names[1:])
    }
    t = torch.logspace(-5, -1, 6).double()
    tensors = {k: torch.tensor(v).double() for k, v in rates.items()}
    o = kinetics.occupancies(tensors, t, activation=activation)
    order = [kinetics.occupied.index(s) for s in names]
    series, dark_data = simulate_series(
        crystals, o[:, order], t, SeriesOptions(dmin=2.8, noise=noise), seed=seed
    )
    return series, fit_states(crystals, dark_data, refine.model), kinetics, o, crystals


def ordered(states, kinetics):
    """The states as the scheme has them."""
    rows = [states.names.index(n) for n in kinetics.occupied]
    return replace(states, names=kinetics.occupied, d=states.d[:, rows])


def least_squares(series, states, kinetics):
    """Occupancies (time, state but the dark one) and their covariances, of each delay by itself."""
    change = (states.d.real).numpy()  # of amplitudes, along the dark phase
    ground = kinetics.occupied.index("A")
    columns = [j for j in range(change.shape[1]) if j != ground]
    found, covariance = [], []
    for i in range(series.n_time):
        F, s = series.F[:, 1 + i].numpy(), series.SIGF.numpy()
        dark = series.F[:, 0].numpy()
        k = (F * dark).sum() / (dark**2).sum()
        y, sigma = F / k - dark, np.hypot(s[:, 0], s[:, 1 + i] / k)
        X = change[:, columns] / sigma[:, None]
        XtX = X.T @ X
        o = np.linalg.solve(XtX, X.T @ (y / sigma))
        r = y / sigma - X @ o
        found.append(o)
        covariance.append(np.linalg.inv(XtX) * (r @ r) / (len(y) - len(o)))
    return np.array(found), np.array(covariance)


def curve(found, covariance, series, kinetics):
    """log rates and their standard errors, by a curve through occupancies that have these covariances."""
    columns = [j for j in range(len(kinetics.occupied)) if j != kinetics.occupied.index("A")]
    roots = [np.linalg.cholesky(np.linalg.inv(c)) for c in covariance]

    def residual(x):
        rates = {name: torch.tensor(np.exp(x[j])) for j, name in enumerate(kinetics.rates)}
        alpha = 1 / (1 + np.exp(-x[-1]))
        o = kinetics.occupancies(rates, series.t, activation=alpha).numpy()[:, columns]
        return np.concatenate([R.T @ (a - b) for R, a, b in zip(roots, found, o, strict=True)])

    best = None
    for start in ((7, 5), (8, 4), (6, 3), (9, 6)):
        x0 = [*start[: len(kinetics.rates)], -1.4]
        low, high = [-2.0] * len(kinetics.rates) + [-8.0], [16.0] * len(kinetics.rates) + [8.0]
        fit = scipy.optimize.least_squares(residual, x0, bounds=(low, high))
        best = fit if best is None or fit.cost < best.cost else best
    J = best.jac
    C = np.linalg.pinv(J.T @ J) * max(1.0, 2 * best.cost / max(len(best.fun) - len(best.x), 1))
    n = len(kinetics.rates)
    return best.x[:n], np.sqrt(np.maximum(np.diag(C)[:n], 1e-12))


def cases(n: int):
    """(seed, scheme, rates, activation) of the series of `calibration`."""
    g = np.random.default_rng(7)
    for seed in range(n):
        three = seed % 2 == 0
        scheme = "B -> C, C -> A" if three else "B -> A"
        rates = {"B->C": 10 ** g.uniform(3, 4), "C->A": 10 ** g.uniform(1.3, 2.5)} if three else {
            "B->A": 10 ** g.uniform(2, 4)
        }  # fmt: skip
        yield seed, scheme, rates, g.uniform(0.1, 0.3)


def calibration(n: int) -> None:
    """Coverage of 90 % intervals; root mean square error and log score of log rates, beside the point estimate."""
    rows = []
    for seed, scheme, rates, activation in cases(n):
        series, states, kinetics, truth, _ = simulated(seed, scheme, rates, activation)
        begin = time.process_time()
        states = ordered(states, kinetics)
        p = fit_small(kinetic.model, (series, states, kinetics), n_starts=2, n_draws=400, seed=seed)
        cost = time.process_time() - begin
        x, sd = curve(*least_squares(series, states, kinetics), series, kinetics)
        for j, (name, true) in enumerate(rates.items()):
            log_k = p.sites[f"k {name}"].log().numpy()
            low, high = interval(log_k)
            density = scipy.stats.gaussian_kde(log_k)
            rows.append({
                "seed": seed, "kind": "rate", "name": name, "inside": low <= np.log(true) <= high,
                "error": log_k.mean() - np.log(true), "score": float(np.log(density(np.log(true))[0] + 1e-12)),
                "point_error": x[j] - np.log(true), "point_inside": abs(x[j] - np.log(true)) < 1.645 * sd[j],
                "point_score": float(scipy.stats.norm.logpdf(np.log(true), x[j], sd[j])), "k_hat": p.k_hat,
                "cpu": cost,
            })  # fmt: skip
        a = p.sites["activation"].numpy()
        rows.append(
            {"seed": seed, "kind": "activation", "inside": interval(a)[0] <= activation <= interval(a)[1]}
        )
        draws = p.sites["occupancy"]
        for i in range(series.n_time):
            for j in range(len(kinetics.occupied)):
                low, high = interval(draws[:, i, j].numpy())
                inside = bool(low - 1e-6 <= truth[i, j] <= high + 1e-6)
                rows.append({"seed": seed, "kind": "occupancy", "inside": inside})
        print(f"series {seed}: k-hat {p.k_hat:.2f}, {cost:.0f} CPU s", flush=True)
        save("calibration", rows)
    for kind in ("rate", "activation", "occupancy"):
        print(
            f"{kind:13s} 90 % intervals hold the truth {np.mean([r['inside'] for r in rows if r['kind'] == kind]):.3f}"
        )
    rate = [r for r in rows if r["kind"] == "rate"]
    rms = {k: np.sqrt(np.mean([r[k] ** 2 for r in rate])) for k in ("error", "point_error")}
    middle = {k: np.median([abs(r[k]) for r in rate]) for k in ("error", "point_error")}
    score = {k: np.mean([r[k] for r in rate]) for k in ("score", "point_score")}
    print(f"log rates: rms error {rms['error']:.3f}, point estimate {rms['point_error']:.3f}")
    print(f"           median |error| {middle['error']:.3f}, point estimate {middle['point_error']:.3f}")
    print(f"           log score {score['score']:.2f}, point estimate {score['point_score']:.2f}")
    print(f"           point estimate's 90 % intervals hold {np.mean([r['point_inside'] for r in rate]):.3f}")


def schemes(n: int) -> None:
    """How often leave-one-out prefers the scheme that made the data."""
    candidates = ("B -> C, C -> A", "B -> A, B -> C", "B <-> C, C -> A")
    rows, g = [], np.random.default_rng(11)
    for seed in range(n):
        rates = {"B->C": 10 ** g.uniform(3, 4), "C->A": 10 ** g.uniform(1.5, 2.3)}
        series, states, *_ = simulated(500 + seed, candidates[0], rates, g.uniform(0.15, 0.3), 0.03)
        loo = {}
        for text in candidates:
            k = br.Kinetics(text, ground="A", start="B")
            args = (series, ordered(states, k), k)
            loo[text] = leave_one_out(
                fit_small(kinetic.model, args, n_starts=2, n_draws=300, seed=seed).log_likelihood
            )
        table = compare(loo)
        rows.append({r["model"]: (r["difference"], r["se"], r["verdict"]) for r in table})
        print(
            seed,
            "; ".join(f"{r['model']}: {r['difference']:.1f} ± {r['se']:.1f} {r['verdict']}" for r in table),
            flush=True,
        )
        save("schemes", rows)
    best = sum(r[candidates[0]][2] == "best" for r in rows)
    wrong = sum(r[candidates[0]][2] == "worse" for r in rows)
    print(f"the true scheme is best in {best} of {n}; rejected in {wrong}; 'cannot tell' otherwise")


def ranks(n: int, method: str) -> None:
    """Ranks of truths drawn from the prior of the occupancy model among draws of the posterior: uniform if right."""
    crystal = toy_crystal(n=60, cell=(16.0, 18.0, 20.0), seed=3)
    crystals = {"A": crystal} | {s: moved_patch(crystal, n=10, rms=0.8, seed=i) for i, s in enumerate("BC")}
    t = torch.tensor([1e-3, 1e-2]).double()
    empty = torch.tensor([[1.0, 0, 0], [1.0, 0, 0]])
    series, dark = simulate_series(crystals, empty, t, SeriesOptions(dmin=2.8, noise=0.05), seed=3)
    states = fit_states(crystals, dark, refine.model)
    found: dict[str, list[int]] = {}
    n_kept, thin = 19, 8  # ranks 0 ... 19; NUTS has about one independent draw in two
    for seed in range(n):
        trace = prior_trace(series, states, seed)
        data = replace(series, F=trace.nodes["F_obs"]["value"].clamp(min=1e-6))
        p = fit_small(
            occupancy.model,
            (data, states),
            n_starts=1,
            n_draws=n_kept * (thin if method == "nuts" else 20),
            method=method,
            seed=seed,
        )
        g = np.random.default_rng(seed)
        for name, get in {
            **{
                f"o_{s}({i})": (lambda x, s=s, i=i: x["occupancy"][..., i, s]) for s in (1, 2) for i in (0, 1)
            },
            "log_scale": lambda x: x["log_scale"][..., 0],
            "log_common": lambda x: x["log_common"][..., 0],
            "log_own": lambda x: x["log_own"][..., 0],
        }.items():
            draws = get(p.sites).numpy()
            draws = draws[thin - 1 :: thin] if method == "nuts" else g.permutation(draws)[:n_kept]
            true = float(get({k: trace.nodes[k]["value"] for k in p.sites}))
            found.setdefault(name, []).append(int((draws < true).sum()))
        if seed % 10 == 9:
            save(f"ranks_{method}", found)
            print(seed + 1, {k: round(chi_square(v, n_kept + 1), 3) for k, v in found.items()}, flush=True)
    print(
        f"p of uniform ranks ({method}, {n} series):",
        {k: round(chi_square(v, n_kept + 1), 3) for k, v in found.items()},
    )


def prior_trace(series, states, seed):
    """A draw of everything in the occupancy model, the amplitudes of all datasets with it."""
    import pyro
    from pyro import poutine

    pyro.set_rng_seed(10_000 + seed)
    with pyro.validation_enabled(False):
        return poutine.trace(poutine.uncondition(occupancy.model)).get_trace(series, states)


def chi_square(ranks, n: int) -> float:
    """p of ranks 0 ... n - 1 in ten bins against uniform."""
    counts = np.histogram(ranks, bins=10, range=(-0.5, n - 0.5))[0]
    return float(scipy.stats.chisquare(counts).pvalue)


def read(name: str):
    """What `save` kept, or nothing."""
    path = WORK / f"kinetics_{name}.json"
    return json.loads(path.read_text()) if path.exists() else []


def save(name: str, rows) -> None:
    """Keep what there is so far."""
    WORK.mkdir(exist_ok=True)
    (WORK / f"kinetics_{name}.json").write_text(json.dumps(rows, default=float))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("calibration", "schemes", "ranks"))
    parser.add_argument("--series", type=int, default=40)
    parser.add_argument("--method", choices=("laplace", "nuts"), default="laplace")
    asked = parser.parse_args()
    if asked.what == "ranks":
        ranks(asked.series, asked.method)
    else:
        {"calibration": calibration, "schemes": schemes}[asked.what](asked.series)
