"""Intensities that a program wrote as exactly zero: a point mass, which a density must not be let run into."""

from dataclasses import replace

import torch
from bayesref.models.merge import Priors

import bayesref as br


def clipped(obs, spread=1.2, limit=10.0):
    """Spots with a factor that depends on where they are, and those below `limit` σ written as 0."""
    factor = torch.exp(spread * obs.metadata[:, 1])
    I, SIGI = obs.I * factor, obs.SIGI * factor.sqrt()
    return replace(obs, I=torch.where(I.lt(limit * SIGI.median()), 0.0, I), SIGI=SIGI)


def test_a_scale_that_misses_a_column_ends_with_errors_that_can_be(simulated):
    obs = clipped(simulated.obs)
    assert float((obs.I == 0).double().mean()) > 0.05
    posterior = br.fit(simulated.merge, obs, br.Product(br.Falloff(obs, n_bumps=4)))
    a, c = (float(posterior.sites()[k].mean()) for k in "ac")
    assert posterior.converged
    assert 0.9 * Priors.least_a < a < 10  # draws scatter about the limit
    assert c < 100


def test_all_merging_pages_have_that_limit(simulated):
    for name in ("double_wilson", "laue", "model_prior", "normal", "reference", "reference_rice", "refine"):
        module = __import__(f"bayesref.models.merge_{name}", fromlist=["Priors"])
        assert module.Priors.least_a == Priors.least_a
