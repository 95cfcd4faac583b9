"""Occupancies of 20 reaction schemes against torchref.experimental.kinetic, with scipy as the referee.

    python benchmarks/kinetics_parity.py [--python TORCHREF_PYTHON] [--envs DIR]

torchref runs in its own environment in float64 (made under --envs with pip where missing, as in
structure_factors.py). The referee integrates dp/dt = Q p, and with it ∫ R(t - s) p(s) ds as further variables of the
same ODE, with scipy's LSODA at a relative tolerance of 1e-12. Columns are the largest absolute differences of an
occupancy; "right" names the programs within 1e-6 of the referee.
"""

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEER = ["torch==2.13.0", "torchref==0.7.0"]
LIMIT = 1e-6
DENSE = [round(0.25 * i - 5, 2) for i in range(101)]
SPARSE = [0.1, 0.3, 1.0, 3.0, 10.0]
WIDE = [0.0, 5.0, 20.0, 100.0, 500.0]
GRID = [-1.0, 0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]


def case(name, scheme, rates, t=GRID, **more):
    """One comparison; `more`: width, light, alpha, mapping {state: number}, factors {transition: number}."""
    return {"name": name, "scheme": scheme, "rates": rates, "t": t, **more}


CHAIN = {"A->B": 3.0, "B->C": 0.3}
CYCLE = {"A->B": 2.0, "B->C": 0.5, "C->A": 0.1}
CASES = [
    case("one step", "A->B", {"A->B": 3.0}),
    case("chain", "A->B,B->C", CHAIN),
    case("equal rates", "A->B,B->C", {"A->B": 1.0, "B->C": 1.0}),
    case("four equal rates", "A->B,B->C,C->D,D->E", dict.fromkeys(["A->B", "B->C", "C->D", "D->E"], 0.7)),
    case("reversible", "A->B,B->A", {"A->B": 1.0, "B->A": 0.4}),
    case("cycle", "A->B,B->C,C->A", CYCLE),
    case("branches that meet", "A->B,A->C,B->D,C->D", {"A->B": 1.0, "A->C": 2.0, "B->D": 0.1, "C->D": 0.03}),
    case("idle state", "A->B,D", {"A->B": 0.5}),
    case(
        "stiff, 12 decades",
        "A->B,B->C,C->D",
        {"A->B": 1e6, "B->C": 1.0, "C->D": 1e-6},
        [0, 1e-6, 1, 1e3, 1e6],
    ),
    case("half activated", "A->B,B->C", CHAIN, alpha=0.5),
    case("light-activated cycle", "A->B,B->C,C->A", CYCLE, light=True),
    case("light-activated, 30 %", "A->B,B->C,C->A", CYCLE, light=True, alpha=0.3),
    case("shared structure", "A->B,B->C", CHAIN, mapping={"A": 0, "B": 1, "C": 1}),
    case(
        "shared, light, 40 %",
        "A->B,B->C,C->A",
        CYCLE,
        light=True,
        alpha=0.4,
        mapping={"A": 0, "B": 1, "C": 1},
    ),
    case("rate times factor", "A->B,B->C", CHAIN, factors={"B->C": 0.6}),
    case("factors, light", "A->B,B->C,C->A", CYCLE, light=True, factors={"A->B": 0.5, "C->A": 0.2}),
    case("Gaussian, dense times", "A->B,B->C", {"A->B": 0.5, "B->C": 0.1}, DENSE, width=1.0),
    case("Gaussian, sparse times", "A->B", {"A->B": 3.0}, SPARSE, width=0.3),
    case("Gaussian, wide", "A->B", {"A->B": 3.0}, WIDE, width=10.0),
    case("Gaussian, light, 50 %", "A->B,B->C,C->A", CYCLE, GRID, width=0.5, light=True, alpha=0.5),
]


def torchref_occupancies(cases):
    """What torchref answers, one (time, structure) list per case; runs in its environment."""
    import torch

    torch.set_default_dtype(torch.float64)
    from torchref.experimental.kinetic.occupancies import occupancies_kinetics

    out = []
    for c in cases:
        model = occupancies_kinetics(
            c["scheme"],
            torch.tensor(c["t"]),
            rate_constants=c["rates"],
            instrument_function="gaussian" if "width" in c else "none",
            instrument_width=c.get("width", 1.0),
            light_activated=c.get("light", False),
            state_mapping=c.get("mapping"),
            activation_level=c.get("alpha", 1.0),
            verbose=0,
        )
        inner = model.kinetics
        if c.get("factors"):  # its efficiencies are a frozen buffer of ones
            names = list(c["rates"])
            inner.efficiencies = torch.tensor([c["factors"].get(n, 1.0) for n in names])
        out.append(model().detach().T.tolist())
    return out


