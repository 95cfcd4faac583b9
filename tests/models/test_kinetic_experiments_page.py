"""The page of several experiments is the page of one, times as many, with one prior of what they share."""

import math
from dataclasses import replace

import pyro
import pytest
import torch
from bayesref.models import kinetic, kinetic_experiments
from pyro import poutine

import bayesref as br
from bayesref.crystal.asu import reciprocal_asu
from bayesref.data.series import TimeSeries
from bayesref.refinement.toy_crystal import toy_crystal

D = {"dtype": torch.float64}
K = br.Kinetics("B -> C, C -> A", ground="A", start="B")
NAMES, T = ("cold", "warm 2"), (277.0, 293.0)
R = 8.31446261815324e-3


def experiment(name, T, n_time, seed):
    """Random states and data on a few reflections."""
    import gemmi

    crystal = toy_crystal(n=40, cell=(14.0, 15.0 + seed, 16.0), seed=1)
    hkl = torch.tensor(gemmi.make_miller_array(crystal.cell, crystal.spacegroup, 4.0))
    asu, _ = reciprocal_asu(hkl.to(torch.int64), crystal.cell, crystal.spacegroup)
    g = torch.Generator().manual_seed(seed)
    n = len(asu)
    rand = lambda *shape: torch.rand(*shape, generator=g, **D)  # noqa: E731
    d = torch.complex(rand(n, 3) - 0.5, rand(n, 3) - 0.5) * 10
    d[:, K.occupied.index("A")] = 0
    states = br.States(K.occupied, 20 + 30 * rand(n), 20 + 10 * rand(n), d, 0.2)
    F, sigma = 20 + 30 * rand(n, 1 + n_time), 0.5 + rand(n, 1 + n_time)
    t = torch.logspace(-4, -2, n_time, **D)
    series = TimeSeries(asu, t, F, sigma, ("dark", *(f"{x:g}" for x in t.tolist())))
    return br.Experiment(name, series, states, T)


@pytest.fixture(scope="module")
def experiments():
    return [experiment(e, x, n, i) for i, (e, x, n) in enumerate(zip(NAMES, T, (3, 4), strict=True))]


def log_probs(model, args, values):
    with pyro.validation_enabled(False):
        trace = poutine.trace(poutine.condition(model, data=values)).get_trace(*args)
    trace.compute_log_prob()
    return {k: s["log_prob"].sum() for k, s in trace.nodes.items() if s["type"] == "sample"}, trace.nodes


def drawn(model, args):
    pyro.set_rng_seed(3)
    nodes = poutine.trace(model).get_trace(*args).nodes
    return {k: s["value"] for k, s in nodes.items() if s["type"] == "sample" and not s["is_observed"]
            and not k.startswith("hkl")}  # fmt: skip


@pytest.mark.parametrize(
    "design",
    [br.Design(), br.Design("box", {"width": (1e-4, 2.0)}, None, ("B->C",), "inferred", uneven=True)],
    ids=["plain", "all"],
)
def test_two_experiments_are_two_pages(experiments, design):
    links = br.RateLinks(K.rates, NAMES, "arrhenius", T)
    args = (experiments, K, links, design)
    values = drawn(kinetic_experiments.model, args)
    found, nodes = log_probs(kinetic_experiments.model, args, values)
    beta = [1 / x - 0.5 * sum(1 / y for y in T) for x in T]
    once = {"width", "efficiency B->C"}
    for e, b in zip(experiments, beta, strict=True):
        end = f" {e.name}"
        own = {k.removesuffix(end): v for k, v in values.items() if k.endswith(end)}
        common = {k: v for k, v in values.items() if k in once}
        for name in K.rates:
            k = float(values[f"k {name}"]) * math.exp(-float(values[f"Ea {name}"]) / R * b)
            own[f"k {name}"] = torch.tensor(k, **D)
            assert float(nodes[f"k {name}{end}"]["value"]) == pytest.approx(k, rel=1e-12)
        mine, _ = log_probs(kinetic.model, (e.series, e.states, K, design), own | common)
        for site, value in mine.items():
            if site not in once and not site.startswith(("k ", "hkl", "occupancy")):
                torch.testing.assert_close(found[site + end], value)
        for site in once & set(mine):
            torch.testing.assert_close(found[site], mine[site])
    for name in K.rates:  # the prior of Ea, in full
        z = (float(values[f"Ea {name}"]) - 50) / 30
        assert float(found[f"Ea {name}"]) == pytest.approx(
            -0.5 * z**2 - math.log(30 * math.sqrt(2 * math.pi))
        )


def test_eyring_own_and_shared_rates(experiments):
    links = br.RateLinks(K.rates, NAMES, "eyring", T, own=("B->C",))
    names = set(drawn(kinetic_experiments.model, (experiments, K, links)))
    assert {"k B->C cold", "k B->C warm 2", "k C->A", "dH C->A", "activation cold"} <= names
    assert not {"k B->C", "dH B->C"} & names
    links = br.RateLinks(K.rates, NAMES)
    names = set(drawn(kinetic_experiments.model, (experiments, K, links)))
    assert {"k B->C", "k C->A"} <= names
    assert not [n for n in names if n.startswith(("dH", "Ea", "k B->C "))]


def test_one_set_of_shifts_moves_atoms_in_all(experiments):
    calls = []

    class Mover:
        def __init__(self, n_hkl):
            self.n = n_hkl

        def __len__(self):
            return 2

        def change(self, shift):
            calls.append(shift)
            return torch.zeros(self.n, dtype=torch.complex128) + shift.sum()

        def log_geometry(self, shift):
            return -0.5 * (shift**2).sum()

    moving = [replace(e, states=replace(e.states, movers={"B": Mover(len(e.series))})) for e in experiments]
    links = br.RateLinks(K.rates, NAMES)
    values = drawn(kinetic_experiments.model, (moving, K, links))
    assert values["shift B"].shape == (2, 3)
    assert len(calls) == 2
    assert torch.equal(calls[0], calls[1])
    found, _ = log_probs(kinetic_experiments.model, (moving, K, links), values)
    assert float(found["geometry B"]) == pytest.approx(-0.5 * float((values["shift B"] ** 2).sum()))
