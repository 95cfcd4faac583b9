"""Ellipsoids: slopes, curvature, the truth of a simulation within its intervals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bayesref.models import refine as isotropic_page
from bayesref.models import refine_anisotropic as page

from bayesref._checks import InputError
from bayesref.crystal.atoms import symmetric
from bayesref.refinement.adp import Displacements
from bayesref.refinement.adp_overall import settle
from bayesref.refinement.adp_width import forms
from bayesref.refinement.atomic_model import AtomicModel
from bayesref.refinement.curvature import Factor, data_blocks, ellipsoid_precision, precision, prior_precision
from bayesref.refinement.point_estimate import fit_globals, fit_sites, start
from bayesref.refinement.priors import spread_of_B
from bayesref.refinement.refine import mean_intensity, refine
from bayesref.refinement.simulate import RefineOptions, simulate_refine
from bayesref.refinement.target import Target
from bayesref.refinement.tls import groups_of
from bayesref.restraints.restraints import build_restraints

OPTIONS = RefineOptions(dmin=1.5, error=0.02, noise=0.03, free_fraction=0.1)
ROWS = 48


def atomic_model(crystal, library, data, kind):
    d = Displacements.of(crystal, kind, groups_of(crystal) if "tls" in kind else None)
    restraints = build_restraints(crystal, library)
    return AtomicModel.of(crystal, restraints, [], data, mean_intensity(data), displacements=d)


@pytest.fixture(scope="module")
def truths(molecules):
    """Crystals whose sizes and shapes are drawn from the prior, without its widest directions."""
    crystal, library = molecules
    data = simulate_refine(crystal, replace(OPTIONS, dmin=3.0))
    atoms = atomic_model(crystal, library, data, "anisotropic")
    A = torch.zeros(ROWS, 5, dtype=torch.float64)
    P = ellipsoid_precision(atoms, crystal.B, A)
    draws = Factor(P).draw(1, np.random.default_rng(4)).reshape(1, ROWS, 6)
    out = []
    for x in torch.from_numpy(draws):
        B = 14 * torch.exp(x[:, 0].clamp(-0.8, 1.2))
        out.append(atoms.displacements.apply(crystal, B, 0.6 * x[:, 1:]))  # a prior of this few atoms is wide
    return out


@pytest.fixture(scope="module")
def refined(truths, molecules):
    fits = []
    for i, truth in enumerate(truths):
        g = torch.Generator().manual_seed(i)
        moved = truth.xyz + 0.03 * torch.randn(truth.xyz.shape, generator=g, dtype=torch.float64)
        begin = replace(truth, xyz=moved, U=None, anisotropic=torch.zeros(ROWS, dtype=torch.bool))
        data = simulate_refine(truth, OPTIONS, seed=10 + i)
        fits.append((refine(begin, data, molecules[1], adp="anisotropic", cycles=4), begin, data))
    return fits


@pytest.mark.parametrize("kind", ["anisotropic", "tls", "tls+anisotropic"])
def test_slopes(molecules, kind):
    crystal, library = molecules
    data = simulate_refine(crystal, replace(OPTIONS, dmin=1.8))
    target = Target.of(page.model, data, atomic_model(crystal, library, data, kind))
    g = torch.Generator().manual_seed(1)
    z = start(target)
    z = z + 0.02 * torch.randn(len(z), generator=g, dtype=z.dtype)
    _, grad = target.value_and_grad(z)
    for name in ("xyz", "B", "A", "tls"):
        site = target.latents.sites[name]
        if site.where.stop == site.where.start:
            continue
        v = torch.zeros_like(z)
        v[site.where] = torch.randn(site.where.stop - site.where.start, generator=g, dtype=z.dtype)
        h = 1e-3 / float(v.norm())
        up, down = (target.value_and_grad(z + s * h * v)[0] for s in (1, -1))
        size = float(grad[site.where].norm() * v.norm())
        assert float(grad @ v) == pytest.approx((up - down) / (2 * h), abs=1e-2 * size + 1e-2), name


def test_curvature_of_shapes_is_that_of_differences_on_average(molecules):
    crystal, library = molecules
    data = simulate_refine(crystal, OPTIONS)
    target = Target.of(page.model, data, atomic_model(crystal, library, data, "anisotropic"))
    z = fit_globals(target, start(target))
    diagonal, *_ = data_blocks(target, z, 0.0)
    H0 = prior_precision(target, z)
    site = target.latents.sites["A"].where
    exact, shell = [], []
    for atom in range(0, ROWS, 8):
        for k in range(5):
            e = torch.zeros_like(z)
            e[site.start + 5 * atom + k] = 3e-2
            up, down = (target.value_and_grad(z + s * e, ["A"])[1] for s in (1, -1))
            both = float((down - up)[site.start + 5 * atom + k]) / 6e-2
            exact.append(both - H0[9 * atom + 4 + k, 9 * atom + 4 + k])
            shell.append(diagonal[atom, 4 + k, 4 + k])
    assert np.mean(shell) == pytest.approx(np.mean(exact), rel=0.2)
    dense = precision(target, z, 0.0).toarray()
    assert np.linalg.eigvalsh(dense).min() > 0


def test_forms_make_up_the_prior(molecules, truths):
    crystal, library = molecules
    data = simulate_refine(crystal, replace(OPTIONS, dmin=3.0))
    atoms = atomic_model(crystal, library, data, "anisotropic")
    B, A = crystal.B, 0.1 * torch.ones(ROWS, 5, dtype=torch.float64)
    atoms = replace(
        atoms, temperature=(1.0, 3.0), displacements=replace(atoms.displacements, width2=(0.5, 2.0))
    )
    total = sum(H / t for H, t in zip(forms(atoms, B, A), (3.0, 0.5, 2.0), strict=True))
    level = np.zeros(6 * ROWS)
    level[::6] = spread_of_B(atoms.restraints, ROWS) ** -2
    np.testing.assert_allclose((ellipsoid_precision(atoms, B, A) - total).diagonal(), level, atol=1e-9)


def test_the_truth_is_in_the_intervals(truths, refined):
    inside, off = [], []
    for truth, (fit, *_) in zip(truths, refined, strict=True):
        score = (fit.crystal.U - truth.U) / fit.esd["U"]
        inside.append((score.abs() < 1.645).double().mean())
        off.append((fit.crystal.U - truth.U).norm() / (truth.U - truth.U[:, :3].mean(1, keepdim=True)
                   * torch.tensor([1.0, 1, 1, 0, 0, 0])).norm())  # fmt: skip
    assert 0.76 < float(torch.stack(inside).mean()) < 0.98
    # what is wrong with U is a fraction of what a sphere would leave out
    assert max(off) < 0.6


def test_draws_are_positive_definite_and_spread_as_the_esds(refined):
    fit = refined[0][0]
    draws = fit.sites(60)
    assert (torch.linalg.eigvalsh(symmetric(draws["U"])) > 0).all()
    ratio = draws["U"].std(0) / fit.esd["U"]
    assert float(ratio.median()) == pytest.approx(1, abs=0.1)


def test_ellipsoids_explain_free_reflections_better_than_spheres(refined, molecules):
    fit, begin, data = refined[0]
    spheres = refine(begin, data, molecules[1], cycles=2)
    assert fit.history[-1]["R_free"] < spheres.history[-1]["R_free"]


def test_given_ellipsoids_are_the_start(truths):
    d = Displacements.of(truths[0], "anisotropic")
    torch.testing.assert_close(d.U(d.B, d.A), truths[0].U)


def test_what_is_refused_and_what_is_remarked(molecules):
    crystal, library = molecules
    data, notes = simulate_refine(crystal, replace(OPTIONS, dmin=2.2)), []
    with pytest.raises(InputError, match="no site A or tls"):
        refine(crystal, data, library, isotropic_page.model, adp="anisotropic", note=notes.append)
    assert any("priors will decide" in n for n in notes)
    assert any("reflections for each" in n for n in notes)
    with pytest.raises(InputError, match="none of them"):
        Displacements.of(crystal, "round")
    with pytest.raises(InputError, match="needs groups"):
        Displacements.of(crystal, "tls")


def test_the_overall_displacement_is_not_left_to_the_scale(molecules, truths):
    """A start whose B are all 4 Å² too low, and a crystal that moves more along c: both end in U."""
    _, library = molecules
    data = simulate_refine(truths[0], OPTIONS, seed=3)
    target = Target.of(page.model, data, atomic_model(truths[0], library, data, "anisotropic"))
    at_truth = fit_globals(target, start(target))
    extra = torch.tensor([4.0, 4.0, 9.0, 0, 0, 0], dtype=torch.float64)
    d = target.atoms.displacements
    values = d.blurred(target.latents.unpack(at_truth), -extra)
    z = fit_globals(target, target.latents.pack(values))
    scales = [k for k in target.globals if k not in ("error", "error_shape")]
    settled = target.latents.unpack(settle(target, z, scales, fit_sites))
    before, after = (d.U(v["B"], v["A"])[:, :3].mean(0) for v in (target.latents.unpack(z), settled))
    truth = truths[0].U[:, :3].mean(0)
    assert float((after - truth).norm()) < 0.35 * float((before - truth).norm())
    assert float(settled["log_D"].abs().max()) < float(target.latents.unpack(z)["log_D"].abs().max())
    assert float(settled["anisotropy"].abs().max()) == 0
