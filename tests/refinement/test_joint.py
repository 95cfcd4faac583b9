"""Merging and refinement in one, against simulated spots of a known structure."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bayesref.models import merge_refine as page
from bayesref.models import refine

from bayesref._checks import InputError
from bayesref.crystal.asu import rows_of
from bayesref.data.merged import MergedData
from bayesref.data.simulate import MergeOptions
from bayesref.distributions import Wilson
from bayesref.guides.latents import trace_model
from bayesref.io.unmerged import read_unmerged
from bayesref.io.write_mtz import write_mtz
from bayesref.refinement.joint import merge_and_refine, natural_data, structure_page, without_spots
from bayesref.refinement.point_estimate import fit_atoms
from bayesref.refinement.simulate import RefineOptions
from bayesref.refinement.simulate_spots import simulate_spots, truth_of
from bayesref.scaling.falloff import Falloff
from bayesref.scaling.image_wise import ImageWise
from bayesref.scaling.scale import Product


@pytest.fixture(scope="module")
def simulated(molecules, tmp_path_factory):
    crystal, _ = molecules
    model = RefineOptions(dmin=1.7, error=0.03, free_fraction=0.15)
    spots = MergeOptions(multiplicity=3, images=12, G=100, B0=3, B1=3, sig0=40, seed=4)
    simulation = simulate_spots(crystal, model, spots)
    path = tmp_path_factory.mktemp("spots") / "spots.mtz"
    write_mtz(simulation.spots, path)
    obs = read_unmerged(path)
    return simulation, obs, truth_of(simulation, obs.asu.hkl, "FreeR_flag") == 0


@pytest.fixture(scope="module")
def joint(molecules, simulated):
    crystal, library = molecules
    _, obs, free = simulated
    g = torch.Generator().manual_seed(1)
    shaken = replace(crystal, xyz=crystal.xyz + 0.05 * torch.randn(crystal.xyz.shape, generator=g).double())
    scale = Product(Falloff(obs), ImageWise(obs))
    return merge_and_refine(shaken, obs, scale, library, free, rounds=1, cycles=5, hydrogens="none")


def scores(amplitudes, simulated, rows):
    """Correlation with the truth, and z after a straight line in s² has been taken off the scale."""
    simulation, obs, _ = simulated
    T, F, S = truth_of(simulation, obs.asu.hkl), amplitudes.F, amplitudes.SIGF
    x = torch.stack([torch.ones_like(F), obs.asu.stol2], 1)
    k = torch.full_like(F, float(T.mean() / F.mean()))
    for _ in range(8):
        z = (T - k * F) / (k * S)
        step = torch.linalg.lstsq((F / S)[:, None] * x, z[:, None]).solution[:, 0]
        k = k * (x @ step).clamp(-0.5, 0.5).exp()
    z = (T - k * F) / (k * S)
    return float(torch.corrcoef(torch.stack([k * F, T])[:, rows])[0, 1]), z[rows]


def test_the_structure_improves_amplitudes_of_the_work_set(joint, simulated):
    work = ~simulated[2]
    alone, together = (scores(a, simulated, work) for a in (joint.sequential, joint.amplitudes))
    assert 1 - together[0] < 0.8 * (1 - alone[0])
    assert float(joint.amplitudes.SIGF[work].mean()) < 0.95 * float(joint.sequential.SIGF[work].mean())


# Molecules side by side in rows have more weak amplitudes than Wilson's prior expects: it is honest only about.
@pytest.mark.parametrize(("which", "low"), [("work", 0.84), ("free", 0.77)])
def test_intervals_hold_the_true_amplitudes(joint, simulated, which, low):
    free = simulated[2]
    _, z = scores(joint.amplitudes, simulated, free if which == "free" else ~free)
    assert low < float((z.abs() < 1.645).double().mean()) < 0.96


def test_free_amplitudes_have_a_prior_without_structure(joint, simulated):
    _, obs, free = simulated
    u = without_spots(joint.structure)
    assert bool((u[free] == 0).all())
    assert bool((u[~free] > 0).all())
    values = joint.merging.latents.unpack(joint.merging.mean)
    atoms = joint.structure.atoms
    law = trace_model(
        joint.merging.model, (obs, *joint.merging.args), {**values, "F": torch.ones(len(obs.asu))}
    )
    prior = law.nodes["F"]["fn"]
    F = torch.linspace(1.0, 60.0, 7, dtype=torch.float64)[:, None]
    wilson = Wilson(obs.asu.epsilon, obs.asu.centric, atoms.Sigma)
    torch.testing.assert_close(prior.log_prob(F)[:, free], wilson.log_prob(F)[:, free])


def test_merged_intensities_are_those_of_the_spots(joint, simulated):
    """z of what goes into the structure, before any prior of the amplitude."""
    simulation, obs, free = simulated
    data = natural_data(joint.merging, free)
    J = truth_of(simulation, obs.asu.hkl) ** 2
    k = (J * data.value / data.sigma**2).sum() / (data.value / data.sigma).square().sum()
    z = (J - k * data.value) / (k * data.sigma)
    assert 0.75 < float(z.clamp(-4, 4).square().mean()) < 1.35


def test_what_a_reflection_gave_to_its_own_G_is_taken_off(joint):
    """Against refinement again with each of some reflections left out."""
    structure, target = joint.structure, joint.structure.target
    u = without_spots(structure, n_draws=200)
    G = target.expected(structure.values)[0]
    told = (u - 1) * G
    rows = told.abs().masked_fill(target.data.free, 0).topk(6).indices
    z, _ = fit_atoms(target, structure.mean, 20, 1e-4)
    found = []
    for h in rows.tolist():
        data = replace(target.data, free=target.data.free.clone())
        data.free[h] = True
        less = replace(target, data=data)
        again, _ = fit_atoms(less, z, 20, 1e-4)
        found.append(
            float(
                less.expected(less.latents.unpack(again))[0][h]
                - target.expected(target.latents.unpack(z))[0][h]
            )
        )
    found = torch.tensor(found, dtype=torch.float64)
    assert float(torch.corrcoef(torch.stack([found, told[rows]]))[0, 1]) > 0.8
    assert 0.5 < float((found * told[rows]).sum() / told[rows].square().sum()) < 1.6


def test_rows_of_finds_reflections_in_any_order(simulated):
    asu = simulated[1].asu
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(asu)))
    assert torch.equal(rows_of(asu, asu.hkl[order]), order.argsort())
    with pytest.raises(InputError, match="not among"):
        rows_of(asu, asu.hkl[order][: len(asu) // 2])


def test_a_page_of_spots_is_one_of_a_structure_too(joint, simulated):
    """With u = 1 it expects what the refinement page expects."""
    _, obs, free = simulated
    atoms, values = joint.structure.atoms, joint.structure.values
    one = torch.ones(len(obs.asu), dtype=torch.float64)
    data = MergedData(obs.asu, "I", one, one, free, {})
    spots = joint.merging.latents.unpack(joint.merging.mean)
    mine = structure_page(page.model, obs, joint.merging.args[0], spots)
    laws = [
        trace_model(p, (data, atoms), {**values, "F": one}).nodes["F"]["fn"] for p in (mine, refine.model)
    ]
    torch.testing.assert_close(laws[0].loc, laws[1].loc)
    torch.testing.assert_close(laws[0].scatter, laws[1].scatter)
