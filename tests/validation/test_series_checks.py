"""Predictive checks and prior sensitivity: against data from the model, data that are not, and normal laws."""

import numpy as np
import pytest

from bayesref.validation.predictive import difference_sizes, predictive_checks
from bayesref.validation.sensitivity import prior_sensitivity


def series(g, n, change):
    dark = g.gamma(2.0, 5.0, 400)
    F = np.stack([dark, dark + change * g.standard_normal(400)], 1)
    return np.stack([F + g.standard_normal(F.shape) for _ in range(n)])


def test_the_size_of_noise_alone_is_one():
    g = np.random.default_rng(1)
    F = series(g, 50, 0.0)
    sizes = difference_sizes(F, np.ones((400, 2)))
    assert sizes.shape == (50, 1)
    assert sizes.mean() == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(difference_sizes(F * [1.0, 3.0], np.ones((400, 2)) * [1.0, 3.0]), sizes)


def test_missing_reflections_do_not_count():
    g = np.random.default_rng(2)
    F, s = series(g, 1, 0.0)[0], np.ones((400, 2))
    F[:100, 1], s[:100, 1] = 1e6, np.inf
    assert difference_sizes(F, s)[0] == pytest.approx(difference_sizes(F[100:], s[100:])[0])


def test_checks_tell_a_model_that_fails():
    g = np.random.default_rng(3)
    replicates, s = series(g, 200, 0.0), np.ones((400, 2))
    good = predictive_checks(series(g, 1, 0.0)[0], s, replicates, [1e-3])[0]
    bad = predictive_checks(series(g, 1, 1.5)[0], s, replicates, [1e-3])[0]
    assert 0.01 < good["p"] < 0.99
    assert bad["p"] == 0
    assert bad["observed"] > bad["high"]


def test_a_prior_that_is_all_there_is_matters_and_one_that_is_flat_does_not():
    g = np.random.default_rng(4)
    x = g.standard_normal(4000)
    wide, same = -0.5 * (x / 30) ** 2, -0.5 * x**2
    rows = {
        r["parameter"]: r for r in prior_sensitivity({"told": x, "prior": x}, {"told": wide, "prior": same})
    }
    assert not rows["told"]["matters"]
    assert rows["prior"]["matters"]
    assert rows["prior"]["sd_ratio_2"] == pytest.approx(2**-0.5, rel=0.05)
    assert rows["told"]["sd_ratio_0.5"] == pytest.approx(1, rel=0.02)


def test_the_shift_is_that_of_normal_laws():
    """Data N(1, 1) on a prior N(0, 1): posterior N(½, ½); with the prior squared N(⅓, ⅓)."""
    g = np.random.default_rng(5)
    x = 0.5 + 0.5**0.5 * g.standard_normal(20_000)
    row = prior_sensitivity({"m": x}, {"m": -0.5 * x**2})[0]
    assert row["shift_2"] == pytest.approx((1 / 3 - 1 / 2) / 0.5**0.5, abs=0.03)
    assert row["sd_ratio_2"] == pytest.approx((2 / 3) ** 0.5, abs=0.02)
