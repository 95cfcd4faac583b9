"""What is said of a fit that explains little, or ended too early."""

from dataclasses import replace

import pytest
import torch
from bayesref.models import merge

import bayesref as br
from bayesref.cli.fit_notes import fit_notes
from bayesref.io.simulation import write_simulation


@pytest.fixture(scope="module")
def obs(tmp_path_factory):
    simulation = br.simulate_merge(dmin=4.5, multiplicity=5, images=10, seed=2)
    spots, _ = write_simulation(simulation, tmp_path_factory.mktemp("spots"))
    return br.read_unmerged([spots[0]], metadata_keys=["X"])


def fitted(obs):
    return br.fit(merge.model, obs, br.Product(br.Falloff(obs, n_bumps=4), br.ImageWise(obs)))


def test_nothing_is_said_of_a_sound_fit(obs):
    assert fit_notes(fitted(obs)) == []


def test_a_scale_that_misses_a_column(obs):
    posterior = fitted(replace(obs, I=obs.I * torch.exp(1.5 * obs.metadata[:, 0])))
    (note,) = fit_notes(posterior)
    assert "the scale does not explain them" in note
    assert "--metadata" in note


def test_a_fit_that_ended_early(obs):
    posterior = fitted(obs)
    early = replace(posterior, converged=False, history=[{**posterior.history[-1], "gain": 1e3}])
    assert "not converged" in fit_notes(early)[0]
    assert fit_notes(replace(early, history=[{**early.history[-1], "gain": 0.6}])) == []
