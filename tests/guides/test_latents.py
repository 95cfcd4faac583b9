"""Latent sites as one vector: round trips, the log prior against Pyro's own potential, what a model must have."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from bayesref.models.merge import model as merge
from pyro import poutine
from pyro.infer.mcmc.util import initialize_model
from tests_support import small_observations

import bayesref as br
from bayesref.guides.latents import Latents, trace_model

D = {"dtype": torch.float64}


def constrained(obs):
    """Sites of every kind of support, plates and vectors among them."""
    with pyro.plate("hkl", len(obs.asu)):
        F = pyro.sample("F", br.dist.Wilson(obs.asu.epsilon, obs.asu.centric))
    with pyro.plate("image", obs.n_image):
        k = pyro.sample("k", dist.LogNormal(torch.tensor(0.5, **D), 1.0))
    share = pyro.sample("share", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0], **D)))
    p = pyro.sample("p", dist.Beta(torch.tensor(2.0, **D), 3.0))
    c = pyro.sample("c", dist.HalfNormal(torch.tensor(0.7, **D)))
    t = pyro.sample("t", dist.Normal(torch.zeros(2, 3, **D), 1.0).to_event(2))
    with pyro.plate("spot", len(obs)):
        K = k[obs.image_id] * share[0] * p * torch.exp(t.sum())
        pyro.sample("I", dist.Normal(K * F[..., obs.hkl_id] ** 2, (1 + c) * obs.SIGI), obs=obs.I)


@pytest.fixture(scope="module")
def obs():
    return small_observations()


@pytest.fixture(scope="module")
def latents(obs):
    return Latents(constrained, (obs,))


def test_sites_fill_the_vector(latents, obs):
    assert list(latents.sites) == ["k", "share", "p", "c", "t"]
    assert latents.n == obs.n_image + 2 + 1 + 1 + 6  # a simplex of three has two coordinates
    assert latents.start().shape == (latents.n,)
    assert latents.columns(["c", "share"]).tolist() == [7, 4, 5]
    assert latents.columns([]).numel() == 0


def test_pack_is_the_inverse_of_unpack(latents):
    z = torch.randn(latents.n, **D)
    values = latents.unpack(z)
    assert {k: tuple(v.shape) for k, v in values.items()} == {
        "k": (4,), "share": (3,), "p": (), "c": (), "t": (2, 3)
    }  # fmt: skip
    assert (values["k"] > 0).all()
    assert float(values["share"].sum()) == pytest.approx(1)
    torch.testing.assert_close(latents.pack(values), z)


def log_parts(model, args, values, F):
    """log p(F) + log p(I | F, z), by the sites' own distributions."""
    trace = trace_model(model, args, {**values, "F": F})
    return sum(trace.nodes[k]["fn"].log_prob(trace.nodes[k]["value"]).sum() for k in ("F", "I"))


@pytest.mark.parametrize("seed", range(3))
def test_log_prior_is_what_pyro_has(latents, obs, seed):
    """Pyro's potential over unconstrained sites is -log p(F) - log p(I | F, z) - log p(z), Jacobians included."""
    F = torch.rand(len(obs.asu), **D) + 0.5
    _, potential, _, _ = initialize_model(poutine.condition(constrained, data={"F": F}), (obs,))
    z = torch.randn(latents.n, generator=torch.Generator().manual_seed(seed), **D)
    mine = latents.unpack(z)
    priors = {k: trace_model(constrained, (obs,), mine).nodes[k]["fn"] for k in mine}
    want = -potential({k: z[s.where].reshape(s.shape) for k, s in latents.sites.items()})
    got = latents.log_prior(z, mine, priors) + log_parts(constrained, (obs,), mine, F)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-10)


def test_log_prior_without_transforms_is_the_trace(obs):
    """A model whose latents are real: the log prior is what the trace of the model says."""
    scale = br.Falloff(obs)

    def model(obs, scale):
        with pyro.plate("hkl", len(obs.asu)):
            F = pyro.sample("F", br.dist.Wilson(obs.asu.epsilon, obs.asu.centric))
        w = pyro.sample("w", scale.prior())
        with pyro.plate("spot", len(obs)):
            pyro.sample("I", dist.Normal(scale(w, obs).exp() * F[..., obs.hkl_id] ** 2, obs.SIGI), obs=obs.I)

    latents, F = Latents(model, (obs, scale)), torch.ones(len(obs.asu), **D)
    z = torch.randn(latents.n, **D)
    values = latents.unpack(z)
    trace = trace_model(model, (obs, scale), {**values, "F": F})
    got = latents.log_prior(z, values, {"w": trace.nodes["w"]["fn"]})
    torch.testing.assert_close(got + log_parts(model, (obs, scale), values, F), trace.log_prob_sum())


def test_starts_at_the_medians_of_the_page(obs):
    scale = br.Neural(obs, 3, 1)
    latents = Latents(merge, (obs, scale))
    values = latents.unpack(latents.initial((obs, scale)))
    medians = {"a": 1.0, "b": 0.05, "c": 0.05, "nu": 15.0, "blank_odds": 0.01}
    assert {k: float(values[k]) for k in medians} == pytest.approx(medians)
    torch.testing.assert_close(values["w"], scale.initial())


def test_fixed_sites_are_data(obs):
    latents = Latents(poutine.condition(constrained, data={"c": torch.tensor(0.1, **D)}), (obs,))
    assert "c" not in latents.sites
    assert latents.n == 13


def test_a_model_without_latents(obs):
    def model(obs):
        with pyro.plate("hkl", len(obs.asu)):
            F = pyro.sample("F", br.dist.Wilson(obs.asu.epsilon, obs.asu.centric))
        with pyro.plate("spot", len(obs)):
            pyro.sample("I", dist.Normal(F[..., obs.hkl_id] ** 2, obs.SIGI), obs=obs.I)

    latents = Latents(model, (obs,))
    assert latents.n == 0
    assert latents.unpack(latents.start()) == {}


def test_intensities_must_be_observed(obs):
    def model(obs):
        with pyro.plate("hkl", len(obs.asu)):
            pyro.sample("F", br.dist.Wilson(obs.asu.epsilon, obs.asu.centric))
        pyro.sample("I", dist.Normal(0.0, 1.0))

    with pytest.raises(br.InputError, match="observe intensities at the site 'I'"):
        Latents(model, (obs,))


def test_argument_checks_are_what_they_were(obs):
    Latents(constrained, (obs,))
    with pytest.raises(ValueError, match="scale"):
        dist.Normal(0.0, -1.0)
