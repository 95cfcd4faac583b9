"""Similar B factors and similar anisotropic displacements."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.autograd import gradcheck

from bayesref.restraints import bfactor


@pytest.fixture
def B():
    return torch.rand(12, dtype=torch.float64) * 20 + 10


def test_ratios_of_bonded_atoms_are_normal(molecules, B):
    restraints = molecules[1]
    expected = 0.0
    for k in (0, 6):  # the two molecules: N CA CB C O OXT
        for s, pairs in (
            (0.2, ((0, 1), (1, 2), (1, 3), (3, 4), (3, 5))),
            (0.3, ((0, 2), (0, 3), (2, 3), (1, 4), (1, 5), (4, 5))),
        ):
            expected += sum(
                stats.norm(0, s).logpdf(np.log(float(B[k + i]) / float(B[k + j]))) for i, j in pairs
            )
    assert float(restraints.log_density_B(B)) == pytest.approx(expected)
    torch.testing.assert_close(restraints.log_density_B(3 * B), restraints.log_density_B(B))


def test_hessian_of_log_B(molecules, B):
    restraints = molecules[1]
    exact = torch.autograd.functional.hessian(lambda x: -restraints.log_density_B(x.exp()), B.log())
    np.testing.assert_allclose(restraints.hessian_B(B.numpy()).toarray(), exact, atol=1e-9)


def test_displacements_that_are_equal_and_round_are_the_most_likely(molecules):
    crystal, restraints = molecules
    anisotropic = torch.ones(12, dtype=torch.bool)
    round_ = torch.tensor([0.2, 0.2, 0.2, 0, 0, 0], dtype=torch.float64).expand(12, 6).clone()
    x = round_.requires_grad_()
    (slope,) = torch.autograd.grad(restraints.log_density_U(x, crystal.xyz, anisotropic), x)
    torch.testing.assert_close(slope, torch.zeros_like(slope))
    best = restraints.log_density_U(round_, crystal.xyz, anisotropic)
    noise = 0.01 * torch.randn(12, 6, dtype=torch.float64)
    assert restraints.log_density_U(round_ + noise, crystal.xyz, anisotropic) < best
    few = anisotropic.clone()
    few[6:] = False
    assert gradcheck(
        lambda U: restraints.log_density_U(U, crystal.xyz, few), (round_ + noise).detach().requires_grad_()
    )


def test_motion_along_a_bond_is_projected(molecules):
    """Only the component along the bond of a difference in U meets the rigid-bond restraint."""
    crystal, _ = molecules
    pair = bfactor.Similar(torch.tensor([[0, 1]]), torch.tensor([bfactor.ONE_BOND], dtype=torch.float64))
    l = (crystal.xyz[1] - crystal.xyz[0]) / (crystal.xyz[1] - crystal.xyz[0]).norm()
    across = torch.linalg.cross(l, torch.tensor([0.0, 0, 1], dtype=torch.float64))
    across = across / across.norm()
    value = {}
    for name, v in (("along", l), ("across", across)):
        extra = 0.02 * torch.outer(v, v)
        U = torch.zeros(12, 6, dtype=torch.float64)
        U[:, :3] = 0.2
        U[0] += torch.stack([extra[0, 0], extra[1, 1], extra[2, 2], extra[0, 1], extra[0, 2], extra[1, 2]])
        value[name] = (U, bfactor.log_density_U(U, crystal.xyz, torch.ones(12, dtype=torch.bool), pair))

    def others(U):
        d, own = U[0] - U[1], torch.cat([U[:, :3] - U[:, :3].mean(1, keepdim=True), U[:, 3:]], 1)
        return (
            stats.norm(0, bfactor.U_ALIKE).logpdf(d).sum() + stats.norm(0, bfactor.U_ROUND).logpdf(own).sum()
        )

    for name, expected in (("along", 0.02), ("across", 0.0)):
        U, log_p = value[name]
        rigid = stats.norm(0, bfactor.U_RIGID).logpdf(expected)
        assert float(log_p) - others(U) == pytest.approx(rigid, abs=1e-9)
