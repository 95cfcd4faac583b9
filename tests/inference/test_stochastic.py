"""Minibatches of images: what other spots say of a reflection, the natural-gradient step, what fits refuse."""

from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from known_truth import simulated

import bayesref as br
from bayesref.guides.latents import Latents
from bayesref.inference.collapsed import Collapsed
from bayesref.inference.stochastic import _gradient, _Memory

D = {"dtype": torch.float64}


@pytest.fixture(scope="module")
def obs():
    return simulated(dmin=4.0, multiplicity=5, images=12, gain=0, sdadd=0, seed=3).obs


def model(obs, scale):
    with pyro.plate("hkl", len(obs.asu)):
        F = pyro.sample("F", br.dist.Wilson(obs.asu.epsilon, obs.asu.centric))
    w = pyro.sample("w", scale.prior())
    with pyro.plate("spot", len(obs)):
        pyro.sample("I", dist.Normal(scale(w, obs).exp() * F[..., obs.hkl_id] ** 2, obs.SIGI), obs=obs.I)


def test_a_batch_and_what_the_other_spots_say(obs):
    memory = _Memory(obs)
    memory.share = torch.rand(2, len(obs), **D)
    images = [2, 7, 11]
    rows, piece, (a, b) = memory.batch(images)
    mine = torch.isin(obs.image_id, torch.tensor(images))
    assert (rows == mine.nonzero()[:, 0]).all()
    torch.testing.assert_close(piece.I, obs.I[mine])
    torch.testing.assert_close(piece.asu.hkl[piece.hkl_id], obs.asu.hkl[obs.hkl_id[mine]])
    for h in range(len(piece.asu)):
        others = (obs.asu.hkl[obs.hkl_id] == piece.asu.hkl[h]).all(1) & ~mine
        torch.testing.assert_close(torch.stack([a[h], b[h]]), memory.share[:, others].sum(1))


@pytest.mark.parametrize("rho", [1.0, 0.5])
def test_an_epoch_at_one_scale_leaves_the_natural_parameters(obs, rho):
    """Normal errors of known variance: shares are ρ λ(K², K I) after one visit, λ(K², K I) after many."""
    scale = br.Falloff(obs, 0)
    c = Collapsed(model, obs, (scale,), Latents(model, (obs, scale)))
    memory, z = _Memory(obs), torch.tensor([0.1, -0.05], **D)
    K = scale(z, obs).exp()
    want = obs.SIGI**-2 * torch.stack([K**2, K * obs.I])
    for visit in range(1, 4):
        for images in torch.arange(12).split(4):
            _gradient(c, memory, images, z, rho)
        torch.testing.assert_close(memory.share, (1 - (1 - rho) ** visit) * want, rtol=1e-8, atol=0)


def test_gradients_of_batches_add_up(obs):
    """With every share current, batch gradients of the likelihood average to that of all spots."""
    scale = br.Falloff(obs, 0)
    c = Collapsed(model, obs, (scale,), Latents(model, (obs, scale)))
    memory, z = _Memory(obs), torch.tensor([0.1, -0.05], **D)
    batches = torch.arange(12).split(4)
    for _ in range(2):
        gradients = [_gradient(c, memory, images, z, 1.0) for images in batches]
    share = torch.tensor([float(torch.isin(obs.image_id, b).double().mean()) for b in batches], **D)
    # each is (n/n_B) ∇L_B + ∇ log p(z)
    got = (share[:, None] * torch.stack(gradients)).sum(0)
    c.refresh(z)
    torch.testing.assert_close(got, c.exact(z, n_node=40)[1], rtol=1e-4, atol=1e-3)


def test_repeatable_and_better_with_time(obs):
    fits = [br.fit(model, obs, br.Falloff(obs, 3), method="svi", epochs=6, seed=5) for _ in range(2)]
    assert (fits[0].mean == fits[1].mean).all()
    history = fits[0].history
    assert [r["step"] for r in history] == list(range(6))
    assert history[-1]["elbo"] > history[0]["elbo"]


def test_interrupt_leaves_a_posterior(obs):
    def report(row):
        if row["step"] == 2:
            raise KeyboardInterrupt

    p = br.fit(model, obs, br.Falloff(obs, 3), method="svi", report=report)
    assert "interrupted" in p.reason
    assert not p.converged
    assert torch.isfinite(p.amplitudes(n_draws=4).SIGF).all()


def test_one_image(obs):
    one = replace(obs, image_id=torch.zeros_like(obs.image_id), n_image=1)
    p = br.fit(model, one, br.Falloff(one, 0), method="svi", epochs=20)
    best = br.fit(model, one, br.Falloff(one, 0))
    assert p.log_joint == pytest.approx(best.log_joint, abs=2)


@pytest.mark.parametrize("rho", [0, -0.5, 1.5])
def test_weight_of_a_step(obs, rho):
    with pytest.raises(br.InputError, match=r"rho is .* above 0 and at most 1"):
        br.fit(model, obs, br.Falloff(obs), method="svi", rho=rho)


def test_a_fixed_site_must_be_there(obs):
    with pytest.raises(br.InputError, match="sdfac"):
        br.fit(model, obs, br.Falloff(obs, 0), fixed={"sdfac": torch.tensor(1.0, **D)})


def test_a_model_without_latents(obs):
    def known(obs):
        with pyro.plate("hkl", len(obs.asu)):
            F = pyro.sample("F", br.dist.Wilson(obs.asu.epsilon, obs.asu.centric))
        with pyro.plate("spot", len(obs)):
            pyro.sample("I", dist.Normal(300 * F[..., obs.hkl_id] ** 2, obs.SIGI), obs=obs.I)

    p = br.fit(known, obs)
    assert p.elbo == pytest.approx(p.log_joint)
