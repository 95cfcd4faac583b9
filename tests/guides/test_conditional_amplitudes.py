"""With normal errors of known variance the guide is exact: the ELBO is the evidence, for every draw of F."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy.special import logsumexp
from tests_support import small_observations

import bayesref as br
from bayesref.guides.amplitudes import ConditionalAmplitudes
from bayesref.guides.latents import Latents

K = 3.0


def model(obs):
    with pyro.plate("hkl", len(obs.asu)):
        F = pyro.sample("F", br.dist.Wilson(obs.asu.epsilon, obs.asu.centric))
    with pyro.plate("spot", len(obs)):
        pyro.sample("I", dist.Normal(K * F[..., obs.hkl_id] ** 2, obs.SIGI), obs=obs.I)


def log_evidence(obs):
    """Sum over reflections of log ∫ p(F) Π N(I; K F², σ) dF, by a fine midpoint rule in plain numpy."""
    total = 0.0
    for h in range(len(obs.asu)):
        mine = (obs.hkl_id == h).numpy()
        I, s = obs.I.numpy()[mine], obs.SIGI.numpy()[mine]
        e, centric = float(obs.asu.epsilon[h]), bool(obs.asu.centric[h])
        F = (np.arange(400_000) + 0.5) * (12 / 400_000)
        acentric_log_p = np.log(2 * F / e) - F**2 / e
        log_p = 0.5 * math.log(2 / (math.pi * e)) - F**2 / (2 * e) if centric else acentric_log_p
        for x, sd in zip(I, s, strict=True):
            log_p = log_p - 0.5 * ((x - K * F**2) / sd) ** 2 - math.log(sd * math.sqrt(2 * math.pi))
        total += logsumexp(log_p) + math.log(12 / 400_000)
    return total


@pytest.mark.parametrize("seed", range(5))
def test_elbo_is_the_evidence_for_every_draw(seed):
    obs = small_observations()
    guide = ConditionalAmplitudes(model, latent_guide=None)
    pyro.set_rng_seed(seed)
    guide_trace = poutine.trace(guide).get_trace(obs)
    model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(obs)
    elbo = float(model_trace.log_prob_sum() - guide_trace.log_prob_sum())
    assert elbo == pytest.approx(log_evidence(obs), rel=1e-8)


def test_works_in_pyro_svi():
    obs = small_observations()
    loss = pyro.infer.Trace_ELBO().loss(model, ConditionalAmplitudes(model, latent_guide=None), obs)
    assert -loss == pytest.approx(log_evidence(obs), rel=1e-8)


def test_a_model_without_amplitudes_is_refused():
    with pytest.raises(br.InputError, match="'F'"):
        Latents(lambda obs: pyro.sample("x", dist.Normal(0.0, 1.0)), (small_observations(),))


def test_student_errors_give_a_lower_bound():
    from bayesref.inference.collapsed import Collapsed

    def student(obs):
        with pyro.plate("hkl", len(obs.asu)):
            F = pyro.sample("F", br.dist.Wilson(obs.asu.epsilon, obs.asu.centric))
        with pyro.plate("spot", len(obs)):
            law = dist.StudentT(torch.tensor(4.0).double(), K * F[..., obs.hkl_id] ** 2, obs.SIGI)
            pyro.sample("I", law, obs=obs.I)

    obs = small_observations()
    collapsed = Collapsed(student, obs, (), Latents(student, (obs,)))
    exact = collapsed.refresh(torch.zeros(0).double(), n_node=64)
    pyro.set_rng_seed(1)
    elbo = -pyro.infer.Trace_ELBO(num_particles=200).loss(
        student, ConditionalAmplitudes(student, latent_guide=None), obs
    )
    assert elbo < exact
    assert exact - elbo < 0.2 * len(obs.asu)
