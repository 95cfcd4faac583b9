"""Σ(s) recovered from simulated intensities: strong, weak, negative, few, anisotropic, with outliers."""

import numpy as np
import pytest
import torch

from bayesref._checks import InputError
from bayesref.distributions import Wilson, wilson_sigma

D = {"dtype": torch.float64}


def _truth(stol2):
    """A protein-like curve: B = 25 Å², a dip at 6 Å and a hump at 4.5 Å."""
    s = stol2.sqrt()
    dip = -0.6 * torch.exp(-0.5 * ((s - 1 / 12) / 0.012) ** 2)
    hump = 0.5 * torch.exp(-0.5 * ((s - 1 / 9) / 0.015) ** 2)
    return 300 * torch.exp(-2 * 25 * stol2 + dip + hump)


def _crystal(n, noise=0.1, d_min=1.8):
    """Intensities of n reflections uniform in reciprocal space, SIGI = noise × Σ at 3 Å."""
    s_max = 0.5 / d_min
    stol2 = ((torch.rand(n, **D) * (1 - 1e-4) + 1e-4) ** (1 / 3) * s_max) ** 2
    epsilon = torch.where(torch.rand(n) < 0.05, 2.0, 1.0).double()
    centric = torch.rand(n) < 0.15
    Sigma = _truth(stol2)
    SIGI = torch.full((n,), noise, **D) * float(_truth(torch.tensor(1 / 36, **D)))
    I = Wilson(epsilon, centric, Sigma).sample() ** 2 + SIGI * torch.randn(n, **D)
    return {"I": I, "SIGI": SIGI, "stol2": stol2, "epsilon": epsilon, "centric": centric}, Sigma


def _error(x, truth):
    """Root mean square of log Σ/Σ_true."""
    return float((x / truth).log().square().mean().sqrt())


@pytest.mark.parametrize(("noise", "limit"), [(0.01, 0.08), (0.3, 0.1), (3.0, 0.3)])
def test_recovers_the_curve(noise, limit):
    data, truth = _crystal(6000, noise)
    if noise == 3.0:
        assert (data["I"] < 0).double().mean() > 0.3
    assert _error(wilson_sigma(**data), truth) < limit


def test_better_than_a_mean_in_bins():
    data, truth = _crystal(6000, 1.0)
    order = data["stol2"].argsort()
    bins = torch.empty_like(truth)
    for rows in order.chunk(20):
        bins[rows] = (data["I"] / data["epsilon"])[rows].mean().clamp(min=1e-3)
    assert _error(wilson_sigma(**data), truth) < 0.5 * _error(bins, truth)


def test_outliers_and_very_negative_intensities():
    data, truth = _crystal(3000, 0.1)
    data["I"][::100] = 1e5
    data["I"][50::300] = -50 * data["SIGI"][0]
    assert _error(wilson_sigma(**data), truth) < 0.12


@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_few_reflections(n):
    data, truth = _crystal(n)
    got = wilson_sigma(**data)
    assert got.isfinite().all()
    assert (got > 0).all()
    if n == 30:
        assert _error(got, truth) < 0.6


def test_nothing_but_noise():
    data, _ = _crystal(500)
    Sigma = wilson_sigma(**{**data, "I": data["SIGI"] * torch.randn(500, **D)})
    assert Sigma.isfinite().all()
    assert (Sigma > 0).all()
    assert Sigma.mean() < data["SIGI"][0]


def test_scale():
    data, _ = _crystal(500)
    once = wilson_sigma(**data)
    more = wilson_sigma(**{**data, "I": 1e7 * data["I"], "SIGI": 1e7 * data["SIGI"]})
    torch.testing.assert_close(more, 1e7 * once, rtol=1e-6, atol=0)


def test_direction():
    data, truth = _crystal(6000, 0.1)
    direction = torch.nn.functional.normalize(torch.randn(6000, 3, **D), dim=1)
    s = direction * data["stol2"].sqrt()[:, None]
    B = torch.tensor([12.0, -4.0, -8.0], **D)  # traceless
    factor = torch.exp(-2 * (s**2 * B).sum(1))
    SIGI = data["SIGI"]
    I = data["I"] * factor
    bent = {**data, "I": I, "SIGI": SIGI * factor}
    assert _error(wilson_sigma(**bent, s=s), truth * factor) < 0.08
    assert _error(wilson_sigma(**bent), truth * factor) > 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"I": torch.zeros(5, **D)}, "No intensity"),
        ({"stol2": torch.zeros(5, **D)}, "stol2 must be above zero"),
        ({"SIGI": torch.ones(4, **D)}, "SIGI has shape"),
        ({"s": torch.ones(5, 2, **D)}, "s has shape"),
    ],
)
def test_bad_input(change, message):
    one = torch.ones(5, **D)
    good = {"I": one, "SIGI": one, "stol2": one / 36, "epsilon": one, "centric": one > 0}
    with pytest.raises(InputError, match=message):
        wilson_sigma(**{**good, **change})


def test_smooth_in_resolution():
    data, _ = _crystal(4000, 0.5)
    order = np.argsort(data["stol2"].numpy())
    log_Sigma = wilson_sigma(**data).log().numpy()[order]
    assert np.abs(np.diff(log_Sigma)).max() < 0.3
