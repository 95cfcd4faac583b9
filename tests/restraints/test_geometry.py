"""What restraints measure, against gemmi; their densities, against integrals; slopes, against differences."""

import math

import gemmi
import numpy as np
import pytest
import torch
from scipy import stats
from torch.autograd import gradcheck

from bayesref.restraints import geometry
from bayesref.restraints.terms import Images


@pytest.fixture
def xyz():
    return 2 * torch.randn(8, 3, dtype=torch.float64)


@pytest.fixture
def images():
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    R = torch.stack([torch.eye(3, dtype=torch.float64), turn])
    return Images(R, torch.tensor([[0.0, 0, 0], [1, 2, 3]], dtype=torch.float64))


def rows(*atoms):
    return torch.tensor(atoms)


def position(x):
    return gemmi.Position(*x.tolist())


def test_measures_agree_with_gemmi(xyz):
    p = [position(x) for x in xyz]
    torch.testing.assert_close(
        geometry.angle(xyz, rows([0, 1, 2]))[0].item(), gemmi.calculate_angle(p[0], p[1], p[2])
    )
    torch.testing.assert_close(
        geometry.torsion(xyz, rows([0, 1, 2, 3]))[0].item(), gemmi.calculate_dihedral(*p[:4])
    )
    a, b, c = (xyz[k] - xyz[4] for k in (5, 6, 7))
    torch.testing.assert_close(
        geometry.volume(xyz, rows([4, 5, 6, 7]))[0], torch.linalg.det(torch.stack([a, b, c]))
    )


def test_distance_to_an_image(xyz, images):
    d = geometry.distance(xyz, rows([0, 1], [0, 1]), torch.tensor([0, 1]), images)
    copy = images.R[1] @ xyz[1] + images.t[1]
    torch.testing.assert_close(d, torch.stack([(xyz[0] - xyz[1]).norm(), (xyz[0] - copy).norm()]))


def test_flatness_is_the_least_sum_of_squares(xyz):
    atoms = rows([0, 1, 2, 3, 4, -1])
    x = xyz[:5] - xyz[:5].mean(0)
    least = torch.linalg.svdvals(x)[-1] ** 2
    torch.testing.assert_close(geometry.flatness(xyz, atoms)[0], least)


@pytest.mark.parametrize("kind", ["bond", "angle", "torsion", "chiral", "plane", "contact"])
def test_slopes_agree_with_differences(kind, xyz, images):
    one = torch.ones((), dtype=torch.float64)
    functions = {
        "bond": lambda x: geometry.log_normal(
            geometry.distance(x, rows([0, 1], [2, 3]), torch.tensor([0, 1]), images), 1.5 * one, 0.3 * one
        ),
        "angle": lambda x: geometry.log_normal(geometry.angle(x, rows([0, 1, 2])), 2.0 * one, 0.3 * one),
        "torsion": lambda x: geometry.log_von_mises(
            geometry.torsion(x, rows([0, 1, 2, 3])), 1.0 * one, 0.3 * one, 3 * one
        ),
        "chiral": lambda x: geometry.log_chiral(
            geometry.volume(x, rows([4, 5, 6, 7], [0, 1, 2, 3])),
            2.5 * one,
            3.0 * one,
            torch.tensor([True, False]),
        ),
        "plane": lambda x: geometry.log_plane(
            geometry.flatness(x, rows([0, 1, 2, 3, 4], [3, 4, 5, 6, -1])),
            rows([0, 1, 2, 3, 4], [3, 4, 5, 6, -1]),
            0.5 * torch.ones(2, dtype=torch.float64),
        ),
        "contact": lambda x: geometry.log_contact(
            geometry.distance(x, rows([0, 1]), torch.tensor([1]), images), 20.0 * one, one
        ),
    }
    assert gradcheck(functions[kind], xyz.requires_grad_())


def test_torsion_density_integrates_to_one_and_has_its_period():
    phi = torch.linspace(-math.pi, math.pi, 20001, dtype=torch.float64)
    value, period = torch.tensor(0.7, dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64)
    for sigma in (0.05, 0.3, 2.0):
        log_p = geometry.log_von_mises(phi, value, torch.tensor(sigma, dtype=torch.float64), period)
        assert float(torch.trapezoid(log_p.exp(), phi)) == pytest.approx(1, abs=1e-9)
        if sigma < 0.1:  # narrow maxima: each is a third of a Normal
            near = geometry.log_von_mises(
                value + 0.01, value, torch.tensor(sigma, dtype=torch.float64), period
            )
            expected = stats.norm(0, sigma).logpdf(0.01) - math.log(3)
            assert float(near) == pytest.approx(expected, abs=0.02)


def test_volume_of_either_sign_is_even_and_integrates_to_one():
    v = torch.linspace(-10, 10, 20001, dtype=torch.float64)
    log_p = geometry.log_chiral(
        v, torch.tensor(2.5).double(), torch.tensor(0.2).double(), torch.ones(len(v), dtype=torch.bool)
    )
    assert float(torch.trapezoid(log_p.exp(), v)) == pytest.approx(1, abs=1e-9)
    torch.testing.assert_close(log_p, log_p.flip(0))


def test_plane_density_is_that_of_its_free_distances():
    flat = torch.tensor([0.03], dtype=torch.float64)
    log_p = geometry.log_plane(flat, rows([0, 1, 2, 3, 4, -1]), torch.tensor([0.1], dtype=torch.float64))
    two = stats.multivariate_normal(np.zeros(2), 0.01 * np.eye(2))
    assert float(log_p) == pytest.approx(two.logpdf([math.sqrt(0.03), 0]))


def test_slopes_are_finite_where_there_is_no_direction():
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]], dtype=torch.float64)
    point = torch.zeros(4, 3, dtype=torch.float64)
    same = Images(torch.eye(3, dtype=torch.float64)[None], torch.zeros(1, 3, dtype=torch.float64))
    atoms, group = rows([0, 1, 2, 3]), rows([0, 1, 2, 3, -1])
    for start in (line, point):
        x = start.clone().requires_grad_()
        total = (
            geometry.distance(x, atoms[:, :2], torch.tensor([0]), same).sum()
            + geometry.angle(x, atoms[:, :3]).sum()
            + geometry.torsion(x, atoms).sum()
            + geometry.volume(x, atoms).sum()
            + geometry.flatness(x, group).sum()
        )
        (slope,) = torch.autograd.grad(total, x)
        assert torch.isfinite(slope).all()
