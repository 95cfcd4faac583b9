"""Interpolation kernels against what defines them."""

import numpy as np
import pytest
import torch
from numpy.polynomial import Polynomial
from scipy.special import i0

from bayesref._checks import InputError
from bayesref.fourier.kernels import CUBIC, LINEAR, NEAREST, get_kernel, kaiser_bessel, squared

EVERY = [NEAREST, LINEAR, CUBIC, kaiser_bessel(4, 1.25), kaiser_bessel(6, 2.0), kaiser_bessel(8, 2.0)]


def values(kernel, f):
    """Weights of all taps at fractions f: (taps, f)."""
    return np.stack([Polynomial(row)(np.asarray(f) - 0.5) for row in kernel.table])


@pytest.mark.parametrize("kernel", [NEAREST, LINEAR, CUBIC], ids=lambda k: k.name)
def test_interpolating_kernels_sum_to_one(kernel):
    np.testing.assert_allclose(values(kernel, np.linspace(0, 1, 11)).sum(0), 1, rtol=0, atol=1e-15)


def test_cubic_reproduces_quadratics():
    f = np.linspace(0, 1, 7)
    for power in range(3):
        at_taps = np.arange(-1.0, 3.0) ** power
        np.testing.assert_allclose(at_taps @ values(CUBIC, f), f**power, atol=1e-14)


@pytest.mark.parametrize("taps", [4, 6, 8])
def test_kaiser_bessel_is_its_window(taps):
    kernel = kaiser_bessel(taps, 1.5)
    beta = 1.1 * np.pi * np.sqrt((taps / 1.5) ** 2 - 0.8)
    f = np.linspace(0, 1, 33)
    d = f + taps / 2 - 1 - np.arange(taps)[:, None]
    window = (i0(beta * np.sqrt(1 - (2 * d / taps) ** 2)) - 1) / (i0(beta) - 1)
    np.testing.assert_allclose(values(kernel, f), window, atol=1e-11)


@pytest.mark.parametrize("kernel", EVERY[1:], ids=lambda k: k.name)
def test_kernels_are_continuous(kernel):
    left, right = values(kernel, 1.0), values(kernel, 0.0)
    np.testing.assert_allclose(left[1:], right[:-1], atol=1e-10)
    np.testing.assert_allclose([left[0], right[-1]], 0, atol=1e-10)


def test_apodisation_of_known_kernels():
    r = np.linspace(-0.5, 0.5, 9)
    np.testing.assert_allclose(NEAREST.apodisation(r), np.sinc(r), atol=1e-14)
    np.testing.assert_allclose(LINEAR.apodisation(r), np.sinc(r) ** 2, atol=1e-14)


def test_squared_kernel():
    f = np.linspace(0, 1, 5)
    np.testing.assert_allclose(values(squared(CUBIC), f), values(CUBIC, f) ** 2, atol=1e-14)


def test_names_and_errors():
    assert get_kernel("kb4", 1.25).taps == 4
    assert get_kernel(CUBIC) is CUBIC
    with pytest.raises(InputError, match="choose nearest"):
        get_kernel("quintic")
    with pytest.raises(InputError, match="oversampling"):
        get_kernel("kb4", 1.0)
    assert isinstance(torch.tensor(CUBIC.table), torch.Tensor)
