"""The guide over latent sites: exact given each draw of them; how tight where the variance depends on F."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from bayesref.models.merge import model as merge
from known_truth import simulated
from pyro import poutine
from pyro.infer.autoguide import AutoDelta, AutoNormal
from pyro.infer.autoguide.initialization import init_to_value
from scipy.stats import norm, t

import bayesref as br
from bayesref.guides.amplitudes import ConditionalAmplitudes, conditional

D = {"dtype": torch.float64}


@pytest.fixture(scope="module")
def obs():
    """Reflections, acentric and centric, six spots each, of which some are negative."""
    return every().slice_reflections(0, 24)


def every():
    """Of which `obs` are the first."""
    return simulated(dmin=4.5, multiplicity=6, images=20, seed=3).obs


def known_variance(obs, scale):
    with pyro.plate("hkl", len(obs.asu)):
        F = pyro.sample("F", br.dist.Wilson(obs.asu.epsilon, obs.asu.centric))
    w = pyro.sample("w", scale.prior())
    with pyro.plate("spot", len(obs)):
        pyro.sample("I", dist.Normal(scale(w, obs).exp() * F[..., obs.hkl_id] ** 2, obs.SIGI), obs=obs.I)


def log_ratio(guide, model, args):
    """log p(I, F, z) - log q(F, z), and the draw of z it belongs to."""
    guide_trace = poutine.trace(guide).get_trace(*args)
    model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(*args)
    return model_trace.log_prob_sum() - guide_trace.log_prob_sum(), guide_trace.nodes["w"]["value"]


def log_normal(x, sd=1.0):
    return (-0.5 * (x / sd) ** 2 - math.log(sd * math.sqrt(2 * math.pi))).sum()


def test_exact_for_every_draw_of_the_scale(obs):
    """log p(I, F, w) - log q(F, w) = log p(I | w) + log p(w) - log q(w), the first by trapezoids in log space."""
    scale = br.Falloff(obs, n_bumps=0)
    pyro.set_rng_seed(1)
    pyro.clear_param_store()
    guide = ConditionalAmplitudes(known_variance)  # a normal law of sd 0.1 about a prior draw
    F = torch.linspace(0, 15, 150_001, **D)[1:, None]
    for _ in range(3):
        ratio, w = log_ratio(guide, known_variance, (obs, scale))
        K = scale(w, obs).exp()
        log_p = br.dist.Wilson(obs.asu.epsilon, obs.asu.centric).log_prob(F)
        for h in range(len(obs.asu)):
            for i in range(obs.offsets[h], obs.offsets[h + 1]):
                r = (obs.I[i] - K[i] * F[:, 0] ** 2) / obs.SIGI[i]
                log_p[:, h] -= 0.5 * r**2 + math.log(obs.SIGI[i] * math.sqrt(2 * math.pi))
        log_p[-1] -= math.log(2)
        # the end at F = 0, where the density of a centric reflection is not zero
        zero = torch.where(
            obs.asu.centric, 2 * log_p[0] - log_p[1], torch.tensor(-torch.inf, **D)
        ) - math.log(2)
        evidence = torch.cat([zero[None], log_p]).logsumexp(0).sum() + len(obs.asu) * math.log(1e-4)
        loc, sd = guide.others.locs.w, guide.others.scales.w
        want = evidence + log_normal(w) - dist.Normal(loc, sd).log_prob(w).sum()
        torch.testing.assert_close(ratio, want, rtol=1e-8, atol=0)


def test_amplitudes_add_no_noise_to_the_gradient(obs):
    scale = br.Falloff(obs, n_bumps=0)
    guide = ConditionalAmplitudes(known_variance, AutoDelta)
    guide(obs, scale)
    guide.others.w = torch.nn.Parameter(torch.tensor([0.1, -0.2], **D))
    grads = []
    for _ in range(3):  # draws of F
        loss = pyro.infer.Trace_ELBO().differentiable_loss(known_variance, guide, obs, scale)
        grads.append(torch.autograd.grad(loss, guide.others.w)[0])
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(grads[2], grads[0], rtol=1e-6, atol=0)


def khat(log_w):
    """Shape of a generalised Pareto tail of the weights, (draw,), after Zhang & Stephens (2009)."""
    n = int(min(0.2 * len(log_w), 3 * math.sqrt(len(log_w))))
    w = np.sort(np.exp(log_w - log_w.max()))
    x = w[-n:] - w[-n - 1]
    m = 30 + int(math.sqrt(n))
    theta = 1 / x[-1] + (1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3 * x[int(n / 4 + 0.5) - 1])
    k = np.log1p(-theta[:, None] * x).mean(1)
    profile = n * (np.log(-theta / k) - k - 1)
    weight = 1 / np.exp(profile - profile[:, None]).sum(1)
    k = np.log1p(-(theta * weight).sum() * x).mean()
    return (n * k + 5) / (n + 10)  # drawn towards one half where draws are few


@pytest.mark.parametrize(("df", "low", "high"), [(1, 0.8, 1.2), (4, 0.15, 0.4), (1000, -0.1, 0.15)])
def test_khat_itself(df, low, high):
    """The tail of |t| with ν degrees of freedom has the shape 1/ν."""
    x = np.abs(t.rvs(df, size=20_000, random_state=1) if df < 1000 else norm.rvs(size=20_000, random_state=1))
    assert low < khat(np.log(x)) < high


@pytest.fixture(scope="module")
def merge_ratios(obs):
    """log p(F, I | z) - log q(F | z) of 1000 draws, (draw, hkl), and log p(I | z) by a fine grid, (hkl,)."""
    scale = br.Product(br.Falloff(every(), 4), br.ImageWise(every()))
    posterior = br.fit(merge, every(), scale)
    values = posterior.latents.unpack(posterior.mean)
    q = conditional(merge, (obs, scale), values)
    K, number = scale(values["w"], obs).exp(), {k: float(v) for k, v in values.items() if v.ndim == 0}
    nu, p_blank = 2 + number["nu"], number["blank_odds"] / (1 + number["blank_odds"])

    def log_joint(F):  # (draw, hkl), the equations of the page written out with scipy
        J = K * F[:, obs.hkl_id] ** 2
        a, b, c = (number[k] for k in "abc")
        sigma = a * (obs.SIGI**2 + b * obs.typical_SIGI * J + (c * J) ** 2).sqrt()
        spot = (1 - p_blank) * t.pdf(obs.I, nu, J, sigma) + p_blank * norm.pdf(obs.I, 0, a * obs.SIGI)
        total = torch.zeros_like(F).index_add(1, obs.hkl_id, torch.from_numpy(np.log(spot)))
        return total + br.dist.Wilson(obs.asu.epsilon, obs.asu.centric).log_prob(F)

    F = q.sample((1000,))
    grid = (torch.arange(100_000, **D)[:, None] + 0.5) * 1e-4
    parts = [log_joint(g.expand(-1, len(obs.asu))).logsumexp(0) for g in grid.split(5000)]
    evidence = torch.stack(parts).logsumexp(0) + math.log(1e-4)
    return log_joint(F) - q.log_prob(F), evidence


def test_elbo_of_the_page_is_a_tight_bound(merge_ratios):
    log_ratio, evidence = merge_ratios
    gap = evidence - log_ratio.mean(0)
    assert (gap > -4 * log_ratio.std(0) / math.sqrt(1000)).all()
    assert 0 < gap.sum() < 0.05 * len(evidence)


def test_draws_of_the_page_can_be_reweighted(merge_ratios):
    log_ratio, evidence = merge_ratios
    assert khat(log_ratio.sum(1).numpy()) < 0.7
    estimate = log_ratio.logsumexp(0) - math.log(1000)
    torch.testing.assert_close(estimate.sum(), evidence.sum(), rtol=0, atol=0.3)


def test_learns_in_pyro(obs):
    """Sixty steps of Adam on a guide within the guide, from where K is twentyfold too large."""
    scale = br.Falloff(obs, n_bumps=0)
    far = init_to_value(values={"w": torch.tensor([1.0, 0.5], **D)})
    pyro.set_rng_seed(2)
    with pyro.get_param_store().scope():
        guide = ConditionalAmplitudes(
            known_variance, lambda m: AutoNormal(m, init_loc_fn=far, init_scale=0.01)
        )
        svi = pyro.infer.SVI(known_variance, guide, pyro.optim.Adam({"lr": 0.03}), pyro.infer.Trace_ELBO())
        losses = [svi.step(obs, scale) for _ in range(60)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 20
