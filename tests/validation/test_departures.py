"""Rates that are tied as said depart by chance alone; others are found out."""

import numpy as np
import pytest
from scipy.stats import kstest

from bayesref.kinetics.rate_links import RateLinks
from bayesref.validation.departures import departures

R = 8.31446261815324e-3
T = np.array([277.0, 285.0, 293.0, 301.0])
NAMES = tuple(f"{t:g} K" for t in T)
SD = np.array([0.1, 0.2, 0.15, 0.1])


def draws(log_k, g):
    """Draws of each experiment by itself, about a mean that itself has erred by one standard deviation."""
    mean = log_k + SD * g.standard_normal(len(T))
    z = g.standard_normal((len(T), 400))
    z = (z - z.mean(1, keepdims=True)) / z.std(1, keepdims=True)
    return [{"k B->A": np.exp(m + s * x)} for m, s, x in zip(mean, SD, z, strict=True)]


@pytest.mark.parametrize(
    ("law", "log_k", "dof"),
    [
        ("arrhenius", 5 - 60 / R * (1 / T - 1 / 288), 2),
        ("eyring", np.log(T) - 60 / R * (1 / T - 1 / 288), 2),
        ("", np.full(4, 5.0), 3),
    ],
)
def test_p_is_uniform_where_the_tie_holds(law, log_k, dof):
    g = np.random.default_rng(1)
    links = RateLinks(("B->A",), NAMES, law, tuple(T))
    rows = [departures(links, draws(log_k, g))[0] for _ in range(300)]
    assert {r["dof"] for r in rows} == {dof}
    assert kstest([r["p"] for r in rows], "uniform").pvalue > 0.01


def test_departures_are_found():
    g = np.random.default_rng(2)
    bent = 5 - 60 / R * (1 / T - 1 / 288) + np.array([0, 0.7, 0.7, 0])
    assert departures(RateLinks(("B->A",), NAMES, "arrhenius", tuple(T)), draws(bent, g))[0]["p"] < 1e-3
    rising = 5 - 60 / R * (1 / T - 1 / 288)
    assert departures(RateLinks(("B->A",), NAMES), draws(rising, g))[0]["p"] < 1e-6


def test_nothing_to_say():
    g = np.random.default_rng(3)
    two = RateLinks(("B->A",), NAMES[:2], "arrhenius", tuple(T[:2]))
    assert departures(two, draws(np.zeros(4), g)[:2]) == []
    assert departures(RateLinks(("B->A",), NAMES, own=("B->A",)), draws(np.zeros(4), g)) == []
    assert departures(RateLinks(("B->A",), NAMES), [{}] * 4) == []