def build(c):
    """The same case for bayesref: (Kinetics, response)."""
    import bayesref as br

    mapping = c.get("mapping") or {}
    kinetics = br.Kinetics(
        c["scheme"],
        light_activated=c.get("light", False),
        structures={state: f"structure {i}" for state, i in mapping.items()},
    )
    return kinetics, br.GaussianResponse(c["width"]) if "width" in c else br.NoResponse()


def ours(c):
    import torch

    kinetics, response = build(c)
    t = torch.tensor(c["t"], dtype=torch.float64)
    return kinetics.occupancies(
        c["rates"], t, response=response, activation=c.get("alpha", 1.0), factors=c.get("factors")
    ).numpy()


def referee(c):
    """LSODA on (p, ∫ N(t - s; σ) p(s) ds), with a rate matrix of its own."""
    import numpy as np
    from scipy.integrate import solve_ivp
    from scipy.stats import norm

    states = list(dict.fromkeys(s for part in c["scheme"].split(",") for s in part.split("->")))
    ground, n = states[0], len(states) + bool(c.get("light"))
    Q = np.zeros((n, n))
    for name, k in c["rates"].items():
        a, b = name.split("->")
        i = n - 1 if c.get("light") and b == ground else states.index(b)
        k = k * c.get("factors", {}).get(name, 1.0)
        Q[i, states.index(a)] += k
        Q[states.index(a), states.index(a)] -= k
    first = np.eye(n)[0]
    tight = {"method": "LSODA", "rtol": 1e-12, "atol": 1e-14}
    p = []
    for t in c["t"]:
        if "width" not in c:
            end = solve_ivp(lambda s, y: Q @ y, (0, t), first, **tight).y[:, -1] if t > 0 else first
        else:
            w = c["width"]

            def both(s, y, t=t, w=w):
                return np.concatenate([Q @ y[:n], norm.pdf(s, t, w) * y[:n]])

            y0 = np.concatenate([first, np.zeros(n)])
            done = solve_ivp(both, (0, max(t, 0) + 9 * w), y0, max_step=w / 2, **tight)
            end = norm.cdf(-t / w) * first + done.y[n:, -1]
        p.append(end)
    p = (1 - c.get("alpha", 1.0)) * first + c.get("alpha", 1.0) * np.array(p)
    mapping = dict(c.get("mapping") or {s: i for i, s in enumerate(states)})
    number = [mapping[s] for s in states] + ([mapping[ground]] if c.get("light") else [])
    o = np.zeros((len(c["t"]), max(number) + 1))
    for j, i in enumerate(number):
        o[:, i] += p[:, j]
    return o


def python_of(options):
    """torchref's interpreter, its environment made where it is missing."""
    if options.python:
        return str(options.python)
    home = options.envs / "torchref"
    if not (home / "bin" / "python").exists():
        venv.create(home, with_pip=True)
        subprocess.run([home / "bin" / "python", "-m", "pip", "install", "-q", *PEER], check=True)
    return str(home / "bin" / "python")


def rows(options):
    import numpy as np

    done = subprocess.run(
        [python_of(options), "-W", "ignore", __file__, "--worker"],
        input=json.dumps(CASES),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    for c, peer in zip(CASES, json.loads(done.stdout.splitlines()[-1]), strict=True):
        mine, peer, truth = ours(c), np.array(peer), referee(c)
        a, b = np.abs(mine - truth).max(), np.abs(peer - truth).max()
        right = [name for name, x in (("bayesref", a), ("torchref", b)) if x < LIMIT]
        yield {
            "case": c["name"],
            "scheme": c["scheme"].replace(",", ", "),
            "bayesref - torchref": f"{np.abs(mine - peer).max():.1e}",
            "bayesref - scipy": f"{a:.1e}",
            "torchref - scipy": f"{b:.1e}",
            "right": "both" if len(right) == 2 else (right or ["neither"])[0],
        }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--envs", type=Path, default=HERE / ".envs")
    parser.add_argument("--python", type=Path, help="interpreter of an environment that has torchref")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(torchref_occupancies(json.load(sys.stdin))))
        return
    from common import table

    table(list(rows(options)))


if __name__ == "__main__":
    main()
