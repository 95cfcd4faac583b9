"""Refinement of twins: fraction and coordinates come back, the law is found, pairs are closed, R is of the total."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse as sparse
import torch
from bayesref.models import refine as plain_page

sys.path.insert(0, str(Path(__file__).parents[1] / "restraints"))
import small_molecule

from bayesref._checks import InputError
from bayesref.crystal.twin_laws import twin_law
from bayesref.refinement import twin as twin_module
from bayesref.refinement.curvature import Factor
from bayesref.refinement.r_factors import r_factors
from bayesref.refinement.refine import refine
from bayesref.refinement.simulate import RefineOptions, simulate_refine
from bayesref.refinement.twin import FRACTION
from bayesref.refinement.twin_data import twinned
from bayesref.refinement.twin_simulate import simulate_twin
from bayesref.restraints.restraints import build_restraints
from bayesref.results.refined_mtz import map_coefficients, write_maps
from bayesref.validation.refinement import refinement_statistics

CELL, GROUP = (20.0, 20.0, 28.0, 90, 90, 90), "P 43"
PLACES = [(x, y, z) for x in (3.0, 8.0) for y in (3.0, 8.0) for z in (3.0,)]
OPTIONS = RefineOptions(dmin=1.7, error=0.03, free_fraction=0.1)


@pytest.fixture(scope="module")
def crystal():
    """Drawn from the prior: restraints and similarity of B, and atoms held to 0.3 Å."""
    made = small_molecule.crystal(PLACES, cell=CELL, spacegroup=GROUP)
    restraints = build_restraints(made, small_molecule.dictionary())
    H = restraints.hessian(made.xyz.numpy()) + sparse.identity(3 * len(made)) / 0.3**2
    H_B = restraints.hessian_B() + sparse.identity(len(made)) / 0.3**2
    g = np.random.default_rng(3)
    xyz = made.xyz + torch.from_numpy(Factor(H.tocsc()).draw(1, g).reshape(-1, 3))
    return replace(made, xyz=xyz, B=14 * torch.exp(torch.from_numpy(Factor(H_B.tocsc()).draw(1, g)[0])))


@pytest.fixture(scope="module")
def law(crystal):
    return twin_law("k,h,-l", crystal.cell, crystal.spacegroup)


@pytest.fixture(scope="module")
def refined(crystal, law):
    """A shaken start against a twin with a fraction of 0.25, law to be found."""
    data = simulate_twin(crystal, law, 0.25, OPTIONS, seed=3)
    g = torch.Generator().manual_seed(1)
    start = replace(crystal, xyz=crystal.xyz + 0.1 * torch.randn(crystal.xyz.shape, generator=g).double())
    notes = []
    options = {"hydrogens": "none", "twin": "auto", "cycles": 8, "note": notes.append}
    return refine(start, data, small_molecule.dictionary(), **options), notes


def test_law_is_found_and_fraction_recovered(refined):
    posterior, notes = refined
    assert any("k,h,-l" in n and "log odds" in n for n in notes)
    alpha = posterior.sites(300)[FRACTION]
    assert float(alpha.std()) < 0.02
    assert float(alpha.mean()) == pytest.approx(0.25, abs=4 * float(alpha.std()))


def test_coordinates_come_back_within_their_errors(refined, crystal):
    posterior, _ = refined
    off = posterior.crystal.xyz - crystal.xyz
    off = off - torch.tensor([0, 0, 1.0]) * off.mean(0)  # P 43 has no origin along z
    assert float(off.square().sum(1).mean().sqrt()) < 0.06
    inside = ((off / posterior.esd["xyz"]).abs() < 1.645).double().mean()
    assert 0.65 < float(inside) < 0.99  # of 72: the mean of several crystals is 84 %


def test_r_factors_are_of_the_total(refined):
    target, z = refined[0].target, refined[0].mean
    values = target.latents.unpack(z)
    G, _ = target.expected(values)
    a, d = float(values[FRACTION]), target.data
    total = ((1 - a) * G**2 + a * G[d.mate] ** 2).sqrt().detach()
    rows = d.present & ~d.free
    F, Gt, s2 = (x[rows].numpy() for x in (d.F_obs, total, d.asu.stol2))
    k, b = scipy.optimize.least_squares(
        lambda x: F - x[0] * np.exp(-x[1] * s2) * Gt, [1.0, 0.0], xtol=1e-14
    ).x
    R = float(np.abs(F - k * np.exp(-b * s2) * Gt).sum() / F.sum())
    assert r_factors(target, z)["R"] == pytest.approx(R, rel=1e-6)
    assert refinement_statistics(target, z, 4).iloc[-1]["R"] == pytest.approx(R, rel=1e-6)
    one_domain = float((d.F_obs - G.detach()).abs()[rows].sum() / d.F_obs[rows].sum())
    assert R / one_domain < 0.9


def test_maps_hold_detwinned_amplitudes(refined, crystal, law, tmp_path):
    target, z = refined[0].target, refined[0].mean
    truth = simulate_refine(crystal, replace(OPTIONS, noise=1e-6, relative=1e-6), seed=3)
    F_true = twinned(truth, law).F_obs
    c = map_coefficients(target, z)

    def R(F):
        return float((F - F_true).abs().sum() / F_true.sum())

    assert R(c["F"]) < 0.6 * R(target.data.F_obs)
    write_maps(target, z, tmp_path / "maps.mtz")
    assert (tmp_path / "maps.mtz").stat().st_size > 1000


def test_untwinned_data_are_left_alone(crystal):
    data = simulate_refine(crystal, OPTIONS, seed=2)
    notes = []
    options = {"hydrogens": "none", "twin": "auto", "cycles": 1, "note": notes.append}
    posterior = refine(crystal, data, small_molecule.dictionary(), **options)
    assert any("not twinned" in n for n in notes)
    assert FRACTION not in posterior.target.latents.sites


def test_rows_are_closed_and_missing_mates_say_nothing(crystal, law):
    data = simulate_twin(crystal, law, 0.3, OPTIONS)
    some = data.subset(torch.arange(len(data)) % 5 > 0)
    closed = twinned(some, law)
    rows = torch.arange(len(closed))
    assert bool((closed.mate[closed.mate] == rows).all())
    assert int(closed.present.sum()) == len(some)
    assert 0 < int((~closed.present).sum()) < len(data) - len(some)
    torch.testing.assert_close(closed.value[closed.present], some.value)
    image, _ = law.mates(closed.asu.hkl.numpy(), closed.asu.spacegroup)
    torch.testing.assert_close(closed.asu.hkl[closed.mate], torch.from_numpy(image).long())
    assert closed.n_split == 0
    broken = replace(closed, free=rows % 2 == 0)
    assert broken.n_split > 0


def test_page_without_a_fraction_is_refused(crystal, law):
    data = simulate_twin(crystal, law, 0.3, OPTIONS)
    with pytest.raises(InputError, match="twin_fraction"):
        refine(crystal, data, small_molecule.dictionary(), plain_page.model, hydrogens="none", twin="k,h,-l")


def test_a_part_of_a_twin_has_whole_pairs_of_the_work_set(refined, monkeypatch):
    target = refined[0].target
    d = target.data
    work = d.present & ~d.free
    assert target.part() is None  # few enough to take all
    monkeypatch.setattr(twin_module, "ENOUGH", int(work.sum()) // 4)
    part = target.part()
    assert 0.15 < float(part.sum()) / float(work.sum()) < 0.35
    assert not bool((part & ~work).any())
    other = d.mate[part]
    assert bool((part[other] | ~work[other]).all())
