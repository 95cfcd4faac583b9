"""Compiled Bessel functions against scipy, from nothing to where only the asymptotic law is left."""

import numpy as np
import pytest
from scipy.special import i0e, i1e

from bayesref.distributions import _rice_table
from bayesref.distributions._bessel import bessel

X = np.concatenate([np.linspace(0, 30, 1001), np.logspace(-9, 9, 500)])


@pytest.mark.parametrize(("function", "error"), [(bessel, 2e-13), (_rice_table._bessel, 1e-8)])
def test_against_scipy(function, error):
    log_i0, ratio = np.array([function(x) for x in X]).T
    np.testing.assert_allclose(log_i0, np.log(i0e(X)), rtol=1e-14 + 1e-2 * error, atol=error)
    np.testing.assert_allclose(ratio, i1e(X) / i0e(X), rtol=0, atol=error)


def test_limits():
    log_i0, ratio = bessel(1e300)
    assert log_i0 == pytest.approx(-0.5 * np.log(2 * np.pi * 1e300), rel=1e-14)
    assert ratio == pytest.approx(1.0, abs=1e-14)
    assert bessel(0.0) == pytest.approx((0.0, 0.0), abs=1e-14)
