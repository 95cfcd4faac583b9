"""The averaged Gaussian of log B, against the same averages by brute force for one atom."""

import numpy as np
import pytest
import scipy.sparse as sparse
import torch

from bayesref.refinement import expected_b
from bayesref.refinement.curvature import Factor
from bayesref.refinement.expected_b import averaged


class _Atoms:
    """As much of a target as is asked for: one atom, one shell."""

    def __init__(self, B):
        values = {"xyz": torch.zeros(1, 3), "B": torch.tensor([B], dtype=torch.float64)}
        self.latents = type("Latents", (), {"unpack": lambda self, z: values})()
        model = {"with_parameters": lambda self, *a: None, "factors": None}
        self.atoms = type("Model", (), model)()


@pytest.mark.parametrize("sharp", [30.0, 3000.0])
def test_one_atom_against_quadrature(monkeypatch, sharp):
    """Minimum of KL(q | p) over mean and width of q, found on a grid."""
    B, s2, prior = 12.0, np.array([0.05]), 4.0
    monkeypatch.setattr(expected_b, "shell_weights", lambda target, z: (s2, np.array([sharp])))
    monkeypatch.setattr(expected_b, "_amplitudes", lambda *a: np.ones((1, 1)))
    x = np.linspace(-6, 4, 4001)
    f = 0.5 * sharp * (np.exp(-(np.exp(x) - 1) * B * s2[0]) - 1) ** 2 + 0.5 * prior * x**2
    P = sparse.diags([1.0, 1.0, 1.0, sharp * (B * s2[0]) ** 2 + prior]).tocsc()
    _, factor, delta = averaged(_Atoms(B), None, P, Factor(P))
    best = min(
        (float((q * (f + np.log(q + 1e-300))).sum()), m, s)
        for m in np.linspace(-0.5, 0.2, 141) for s in np.linspace(0.01, 0.5, 99)
        for q in [np.exp(-0.5 * ((x - m) / s) ** 2) / np.exp(-0.5 * ((x - m) / s) ** 2).sum()]
    )  # fmt: skip
    found = float(factor.solve(np.array([0.0, 0, 0, 1]))[3]) ** 0.5
    assert delta[3] == pytest.approx(best[1], abs=0.03)
    assert found == pytest.approx(best[2], rel=0.12)
    np.testing.assert_array_equal(delta[:3], 0.0)
