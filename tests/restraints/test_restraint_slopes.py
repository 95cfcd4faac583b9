"""The compiled value, slope and Hessian against torch."""

import numpy as np
import pytest
import torch
from small_molecule import crystal, dictionary

from bayesref.restraints import geometry
from bayesref.restraints.restraints import build_restraints


@pytest.fixture
def shaken(molecules):
    """Coordinates away from the minimum of every restraint."""
    return molecules[0].xyz + 0.15 * torch.randn(len(molecules[0]), 3, dtype=torch.float64)


def test_all_kinds_are_there(molecules):
    assert all(
        len(getattr(molecules[1], k))
        for k in ("bonds", "angles", "torsions", "chirals", "planes", "nonbonded")
    )
    assert (molecules[1].nonbonded.image > 0).any()


@pytest.mark.parametrize("sign", ["negativ", "both"])
def test_value_and_slope(sign, shaken):
    model = crystal([(3.0, 2.0, 3.0), (6.0, 3.0, 4.0)], cell=(8.0, 7.0, 9.0, 90, 100, 90))
    restraints = build_restraints(model, dictionary(sign))
    assert bool(restraints.chirals.both.all()) == (sign == "both")
    x = shaken.clone().requires_grad_()
    log_p = restraints.log_prob(x)
    (slope,) = torch.autograd.grad(log_p, x)
    value, compiled = restraints.value_and_grad(shaken.numpy())
    assert value == pytest.approx(float(log_p.detach()), rel=1e-12)
    np.testing.assert_allclose(compiled, slope, rtol=1e-9, atol=1e-9)


def test_slope_is_that_of_the_value(molecules, shaken):
    x, restraints = shaken.numpy(), molecules[1]
    slope = restraints.value_and_grad(x)[1]
    direction = np.random.default_rng(0).normal(size=x.shape)
    h = 1e-6
    change = restraints.value_and_grad(x + h * direction)[0] - restraints.value_and_grad(x - h * direction)[0]
    assert (slope * direction).sum() == pytest.approx(change / (2 * h), rel=1e-6)


def residuals(restraints, xyz):
    """Everything that is Normal with its σ, as one vector; without planes."""
    r = restraints
    d = geometry.distance(xyz, r.nonbonded.atoms, r.nonbonded.image, r.images)
    return torch.cat(
        [
            geometry.distance(xyz, r.bonds.atoms, r.bonds.image, r.images) / r.bonds.sigma,
            geometry.angle(xyz, r.angles.atoms) / r.angles.sigma,
            geometry.torsion(xyz, r.torsions.atoms) / r.torsions.sigma,
            geometry.volume(xyz, r.chirals.atoms) / r.chirals.sigma,
            (r.nonbonded.minimum - d).clamp_min(0) / r.nonbonded.sigma,
        ]
    )


def test_hessian_is_that_of_gauss_and_newton(molecules, shaken):
    restraints = molecules[1]
    J = torch.autograd.functional.jacobian(lambda x: residuals(restraints, x), shaken).flatten(1)
    # A plane has curvature alone, exact where the atoms lie in it: there it is the second derivative.
    flat = shaken.clone()
    for group in restraints.planes.atoms:
        x = flat[group]
        normal = torch.linalg.svd(x - x.mean(0))[2][-1]
        flat[group] = x - ((x - x.mean(0)) @ normal)[:, None] * normal
    planes = torch.autograd.functional.hessian(
        lambda x: (0.5 * geometry.flatness(x, restraints.planes.atoms) / restraints.planes.sigma**2).sum(),
        flat,
    ).reshape(J.shape[1], -1)
    J = torch.autograd.functional.jacobian(lambda x: residuals(restraints, x), flat).flatten(1)
    H = restraints.hessian(flat.numpy())
    np.testing.assert_allclose(H.toarray(), J.T @ J + planes, rtol=1e-6, atol=1e-3)
    assert H.format == "csc"
    assert np.linalg.eigvalsh(restraints.hessian(shaken.numpy()).toarray()).min() > -1e-6


def test_a_rigid_motion_changes_nothing(shaken):
    """Of one molecule alone: symmetry copies move otherwise."""
    model = crystal(cell=(60, 60, 60, 90, 90, 90), spacegroup="P 1")
    restraints = build_restraints(model, dictionary())
    x = shaken[:6]
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turn = turn * torch.linalg.det(turn)
    moved = restraints.log_density(x @ turn.T + torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    for kind, value in restraints.log_density(x).items():
        torch.testing.assert_close(moved[kind], value)
    mirrored = restraints.log_density(x * torch.tensor([-1.0, 1, 1], dtype=torch.float64))
    assert mirrored["chirals"] < moved["chirals"] - 10


def test_a_batch_of_models(molecules, shaken):
    restraints = molecules[1]
    batch = torch.stack([shaken, molecules[0].xyz])
    both = restraints.log_density(batch, torch.full((2, 12), 20.0, dtype=torch.float64))
    for k in range(2):
        one = restraints.log_density(batch[k])
        for kind in one:
            torch.testing.assert_close(both[kind][k], one[kind])
    total = restraints.log_prob(batch, torch.full((2, 12), 20.0, dtype=torch.float64))
    torch.testing.assert_close(total, torch.stack(list(both.values())).sum(0))


def test_other_devices_give_the_same(molecules, shaken, device):
    moved = molecules[1].to(device).log_density(shaken.to(device))
    for kind, value in molecules[1].log_density(shaken).items():
        torch.testing.assert_close(moved[kind].cpu(), value)
