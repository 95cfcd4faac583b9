"""Integrals over the amplitudes against scipy, whatever the error law; pieces; what is not finite."""

import math
from dataclasses import replace
from itertools import pairwise

import pyro
import pyro.distributions as dist
import pytest
import torch
from bayesref.models import merge, merge_normal
from known_truth import simulated
from scipy.integrate import quad
from scipy.stats import norm, t
from torch import tensor

import bayesref as br
from bayesref.guides.latents import Latents
from bayesref.inference.collapsed import Collapsed, split

D = {"dtype": torch.float64}
NUMBERS = {"a": 1.1, "b": 0.2, "c": 0.05, "nu": 1.5, "blank_odds": 0.03}


@pytest.fixture(scope="module")
def obs():
    """Some 900 spots of 160 reflections; of one reflection half the spots are blanks, of another one is an outlier."""
    obs = simulated(dmin=5.0, multiplicity=6, images=10, seed=3).obs
    I = obs.I.clone()
    I[obs.offsets[5] : obs.offsets[5] + 3] = 20.0
    I[obs.offsets[9]] = 20_000.0
    I[obs.offsets[11] : obs.offsets[12]] = -400.0
    return replace(obs, I=I)


def collapsed(model, obs):
    scale = br.Falloff(obs, n_bumps=3)
    return Collapsed(model, obs, (scale,), Latents(model, (obs, scale)))


def at(c, numbers=NUMBERS):
    """z with the numbers of the error model and some weights."""
    values = {k: tensor(v, **D) for k, v in numbers.items() if k in c.latents.sites}
    return c.latents.pack({"w": 0.1 * torch.ones(c.args[0].n_weights, **D), **values})


def log_evidence(obs, h, K, law):
    """log ∫ p(F) Π p(I | K F²) dF by scipy, cut where the integrand has a mode."""
    mine = slice(obs.offsets[h], obs.offsets[h + 1])
    I, SIGI, K = (x[mine].numpy() for x in (obs.I, obs.SIGI, K))
    prior = br.dist.Wilson(obs.asu.epsilon[h], obs.asu.centric[h])

    def log_p(F):
        spots = law(I, K * F**2, SIGI, obs.typical_SIGI).sum()
        return float(prior.log_prob(tensor(F, **D))) + float(spots)

    grid = [12 * (i + 0.5) / 2000 for i in range(2000)]
    top = max(grid, key=log_p)
    offset = log_p(top)
    edges = [0, *(top + s * 12 / 100 for s in (-10, -3, -1, 0, 1, 3, 10)), 12]
    edges = sorted({min(max(e, 0), 12) for e in edges})
    parts = [
        quad(lambda F: math.exp(log_p(F) - offset), lo, hi, limit=400, epsrel=1e-10)[0]
        for lo, hi in pairwise(edges)
    ]
    return math.log(sum(parts)) + offset


def page(I, J, SIGI, typical):
    """Log density of a spot as `models/merge.py` has it."""
    a, b, c = (NUMBERS[k] for k in "abc")
    sigma = a * (SIGI**2 + b * typical * J + (c * J) ** 2) ** 0.5
    p_blank = NUMBERS["blank_odds"] / (1 + NUMBERS["blank_odds"])
    p = (1 - p_blank) * t.pdf(I, 2 + NUMBERS["nu"], J, sigma) + p_blank * norm.pdf(I, 0, a * SIGI)
    return torch.from_numpy(p).log()


def page_normal(I, J, SIGI, typical):
    a, b, c = (NUMBERS[k] for k in "abc")
    return torch.from_numpy(norm.logpdf(I, J, a * (SIGI**2 + b * typical * J + (c * J) ** 2) ** 0.5))


@pytest.mark.parametrize(
    ("model", "law"), [(merge.model, page), (merge_normal.model, page_normal)], ids=["merge", "normal"]
)
def test_exact_is_the_integral(obs, model, law):
    """Of a dozen reflections, those with blanks, an outlier and nothing but negative spots among them."""
    part, scale = obs.slice_reflections(0, 14), br.Falloff(obs, n_bumps=3)
    c = Collapsed(model, part, (scale,), Latents(model, (part, scale)))
    z = at(c)
    total = c.refresh(z)
    values = c.latents.unpack(z)
    K = c.args[0](values["w"], part).exp()
    want = sum(log_evidence(part, h, K, law) for h in range(len(part.asu)))
    assert total == pytest.approx(want, abs=1e-3)
    assert c.refresh(z, n_node=80) == pytest.approx(want, abs=1e-4)
    priors = {k: s["fn"] for k, s in c.run(part, values).nodes.items() if k in values}
    assert c.value(z, n_node=80) == pytest.approx(
        want + float(c.latents.log_prior(z, values, priors)), abs=1e-4
    )


