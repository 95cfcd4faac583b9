"""Restraints of ellipsoids: a density with exact slopes, positive definite tensors, Hessians of differences."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.autograd import gradcheck

from bayesref.crystal.atoms import B_PER_U, symmetric
from bayesref.restraints import adp
from bayesref.restraints.adp import EllipsoidRestraints, logarithm, six, tensors
from bayesref.restraints.bfactor import ONE_BOND, Similar


@pytest.fixture
def shapes(molecules):
    crystal, restraints = molecules
    loose = torch.zeros(12, dtype=torch.bool)
    return EllipsoidRestraints.of(restraints.similar, crystal.xyz, loose)


@pytest.fixture
def start():
    g = torch.Generator().manual_seed(0)
    B = 10 + 20 * torch.rand(12, generator=g, dtype=torch.float64)
    return B, 0.3 * torch.randn(12, 5, generator=g, dtype=torch.float64)


def test_the_basis_is_orthonormal_and_traceless():
    E = symmetric(adp.BASIS)
    torch.testing.assert_close(torch.einsum("kxy,lxy->kl", E, E), torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close(E.diagonal(dim1=1, dim2=2).sum(1), torch.zeros(5, dtype=torch.float64))


def test_every_shape_is_positive_definite_and_comes_back(start):
    B, a = start
    U = tensors(B, 8 * a)  # axes that differ by many factors of e
    assert (torch.linalg.eigvalsh(U) > 0).all()
    # the size is the geometric mean of the axes
    torch.testing.assert_close(torch.linalg.det(U), (B / B_PER_U) ** 3)
    size, shape = logarithm(six(tensors(B, a)))
    torch.testing.assert_close(size, B)
    torch.testing.assert_close(shape, a)
    torch.testing.assert_close(symmetric(six(U)), U)


def test_log_density_is_that_of_its_factors(shapes, start):
    B, a = start
    i, j = shapes.similar.atoms.T
    wide = (shapes.similar.sigma / ONE_BOND).numpy()
    U, l = tensors(B, a), shapes.direction
    along = [torch.einsum("px,pxy,py->p", l, U[k], l).log().numpy() for k in (i, j)]

    def factors(tau_A, tau_R):
        pairs = stats.norm(0, adp.ALIKE * wide[:, None] * tau_A).logpdf((a[i] - a[j]).numpy()).sum()
        round_ = stats.norm(0, adp.ROUND * tau_A).logpdf(a.numpy()).sum()
        return pairs + round_ + stats.norm(0, adp.RIGID * wide * tau_R).logpdf(along[0] - along[1]).sum()

    def constant(tau_A, tau_R):
        n, p = a.numel(), len(i)
        return -(5 * p + n) * np.log(tau_A) - p * np.log(tau_R)

    ours = float(shapes.log_density(B, a, (4.0, 2.25))) - float(shapes.log_density(B, a))
    assert ours == pytest.approx(factors(2, 1.5) - factors(1, 1) - constant(2, 1.5))


def test_slopes(shapes, start):
    B, a = (x.requires_grad_() for x in start)
    assert gradcheck(lambda B, a: shapes.log_density(B, a, (0.7, 1.3)), (B, a))


def test_hessians(shapes, start):
    B, a = start
    exact = torch.autograd.functional.hessian(
        lambda x: 0.5 * sum(s.square().sum() for s in shapes.scores(x)), a
    ).numpy()
    H = shapes.hessian_shape(12).toarray()
    for k in range(5):
        np.testing.assert_allclose(exact[:, k, :, k], H, atol=1e-9)

    def rigid(x):
        return shapes.rigid_scores(x[:, 0].exp(), x[:, 1:])

    x = torch.cat([B.log()[:, None], a], 1)
    J = torch.autograd.functional.jacobian(rigid, x).reshape(len(shapes.direction), -1).numpy()
    np.testing.assert_allclose(shapes.hessian_rigid(B, a).toarray(), J.T @ J, atol=1e-7)


def test_only_motion_along_the_bond_meets_the_rigid_bond():
    pair = Similar(torch.tensor([[0, 1]]), torch.tensor([ONE_BOND], dtype=torch.float64))
    xyz = torch.tensor([[0.0, 0, 0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    shapes = EllipsoidRestraints.of(pair, xyz, torch.zeros(2, dtype=torch.bool))
    U = torch.zeros(2, 6, dtype=torch.float64)
    U[:, :3] = 0.2
    across = U + 0.1 * torch.tensor([[0.5, 0.5, 0, -0.5, 0, 0], [0] * 6], dtype=torch.float64)
    along = U + 0.1 * torch.tensor([[0.5, 0.5, 0, 0.5, 0, 0], [0] * 6], dtype=torch.float64)
    assert float(shapes.rigid_scores(*logarithm(across)).abs()) < 1e-9
    assert float(shapes.rigid_scores(*logarithm(along))) == pytest.approx(np.log(0.3 / 0.2) / adp.RIGID)


def test_nothing_draws_all_displacements_to_zero(shapes, start):
    B, a = start
    assert float(shapes.log_density(3 * B, a)) == pytest.approx(float(shapes.log_density(B, a)))
