"""Learned priors: the fixed point of `adapt` is the maximum of the evidence, computed independently."""

import math
from dataclasses import replace

import pytest
import torch
from known_truth import simulated
from scipy.optimize import minimize_scalar

import bayesref as br
from bayesref.scaling.scale import COMPLEXITY

D = {"dtype": torch.float64}


@pytest.fixture(scope="module")
def obs():
    return simulated(dmin=3.5, multiplicity=6, images=150).obs


def converge(scale, obs, y, noise, steps=100):
    """Alternate the exact posterior of y = log K + noise and `adapt`; (w, variance) at the end."""
    for _ in range(steps):
        J = scale.jacobian(scale.initial(), obs)
        C = torch.linalg.inv(J.T @ J / noise**2 + torch.eye(scale.n_weights, **D))
        w, variance = C @ J.T @ y / noise**2, C.diagonal()
        scale.adapt(w, variance)
    return w, variance


def test_log_K_stays_as_it_is(obs):
    scale = br.Product(br.Falloff(obs), br.Neural(obs), br.ImageWise(obs))
    w = scale.initial() + 0.3 * torch.randn(scale.n_weights, **D)
    before, sd = scale(w, obs), scale.sd()
    factor = scale.adapt(w, torch.rand(scale.n_weights, **D))
    torch.testing.assert_close(scale.sd(), sd * factor)
    torch.testing.assert_close(scale(w / factor, obs), before)
    learned = torch.cat([torch.full((g.n,), g.learned) for g in scale.groups])
    assert (factor[~learned] == 1).all()
    assert (factor[learned] != 1).all()


def test_finds_the_spread_of_the_images(obs):
    """150 images with sd 0.2 in k, none in B: the first is found to 2.5 of its own errors, the second vanishes."""
    scale, noise = br.ImageWise(obs), 0.3
    k = 0.2 * torch.randn(obs.n_image, **D)
    y = k[obs.image_id] + noise * torch.randn(len(obs), **D)
    converge(scale, obs, y, noise)
    sd = {g.name: g.sd for g in scale.groups}
    # each image is known to 0.3/√(spots), which adds little to the error of a standard deviation
    assert sd["image k"] == pytest.approx(0.2, rel=2.5 / math.sqrt(2 * obs.n_image))
    assert sd["image B"] < 0.02


def test_fixed_point_is_the_maximum_of_the_evidence(obs):
    """log N(y; 0, sd² Φ Φᵀ + noise²) - sd/s₀, maximised over one sd without the package."""
    obs = replace(obs.subset(slice(0, 400)), metadata=obs.metadata[:400, :1], metadata_keys=("BATCH",))
    scale, noise = br.Additive(obs, n_pair=0), 0.4
    phi = scale.jacobian(scale.initial(), obs) / scale.sd()
    y = phi @ (0.15 * torch.randn(phi.shape[1], **D)) + noise * torch.randn(len(obs), **D)

    def objective(log_sd):
        sd = math.exp(log_sd)
        cov = sd**2 * phi @ phi.T + noise**2 * torch.eye(len(y), **D)
        law = torch.distributions.MultivariateNormal(torch.zeros(len(y), **D), cov)
        return -float(law.log_prob(y)) + sd / COMPLEXITY

    best = minimize_scalar(objective, bounds=(-8, 2), method="bounded", options={"xatol": 1e-6}).x
    converge(scale, obs, y, noise)
    assert scale.groups[0].sd == pytest.approx(math.exp(best), rel=1e-3)
