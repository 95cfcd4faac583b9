"""The scale on which R factors are taken, against scipy's least squares."""

import numpy as np
import pytest
import scipy.optimize
import torch

from bayesref.refinement.r_factors import on_scale_of_data


def amplitudes(seed=0, n=400):
    g = torch.Generator().manual_seed(seed)
    s2 = torch.linspace(0.001, 0.1, n, dtype=torch.float64)
    G = 10 * torch.exp(-15 * s2) * torch.rand(n, generator=g, dtype=torch.float64).sqrt()
    return s2, G, torch.rand(n, generator=g, dtype=torch.float64)


def test_a_scale_and_fall_off_are_found_exactly():
    s2, G, _ = amplitudes()
    truth = 1.06 * torch.exp(-1.5 * s2) * G
    work = torch.arange(len(G)) % 7 != 0
    scaled = on_scale_of_data(truth, G, s2, work)
    torch.testing.assert_close(scaled, truth, rtol=1e-9, atol=1e-12)


def test_the_scale_is_that_of_least_squares_on_the_rows_that_count():
    s2, G, u = amplitudes(seed=1)
    F = 1.04 * torch.exp(0.8 * s2) * G + 0.6 * (u - 0.5)
    rows = torch.arange(len(G)) % 5 != 0
    F = torch.where(rows, F, 100.0)  # the others would pull it far away

    def residual(x):
        K = x[0] * np.exp(-x[1] * s2[rows].numpy())
        return F[rows].numpy() - K * G[rows].numpy()

    k, b = scipy.optimize.least_squares(residual, [1.0, 0.0], xtol=1e-14, ftol=1e-14, gtol=1e-14).x
    K = on_scale_of_data(F, G, s2, rows) / G
    assert K.numpy() == pytest.approx(k * np.exp(-b * s2.numpy()), rel=1e-6)


def test_a_model_that_explains_nothing_is_left_alone():
    s2, G, u = amplitudes()
    nothing = torch.zeros_like(G)
    assert bool((on_scale_of_data(u, nothing, s2, torch.ones(len(G), dtype=torch.bool)) == 0).all())