@pytest.mark.parametrize("model", [merge.model, merge_normal.model], ids=["merge", "normal"])
def test_gradient_is_that_of_differences(obs, model):
    """Along every number of the error model and the first weights, at a point that is no optimum."""
    c = collapsed(model, obs)
    z = at(c)
    c.refresh(z)
    value, grad = c.exact(z, n_node=40)
    assert value == pytest.approx(c.value(z, n_node=40), rel=1e-12)
    for i in (0, 1, *range(c.args[0].n_weights, len(z))):
        e = torch.zeros_like(z)
        e[i] = 1e-4
        difference = (c.value(z + e, n_node=40) - c.value(z - e, n_node=40)) / 2e-4
        assert float(grad[i]) == pytest.approx(difference, rel=1e-5, abs=1e-3)


def test_a_warm_start_finds_the_same(obs):
    c = collapsed(merge.model, obs)
    z = at(c)
    c.refresh(z + 0.02)
    warm = c.refresh(z, n_node=40, warm=True)
    assert warm == pytest.approx(c.refresh(z, n_node=40), abs=0.02)


def test_pieces_partition_the_spots(obs):
    pieces = split(obs, 100)
    assert len(pieces) > 5
    torch.testing.assert_close(torch.cat([p.I for p in pieces]), obs.I)
    torch.testing.assert_close(torch.cat([p.asu.hkl for p in pieces]), obs.asu.hkl)
    assert all(len(p) <= 100 + int(obs.counts().max()) for p in pieces)
    assert len(split(obs)) == 1


def test_pieces_add_up(obs):
    whole, cut = collapsed(merge.model, obs), collapsed(merge.model, obs)
    cut.pieces = split(obs, 100)
    z = at(whole)
    assert cut.refresh(z) == pytest.approx(whole.refresh(z), abs=1e-4)
    for method in ("exact", "surrogate"):
        (a, grad_a), (b, grad_b) = getattr(whole, method)(z), getattr(cut, method)(z)
        assert a == pytest.approx(b, abs=1e-4)
        torch.testing.assert_close(grad_a, grad_b, rtol=1e-4, atol=1e-3)


def test_surrogate_has_the_slope_of_the_exact(obs):
    """Roughly: its precisions are chosen so that the steps they give go uphill."""
    c = collapsed(merge.model, obs)
    z = at(c)
    c.refresh(z)
    w = c.latents.sites["w"].where
    exact, surrogate = (f(z)[1][w] for f in (c.exact, c.surrogate))
    assert torch.nn.functional.cosine_similarity(exact, surrogate, dim=0) > 0.95


def test_moments_of_the_e_step(obs):
    """E F² and E F⁴ by a fine grid; λ = 1/v for a normal law of known variance."""

    def model(obs, scale):
        with pyro.plate("hkl", len(obs.asu)):
            F = pyro.sample("F", br.dist.Wilson(obs.asu.epsilon, obs.asu.centric))
        w = pyro.sample("w", scale.prior())
        with pyro.plate("spot", len(obs)):
            pyro.sample("I", dist.Normal(scale(w, obs).exp() * F[..., obs.hkl_id] ** 2, obs.SIGI), obs=obs.I)

    c = collapsed(model, obs)
    z = at(c)
    c.refresh(z, n_node=40)
    m = c.moments[0]
    torch.testing.assert_close(m.precision, obs.SIGI**-2, rtol=1e-9, atol=0)
    F = (torch.arange(40_000, **D)[:, None] + 0.5) * (8 / 40_000)
    part = obs.slice_reflections(0, 20)
    log_p = c.log_density(part, c.latents.unpack(z), F.expand(-1, 20))
    weight = log_p.softmax(0)
    torch.testing.assert_close(m.m2[:20], (weight * F**2).sum(0), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(m.m4[:20], (weight * F**4).sum(0), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("method", ["deterministic", "svi"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_not_finite_is_an_error_and_names_sites(obs, method, bad):
    I = obs.I.clone()
    I[17] = bad
    with pytest.raises(FloatingPointError, match="not finite; the gradient fails at the site"):
        br.fit(merge.model, replace(obs, I=I), br.Falloff(obs, 0), method=method)
