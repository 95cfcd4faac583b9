"""The width of what all B share, against the marginal of a density whose law is known."""

import numpy as np
import pytest
import scipy.sparse as sparse
import torch

from bayesref.refinement import shared_b
from bayesref.refinement.shared_b import width_of_shared_B
from bayesref.refinement.structured_gaussian import StructuredGaussian

N = 3


class _Bent:
    """log p = -a (eᶜ - 1 - c) - ½ zᵀ H z of N atoms and one global parameter, c the mean of log B."""

    def __init__(self, a, H):
        self.a, self.H = a, torch.from_numpy(H)

    def value_and_grad(self, z, sites=None):
        z = z.clone().requires_grad_()
        c = z[3 : 4 * N : 4].mean()
        value = -self.a * (c.exp() - 1 - c) - 0.5 * z @ self.H @ z
        (g,) = torch.autograd.grad(value, z)
        return float(value.detach()), g


@pytest.mark.parametrize("a", [3.0, 30.0])
def test_a_skewed_mode_against_quadrature(monkeypatch, a):
    g = np.random.default_rng(0)
    H = np.eye(4 * N + 1) + 0.2 * np.diag(g.uniform(0, 1, 4 * N + 1))
    v = np.zeros(4 * N + 1)
    v[3 : 4 * N : 4] = 1 / N
    at_mode = H + a * np.outer(v, v)
    law = StructuredGaussian.of(
        sparse.csc_matrix(at_mode[: 4 * N, : 4 * N]), at_mode[: 4 * N, 4 * N :], at_mode[4 * N :, 4 * N :]
    ).with_mode(v)
    # |H_c| of this density is the same for every c: others are normal given c
    monkeypatch.setattr(shared_b, "precision", lambda target, z, cutoff: law.P)
    rows = torch.arange(4 * N + 1)
    z = torch.zeros(4 * N + 1, dtype=torch.float64)
    mean, sd = width_of_shared_B(_Bent(a, H), z, rows, law, None)
    c = np.linspace(-8, 5, 20001)
    prior = 1 / (v @ np.linalg.solve(H, v))  # precision of c without the skewed factor
    q = np.exp(-a * (np.exp(c) - 1 - c) - 0.5 * prior * c**2)
    q /= q.sum()
    unit = 1 / (law.read @ v / (v @ v))  # c of one standard deviation of the law
    m = q @ c
    assert mean == pytest.approx(m / unit, abs=0.02)
    assert sd == pytest.approx(np.sqrt(q @ (c - m) ** 2) / unit, rel=0.02)
    assert abs(sd - 1) > 0.01 or abs(mean) > 0.05


@pytest.fixture
def law(monkeypatch):
    """The unit law of all parameters, with the mode that B share set apart; also that of the others at every node."""
    law = StructuredGaussian.of(sparse.identity(4 * N).tocsc(), np.zeros((4 * N, 1)), np.eye(1))
    v = np.zeros(4 * N + 1)
    v[3 : 4 * N : 4] = 1.0
    monkeypatch.setattr(shared_b, "precision", lambda target, z, cutoff: law.P)
    return law.with_mode(v)


def test_nodes_that_do_not_show_the_density_change_nothing(law):
    """log p that rises to the end of the nodes: the Gaussian stays."""
    slope = law.read * 50

    class Rising:
        def value_and_grad(self, z, sites=None):
            return float(torch.from_numpy(slope) @ z), torch.from_numpy(slope)

    z = torch.zeros(4 * N + 1, dtype=torch.float64)
    assert width_of_shared_B(Rising(), z, torch.arange(4 * N + 1), law, None) == (0.0, 1.0)


def test_no_atom_is_looked_for_where_it_scatters_nothing(law):
    """log p that rises with one B for ever: its density is never asked for beyond the largest B."""
    asked = []

    class Fleeing:
        def value_and_grad(self, z, sites=None):
            asked.append(float(z[3]))
            slope = -z
            slope[3] = 5.0
            return float(-0.5 * (z @ z - z[3] ** 2) + 5.0 * z[3]), slope

    z = torch.zeros(4 * N + 1, dtype=torch.float64)
    z[3] = 6.0  # B 400 Å²
    assert width_of_shared_B(Fleeing(), z, torch.arange(4 * N + 1), law, None) == (0.0, 1.0)
    assert len(asked) > 3
    assert max(asked) <= np.log(shared_b.LARGEST_B)
