"""Designs of experiments: each part does what the formula says, and what is impossible is refused."""

import pytest
import torch

from bayesref._checks import InputError
from bayesref.kinetics.design import Design
from bayesref.kinetics.kinetics import Kinetics
from bayesref.kinetics.response import (
    BoxResponse,
    ExponentialGaussianResponse,
    GaussianResponse,
    HistogramResponse,
)

D = {"dtype": torch.float64}
T = torch.tensor([1e-4, 5e-4, 2e-3, 1e-2], **D)
K = Kinetics("B -> C, C -> A", ground="A", start="B", returns={"B->C": "A"})
VALUES = {
    "k B->C": torch.tensor(900.0, **D),
    "k C->A": torch.tensor(80.0, **D),
    "activation": torch.tensor(0.3, **D),
}
RATES = {"B->C": 900.0, "C->A": 80.0}


@pytest.mark.parametrize(
    ("design", "response"),
    [
        (Design("gaussian", {"width": ("100us", 1.0)}), GaussianResponse(1e-4)),
        (Design("box", {"width": ("1ms", 1.0)}), BoxResponse(1e-3)),
        (
            Design("exgaussian", {"width": ("1e-4 s", 1.0), "tail": ("2e-4 s", 1.0)}),
            ExponentialGaussianResponse(1e-4, 2e-4),
        ),
    ],
)
def test_response(design, response):
    expected = K.occupancies(RATES, T, activation=0.3, response=response)
    torch.testing.assert_close(design.occupancies(K, VALUES, T), expected)


def test_an_inferred_width_takes_the_place_of_the_expected_one():
    design = Design("gaussian", {"width": ("100us", 2.0)})
    found = design.occupancies(K, VALUES | {"width": torch.tensor(3e-4, **D)}, T)
    torch.testing.assert_close(
        found, K.occupancies(RATES, T, activation=0.3, response=GaussianResponse(3e-4))
    )


def test_losses_and_unreacted_molecules():
    design = Design(efficiencies=("B->C",), unreacted={"C": 0.1})
    found = design.occupancies(K, VALUES | {"efficiency B->C": torch.tensor(0.4, **D)}, T)
    u = torch.tensor([{"A": 0.9, "B": 0.0, "C": 0.1}[s] for s in K.occupied], **D)
    expected = K.occupancies(RATES, T, activation=0.3, efficiencies={"B->C": 0.4}, unreacted=u)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(-1), torch.ones(4, **D))


def test_uneven_light_moves_the_share_at_each_delay():
    values = VALUES | {
        "unevenness": torch.tensor(0.5, **D),
        "uneven": torch.tensor([0.0, 1.0, -1.0, 2.0], **D),
    }
    found = Design(uneven=True).occupancies(K, values, T)
    alpha = torch.sigmoid(torch.logit(torch.tensor(0.3, **D)) + torch.tensor([0.0, 0.5, -0.5, 1.0], **D))
    torch.testing.assert_close(found, K.occupancies(RATES, T, activation=alpha))
    many = {k: v.expand(5, *v.shape) for k, v in values.items()}
    torch.testing.assert_close(Design(uneven=True).occupancies(K, many, T.expand(5, 4))[3], found)


def test_a_measured_histogram():
    h = HistogramResponse(torch.tensor([-1e-4, 0.0, 1e-4], **D), torch.tensor([1.0, 3.0], **D))
    found = Design("histogram", histogram=h).occupancies(K, VALUES, T)
    torch.testing.assert_close(found, K.occupancies(RATES, T, activation=0.3, response=h))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Design("square"), "no response 'square'"),
        (lambda: Design("gaussian"), "takes width"),
        (lambda: Design("none", {"width": (1.0, 1.0)}), "takes no width"),
        (lambda: Design("box", {"width": (1.0, 0.5)}), "factor of at least 1"),
        (lambda: Design("histogram"), "needs its histogram"),
        (lambda: Design(unreacted={"D": 0.1}).occupancies(K, VALUES, T), "said to be in 'D'"),
        (lambda: Design(unreacted={"B": 1.1}).occupancies(K, VALUES, T), "sum up to one"),
    ],
)
def test_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
