"""The Gaussian with the averaged mean and widths: its algebra, and a posterior that is known."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sparse
import torch

from bayesref.refinement import variational
from bayesref.refinement.structured_gaussian import StructuredGaussian

N, M = 5, 2  # atoms, global parameters


def gaussian(seed=0, coupled=0.3):
    """A law of 4 N + M parameters, and its H dense."""
    g = np.random.default_rng(seed)
    A = g.standard_normal((4 * N + M, 4 * N + M))
    H = A @ A.T / (4 * N) + np.diag(g.uniform(1, 4, 4 * N + M))
    H[: 4 * N, 4 * N :] *= coupled
    H[4 * N :, : 4 * N] *= coupled
    P, C, Q = sparse.csc_matrix(H[: 4 * N, : 4 * N]), H[: 4 * N, 4 * N :], H[4 * N :, 4 * N :]
    return StructuredGaussian.of(P, C, Q), H


@pytest.mark.parametrize("width", [1.0, 0.6])
def test_algebra_against_dense_matrices(width):
    law, H = gaussian()
    direction = np.zeros(len(H))
    direction[3 : 4 * N : 4] = 1.0
    factors = np.random.default_rng(1).uniform(0.7, 1.4, 4 * N)
    law = replace(law.with_mode(direction), width=width).scaled(factors)
    scale = np.diag(np.concatenate([factors, np.ones(M)]))
    S = np.linalg.inv(H)
    w = S @ direction / np.sqrt(direction @ S @ direction)
    dense = scale @ (S + (width**2 - 1) * np.outer(w, w)) @ scale
    x = np.random.default_rng(2).standard_normal((len(H), 3))
    np.testing.assert_allclose(law.covariance(x), dense @ x, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(law.precision(x), np.linalg.solve(dense, x), rtol=1e-8, atol=1e-9)
    L = law.dense_root()
    np.testing.assert_allclose(L @ L.T, dense, rtol=1e-9, atol=1e-12)
    draws = law.draw(20000, seed=4)
    spread = np.sqrt(np.outer(dense.diagonal(), dense.diagonal()))
    assert np.abs(draws @ draws.T / 20000 - dense).max() < 5 / 20000**0.5 * spread.max()


class _Known:
    """log p of a vector z whose every element is `law` apart, in place of a refinement."""

    def __init__(self, H, shift):
        self.H, self.shift = torch.from_numpy(H), torch.from_numpy(shift)

    def value_and_grad(self, z, sites=None):
        d = z - self.shift
        return float(-0.5 * d @ self.H @ d), -self.H @ d


def test_a_gaussian_posterior_is_found_from_a_wrong_start(monkeypatch):
    """Widths of a start that is wrong by up to 30 % and a mean that is off: both as they are in the posterior."""
    monkeypatch.setattr(variational, "width_of_shared_B", lambda *a: (0.0, 1.0))
    monkeypatch.setattr(variational, "DRAWS", 2000)
    law, H = gaussian(coupled=0.1)
    g = np.random.default_rng(5)
    s = np.concatenate([np.repeat(g.uniform(0.9, 1.2, N), 4), np.ones(M)])
    s[3 : 4 * N : 4] = g.uniform(0.85, 1.2, N)
    P = sparse.csc_matrix((H / np.outer(s, s))[: 4 * N, : 4 * N])
    start = StructuredGaussian.of(P, law.C / s[: 4 * N, None], law.Q)
    target = _Known(H, g.uniform(-0.4, 0.4, len(H)))
    rows = torch.arange(len(H))
    found, stiff, z = variational.nearest(target, torch.zeros(len(H), dtype=torch.float64), rows, start, None)
    truth = np.linalg.inv(H).diagonal() ** 0.5
    sd = (found.dense_root() ** 2).sum(1) ** 0.5
    np.testing.assert_allclose(stiff.covariance(np.eye(len(H))), start.covariance(np.eye(len(H))))
    before = (start.dense_root() ** 2).sum(1) ** 0.5
    apart = np.arange(4 * N) % 4 != 3  # of log B what all share keeps its width
    assert (np.abs(z.numpy() - target.shift.numpy()) / truth).max() < 0.12
    assert (np.abs(target.shift.numpy()) / truth).max() > 0.5
    assert np.abs(np.log(sd / truth))[: 4 * N][apart].max() < 0.05
    assert np.abs(np.log(before / truth))[: 4 * N][apart].max() > 0.12


def test_noise_of_few_draws_does_not_change_widths():
    """Draws whose e has nothing to do with x: Λ is 1 but for what other parameters add."""
    g = np.random.default_rng(6)
    x, move = g.standard_normal((400, 16)), 0.05 * g.standard_normal((400, 16))
    factors = variational._factors(x, move, 400)
    assert np.abs(factors - 1).max() < 0.02
