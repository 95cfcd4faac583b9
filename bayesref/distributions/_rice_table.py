"""Rice's and Woolfson's laws from a table of Bessel functions, for integrals in two dimensions.

log I₀(x) - x and I₁/I₀ to 1e-8: without the logarithm that `_bessel` takes for 1e-13
"""

import numpy as np
from numba import njit
from scipy.special import i0e, i1e

_STEPS, _LAST = (
    32,
    40,
)  # of the table of Bessel functions: per unit of x, and where the series in 1/x takes over
_X = np.arange(_STEPS * _LAST + 2) / _STEPS
_LOG_I0, _M = np.log(i0e(_X)), i1e(_X) / i0e(_X)


@njit(cache=True)
def _bessel(x):
    """log I₀(x) - x and I₁/I₀, to 1e-8: Hermite's interpolation, then the asymptotic series."""
    if x >= _LAST:
        u = 1 / x
        log_i0 = -0.5 * np.log(2 * np.pi * x) + u * (0.125 + u * (0.0625 + u * (25 / 384 + u * 13 / 128)))
        return log_i0, 1 - u * (0.5 + u * (0.125 + u * (0.125 + u * (25 / 128 + u * 13 / 32))))
    k = int(x * _STEPS)
    t, h = x * _STEPS - k, 1.0 / _STEPS
    m0, m1 = _M[k], _M[k + 1]
    d0, d1 = 0.5 if k == 0 else 1 - m0 / _X[k] - m0 * m0, 1 - m1 / _X[k + 1] - m1 * m1
    s = 1 - t
    a, b, c, d = (1 + 2 * t) * s * s, t * s * s * h, t * t * (3 - 2 * t), -t * t * s * h
    return a * _LOG_I0[k] + b * (m0 - 1) + c * _LOG_I0[k + 1] + d * (
        m1 - 1
    ), a * m0 + b * d0 + c * m1 + d * d1


@njit(cache=True)
def _prior(F, G, V, centric):
    """log p(F) but for the factor F of acentric ones and constants in V, and m."""
    if centric:
        e = np.exp(-2 * F * G / V)
        return -0.5 * (F - G) ** 2 / V + np.log(0.5 * (1 + e)), (1 - e) / (1 + e)
    log_i0, m = _bessel(2 * F * G / V)
    return -((F - G) ** 2) / V + log_i0, m


@njit(cache=True)
def _constant(V, centric):
    return 0.5 * np.log(2 / (np.pi * V)) if centric else np.log(2 / V)


@njit(cache=True)
def _prior_slopes(F, G, V, centric):
    """First and second derivative of log p(F) in F."""
    if centric:
        m = np.tanh(F * G / V)
        return -F / V + G / V * m, -1 / V + (G / V) ** 2 * (1 - m * m)
    x = 2 * F * G / V
    m = _bessel(x)[1]
    bend = 0.5 if x < 1e-4 else 1 - m / x - m * m
    return 1 / F - 2 * F / V + 2 * G / V * m, -1 / (F * F) - 2 / V + (2 * G / V) ** 2 * bend
