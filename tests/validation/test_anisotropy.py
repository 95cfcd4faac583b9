"""Principal B of simulated intensities."""

import gemmi
import numpy as np
import pytest

from bayesref.crystal.symmetry import epsilon
from bayesref.validation.anisotropy import anisotropy


def simulated(cell, group, B, seed=0, dmin=2.2):
    cell, group, rng = gemmi.UnitCell(*cell), gemmi.SpaceGroup(group), np.random.default_rng(seed)
    hkl = gemmi.make_miller_array(cell, group, dmin)
    s = hkl @ np.array(cell.frac.mat.tolist())
    eps = epsilon(hkl, group)
    I = eps * rng.exponential(size=len(hkl)) * np.exp(-0.5 * np.einsum("hx,xy,hy->h", s, B, s))
    return anisotropy(hkl, I, eps, cell, group)


@pytest.mark.parametrize("B", [(0, 0, 0), (20, 5, -25), (8, 8, -16)])
def test_orthorhombic(B):
    found = simulated((40, 50, 60, 90, 90, 90), "P 21 21 21", np.diag(B))
    np.testing.assert_allclose(found.B, sorted(B, reverse=True), atol=4 * found.error)
    assert found.B.sum() == pytest.approx(0, abs=1e-9)
    assert 0.1 < found.error < 1.5


def test_axes_of_a_triclinic_crystal():
    rng = np.random.default_rng(1)
    Q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    B = Q @ np.diag([15.0, 0.0, -15.0]) @ Q.T
    found = simulated((40, 50, 60, 80, 95, 100), "P 1", B)
    assert abs(found.axes[0] @ Q[:, 0]) > 0.98
    np.testing.assert_allclose(found.B, [15, 0, -15], atol=4 * found.error)


def test_symmetry_is_kept():
    found = simulated((60, 60, 40, 90, 90, 120), "P 63", np.diag([6.0, 6.0, -12.0]))
    assert found.B[0] == pytest.approx(found.B[1])
    cubic = simulated((60, 60, 60, 90, 90, 90), "P 2 3", np.diag([6.0, 6.0, -12.0]))
    np.testing.assert_allclose(cubic.B, 0, atol=1e-9)


def test_too_few():
    assert (
        anisotropy(np.ones((3, 3), int), [1, 2, 3], [1, 1, 1], gemmi.UnitCell(), gemmi.SpaceGroup("P 1"))
        is None
    )


def test_error_is_that_of_repeats():
    found = [
        simulated((30, 40, 50, 90, 90, 90), "P 21 21 21", np.diag([9.0, 0, -9]), s, 3.0) for s in range(40)
    ]
    spread = np.std([f.B[0] for f in found])
    assert np.mean([f.error for f in found]) == pytest.approx(spread, rel=0.4)
