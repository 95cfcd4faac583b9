"""Refinement of simulated crystals: back to the truth, with intervals that hold it."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sparse
import torch
from bayesref.models import refine as page

from bayesref.refinement.atomic_model import Conformers
from bayesref.refinement.curvature import Factor
from bayesref.refinement.point_estimate import start
from bayesref.refinement.posterior import mean_field
from bayesref.refinement.refine import refine, shift_B
from bayesref.refinement.rigid_body import fit_bodies, moved
from bayesref.refinement.simulate import RefineOptions, simulate_refine
from bayesref.refinement.temperature import temperatures
from bayesref.restraints.restraints import build_restraints

OPTIONS = RefineOptions(dmin=1.6, error=0.05, free_fraction=0.12)


@pytest.fixture(scope="module")
def truths(molecules):
    """Crystals drawn from the prior: restraints and similarity of B, and atoms held to 0.3 Å."""
    crystal, library = molecules
    restraints = build_restraints(crystal, library)
    H = restraints.hessian(crystal.xyz.numpy()) + sparse.identity(3 * len(crystal)) / 0.3**2
    H_B = restraints.hessian_B() + sparse.identity(len(crystal)) / 0.3**2
    g = np.random.default_rng(3)
    xyz = crystal.xyz + torch.from_numpy(Factor(H.tocsc()).draw(3, g).reshape(3, -1, 3))
    B = 14 * torch.exp(torch.from_numpy(Factor(H_B.tocsc()).draw(3, g)))
    return [replace(crystal, xyz=x, B=b) for x, b in zip(xyz, B, strict=True)]


@pytest.fixture(scope="module")
def refined(truths, molecules):
    out = []
    for i, truth in enumerate(truths):
        g = torch.Generator().manual_seed(i)
        shaken = replace(
            truth, xyz=truth.xyz + 0.06 * torch.randn(truth.xyz.shape, generator=g, dtype=torch.float64)
        )
        out.append(refine(shaken, simulate_refine(truth, OPTIONS, seed=10 + i), molecules[1], cycles=8))
    return out


def scores(truths, posteriors, name):
    pairs = zip(truths, posteriors, strict=True)
    return torch.cat(
        [((getattr(p.crystal, name) - getattr(t, name)) / p.esd[name]).flatten() for t, p in pairs]
    )


def test_intervals_hold_the_truth(truths, refined):
    for name, low in (("xyz", 0.82), ("B", 0.80)):
        inside = (scores(truths, refined, name).abs() < 1.645).double().mean()
        assert low < float(inside) < 0.97, name


def test_a_mean_field_is_too_sure(truths, refined):
    inside = (scores(truths, [mean_field(p) for p in refined], "xyz").abs() < 1.645).double().mean()
    assert float(inside) < 0.7


def test_atoms_came_back_and_say_how_far(truths, refined):
    for truth, posterior in zip(truths, refined, strict=True):
        rms = (posterior.crystal.xyz - truth.xyz).square().sum(1).mean().sqrt()
        assert float(rms) < 0.09
        assert posterior.history[-1]["R"] < posterior.history[0]["R"] + 0.01
        draws = posterior.sites(50)
        assert draws["xyz"].shape == (50, len(truth), 3)
        assert (draws["B"] > 0).all()


def test_widths_of_restraints_follow_the_crystal(molecules):
    """Molecules three times as irregular as their description: the restraints widen by about as much."""
    crystal, library = molecules
    H = build_restraints(crystal, library).hessian(crystal.xyz.numpy())
    small = Factor((H + sparse.identity(H.shape[0]) / 0.03**2).tocsc()).draw(1, np.random.default_rng(5))
    bent = replace(crystal, xyz=crystal.xyz + 3 * torch.from_numpy(small.reshape(-1, 3)))
    p = refine(
        bent, simulate_refine(bent, replace(OPTIONS, error=0.01, noise=0.01), seed=3), library, cycles=6
    )
    assert 1.8 < p.atoms.temperature[0] ** 0.5 < 4.0
    assert len(temperatures(p.target, p.mean, p.factor)) == 2


def test_without_free_reflections_errors_are_still_honest(molecules, truths):
    data = simulate_refine(truths[0], replace(OPTIONS, free_fraction=0.0), seed=10)
    p = refine(truths[0], data, molecules[1], cycles=6)
    assert p.determined > 50
    share = float((p.target.expected(p.values)[1] / data.asu.epsilon / p.atoms.Sigma).mean())
    assert share == pytest.approx(OPTIONS.error * np.exp(OPTIONS.rise * 0.6), rel=0.5)


def test_a_chain_comes_back_as_a_body(problem):
    target, _ = problem
    motion = torch.tensor([[0.02, -0.03, 0.01, 0.3, -0.2, 0.25]], dtype=torch.float64)
    body = torch.zeros(len(target.atoms.crystal), dtype=torch.int64)
    away = moved(target.atoms.crystal.xyz, body, motion)
    displaced = replace(
        target, atoms=replace(target.atoms, crystal=replace(target.atoms.crystal, xyz=away), _kept={})
    )
    z, _ = fit_bodies(displaced, start(displaced), dmin=2.5)
    back = displaced.latents.unpack(z)["xyz"]
    assert float((back - target.atoms.crystal.xyz).norm(dim=1).mean()) < 0.1


def test_overall_B_is_found(molecules):
    crystal, _ = molecules
    data = simulate_refine(crystal, RefineOptions(dmin=1.6, error=0.01))
    from bayesref.refinement.refine import mean_intensity

    low = replace(crystal, B=crystal.B - 6)
    assert float((shift_B(low, data, mean_intensity(data)).B - low.B).median()) == pytest.approx(6, abs=2.5)


def test_occupancies_of_conformers_share_their_place():
    occupancy = torch.tensor([0.6, 0.4, 1.0, 0.5, 0.3, 0.1], dtype=torch.float64)
    c = Conformers.of([[("A", [0]), ("B", [1])], [("A", [3]), ("B", [4]), ("C", [5])]], occupancy)
    assert c.n == 3
    torch.testing.assert_close(c.occupancy(c.log_odds(occupancy), occupancy), occupancy)
    changed = c.occupancy(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), occupancy)
    assert float(changed[0] + changed[1]) == pytest.approx(1.0)
    assert float(changed[3:].sum()) == pytest.approx(0.9)
    assert float(changed[2]) == 1.0


def test_the_page_is_the_default(molecules, truths, refined):
    assert refined[0].target.page is page.model
