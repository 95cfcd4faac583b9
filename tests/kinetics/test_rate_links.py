"""Rates of several experiments: the laws as textbooks write them, and links that cannot be."""

import math

import pytest
import torch

from bayesref._checks import InputError
from bayesref.kinetics.rate_links import RateLinks
from bayesref.kinetics.temperature import activation_entropy, line_through

D = {"dtype": torch.float64}
NAMES = ("277 K", "293 K", "301 K")
T = (277.0, 293.0, 301.0)
RATES = ("B->C", "C->A")
VALUES = {"k B->C": torch.tensor(900.0, **D), "k C->A": torch.tensor(80.0, **D)}


def test_arrhenius_rates_lie_on_the_line_of_their_energy():
    links = RateLinks(RATES, NAMES, "arrhenius", T)
    values = VALUES | {"Ea B->C": torch.tensor(45.0, **D), "Ea C->A": torch.tensor(-5.0, **D)}
    rates = links.rates_of(values)
    assert 1 / links.T_ref == pytest.approx(sum(1 / x for x in T) / 3)
    for name, Ea in (("B->C", 45.0), ("C->A", -5.0)):
        log_A, slope = line_through(T, [k[name] for k in rates])
        assert slope == pytest.approx(Ea, abs=1e-9)
        at_reference = math.exp(log_A - 1e3 * Ea / (8.31446261815324 * links.T_ref))
        assert at_reference == pytest.approx(float(VALUES[f"k {name}"]), rel=1e-9)


def test_eyring_rates_have_the_entropy_that_is_told():
    links = RateLinks(RATES, NAMES, "eyring", T)
    values = VALUES | {"dH B->C": torch.tensor(40.0, **D), "dH C->A": torch.tensor(55.0, **D)}
    dS = activation_entropy(VALUES["k B->C"], values["dH B->C"], links.T_ref)
    for x, k in zip(T, links.rates_of(values), strict=True):
        kT_h = 1.380649e-23 * x / 6.62607015e-34
        expected = kT_h * math.exp(float(dS) / 8.31446261815324 - 40e3 / (8.31446261815324 * x))
        assert float(k["B->C"]) == pytest.approx(expected, rel=1e-9)
    at = links.at("C->A", values, links.T_ref)
    assert float(at) == pytest.approx(80.0, rel=1e-9)


def test_own_and_shared_rates():
    links = RateLinks(RATES, NAMES, own=("C->A",))
    own = {f"k C->A {e}": torch.tensor(10.0 * (i + 1), **D) for i, e in enumerate(NAMES)}
    rates = links.rates_of(VALUES | own)
    assert [float(k["C->A"]) for k in rates] == [10, 20, 30]
    assert [float(k["B->C"]) for k in rates] == [900, 900, 900]
    assert (links.common, links.activated, links.slope) == (("B->C",), (), "")
    law = RateLinks(RATES, NAMES, "arrhenius", T, shared=("B->C",))
    assert law.activated == ("C->A",)
    rates = law.rates_of(VALUES | {"Ea C->A": torch.tensor(50.0, **D)})
    assert [float(k["B->C"]) for k in rates] == [900, 900, 900]
    assert float(rates[0]["C->A"]) < 80 < float(rates[2]["C->A"])


def test_draws_keep_their_axis():
    links = RateLinks(RATES, NAMES, "eyring", T)
    values = {"k B->C": torch.rand(5, 1, **D) + 1, "dH B->C": torch.rand(5, 1, **D)}
    assert links.at("B->C", values, torch.linspace(270, 310, 7, **D)).shape == (5, 7)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((RATES, ("a",)), "two or more of different names"),
        ((RATES, ("a", "a")), "two or more of different names"),
        ((RATES, NAMES, "", (), ("A->B",)), "no rate A->B to link; the scheme has B->C, C->A"),
        ((RATES, NAMES, "", (), ("B->C",), ("B->C",)), "both shared and each experiment's own"),
        ((RATES, NAMES, "van 't Hoff", T), "expected arrhenius or eyring"),
        ((RATES, NAMES, "arrhenius", T[:2]), "expected one above 0 K for each"),
        ((RATES, NAMES, "arrhenius", (277.0, -4.0, 20.0)), "expected one above 0 K for each"),
        ((RATES, NAMES, "arrhenius", (277.0, 277.0, 277.0)), "All experiments are at 277 K"),
    ],
)
def test_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        RateLinks(*arguments)
