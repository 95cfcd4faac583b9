"""The objective of a refinement: its slope, its sets, and the curvature that stands in for it."""

from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from bayesref._checks import InputError
from bayesref.refinement.curvature import Factor, data_blocks, precision, prior_precision
from bayesref.refinement.lbfgs import minimize
from bayesref.refinement.target import Target


def test_slope_is_that_of_differences(problem):
    target, z = problem
    g = torch.Generator().manual_seed(0)
    z = z + 0.01 * torch.randn(len(z), generator=g, dtype=z.dtype)
    _, grad = target.value_and_grad(z)
    for name, site in target.latents.sites.items():
        if site.where.stop == site.where.start:
            continue
        v = torch.zeros_like(z)
        v[site.where] = torch.randn(site.where.stop - site.where.start, generator=g, dtype=z.dtype)
        h = 1e-4 / v.norm()
        up, down = (target.value_and_grad(z + s * h * v)[0] for s in (1, -1))
        # structure factors and their gradients are accurate to 1e-3 and 5e-3
        size = float(grad[site.where].norm() * v.norm())
        assert float(grad @ v) == pytest.approx((up - down) / (2 * float(h)), abs=2e-2 * size + 1e-2), name


def test_free_reflections_teach_the_atoms_nothing(problem):
    target, z = problem
    value = target.data.value.clone()
    value[target.data.free] *= 3
    other = replace(target, data=replace(target.data, value=value))
    mine, theirs = target.value_and_grad(z), other.value_and_grad(z)
    assert mine[0] == theirs[0]
    torch.testing.assert_close(
        mine[1], theirs[1], rtol=0, atol=1e-9
    )  # sums of products differ in the last bits
    assert (
        target.value_and_grad(z, rows=target.data.free)[0]
        != other.value_and_grad(z, rows=target.data.free)[0]
    )


def test_sites_that_are_held_have_no_slope(problem):
    target, z = problem
    _, grad = target.value_and_grad(z, ["k", "error"])
    moved = target.latents.columns(["k", "error"])
    assert (grad[moved] != 0).all()
    grad[moved] = 0
    assert (grad == 0).all()


def test_data_curvature_is_that_of_differences_on_average(problem):
    """Gauss-Newton blocks from resolution shells against the exact Hessian of the likelihood."""
    target, z = problem
    diagonal, *_ = data_blocks(target, z, 0.0)
    site = target.latents.sites["xyz"].where
    H0 = prior_precision(target, z)
    exact, shell = [], []
    for atom in range(0, len(diagonal), 6):
        for axis in range(3):
            e = torch.zeros_like(z)
            e[site.start + 3 * atom + axis] = 1e-2
            up, down = (target.value_and_grad(z + s * e, ["xyz"])[1] for s in (1, -1))
            all_of_it = float((down - up)[site.start + 3 * atom + axis]) / 2e-2
            exact.append(all_of_it - H0[4 * atom + axis, 4 * atom + axis])
            shell.append(diagonal[atom, axis, axis])
    assert np.mean(shell) == pytest.approx(np.mean(exact), rel=0.15)


def test_draws_have_the_covariance_of_the_factor(problem):
    target, z = problem
    P = precision(target, z, 3.0)
    factor = Factor(P)
    dense = P.toarray()
    assert factor.log_det == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-10)
    draws = factor.draw(4000, np.random.default_rng(0))
    inverse = np.linalg.inv(dense)
    np.testing.assert_allclose(draws.var(0) / np.diag(inverse), 1, atol=0.15)
    white = draws @ np.linalg.cholesky(dense)
    assert abs((white**2).mean() - 1) < 0.02


def test_preconditioned_minimisation():
    scale = np.geomspace(1, 1e6, 30)

    def f(x):
        return 0.5 * float((scale * x**2).sum()) + float((x**4).sum()), scale * x + 4 * x**3

    found = minimize(f, np.ones(30), lambda g: g / scale, 60, 10.0, tolerance=1e-12)
    assert found.value < 1e-10

    def rosenbrock(x):
        value = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
        return value, np.array([-400 * x[0] * (x[1] - x[0] ** 2) - 2 * (1 - x[0]), 200 * (x[1] - x[0] ** 2)])

    found = minimize(rosenbrock, np.array([-1.2, 1.0]), lambda g: g / 100, 300, 1.0, tolerance=1e-14)
    np.testing.assert_allclose(found.z, 1, atol=1e-3)


def test_a_page_without_a_model_is_refused(problem):
    target, _ = problem

    def page(data, atoms):
        with pyro.plate("hkl", len(data.asu)):
            F = pyro.sample("F", dist.HalfNormal(torch.ones(len(data.asu), dtype=torch.float64)))
            pyro.sample("I", data.law(F), obs=data.value)

    with pytest.raises(InputError, match="RiceWoolfson"):
        Target.of(page, target.data, target.atoms)
