"""What a fit leaves: scales and amplitudes near the truth by as much as they claim, over several data sets."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from bayesref.models import merge, merge_normal
from known_truth import simulated

import bayesref as br
from bayesref.inference.collapsed import Collapsed

D = {"dtype": torch.float64}
SEEDS = (21, 22, 23, 24)


def scale_of(obs):
    return br.Product(br.Falloff(obs, 6), br.Additive(obs, 6, 3), br.ImageWise(obs))


def data(seed, **options):
    return simulated(**{"dmin": 3.6, "multiplicity": 5, "images": 20} | options, seed=seed)


@pytest.fixture(scope="module")
def fits():
    """Data sets of some 3,000 spots, and the posterior of each."""
    return [(s, br.fit(merge.model, s.obs, scale_of(s.obs))) for s in map(data, SEEDS)]


@pytest.fixture(scope="module")
def one(fits):
    return fits[0]


def z_scores(amplitudes, truth):
    """(F - F_true)/SIGF on one overall scale."""
    F, weight = amplitudes.F, amplitudes.SIGF**-2
    k = (weight * truth * F).sum() / (weight * F**2).sum()
    return (k * F - truth) / (k * amplitudes.SIGF)


def test_intervals_hold_what_they_promise(fits):
    """Pooled over four data sets: 90 % of 2,300 amplitudes, to three binomial sd and as much again for the errors of
    the scale, which neighbours in resolution share."""
    assert all(p.converged for _, p in fits)
    z = torch.cat([z_scores(p.amplitudes(), s.F) for s, p in fits])
    limit = 6 * math.sqrt(0.9 * 0.1 / len(z))
    assert abs((z.abs() < 1.645).double().mean() - 0.9) < limit
    assert 0.85 < (z**2).mean() < 1.15


def test_draws_hold_what_they_promise(fits):
    """The same from quantiles of the draws, which are not normal for weak reflections."""
    inside = []
    for s, p in fits:
        a = p.amplitudes(n_samples=400)
        k = s.F @ (a.F / a.SIGF**2) / (a.F**2 / a.SIGF**2).sum()
        lo, hi = (a.draws.double() * k).quantile(torch.tensor([0.05, 0.95], **D), dim=0)
        inside.append((lo < s.F) & (hi > s.F))
    inside = torch.cat(inside).double()
    assert abs(inside.mean() - 0.9) < 6 * math.sqrt(0.9 * 0.1 / len(inside))


def test_scales_are_true_to_their_own_error(fits):
    """rms of (log K - truth)/sd over the spots of a data set. Few functions carry these errors, so that it scatters."""
    rms = []
    for s, p in fits:
        (scale,), w = p.args, p.latents.unpack(p.mean)["w"]
        mine = p.latents.sites["w"].where
        spread = scale.jacobian(w, s.obs) @ p.root[mine]
        z = (scale(w, s.obs) - s.log_K) / spread.square().sum(1).sqrt()
        rms.append(float(z.square().mean().sqrt()))
        assert (scale(w, s.obs) - s.log_K).std() < 0.15  # of 0.35 to begin with
    assert all(0.4 < x < 1.8 for x in rms)
    assert 0.7 < sum(rms) / len(rms) < 1.3


def test_error_model_is_found(fits):
    """SIGI is true and errors are normal: a = 1 within its own error, few blanks, many degrees of freedom."""
    for _, p in fits:
        sites = p.sites(500)
        log_a = sites["a"].log()
        assert abs(log_a.mean()) < 4 * log_a.std() + 0.02
        assert sites["blank_odds"].mean() < 0.01
        assert sites["nu"].median() > 8


def test_uncertainty_of_the_scale_widens_intervals(one):
    _, p = one
    alone, all_of_it = p.amplitudes(n_draws=1), p.amplitudes(n_draws=32)
    assert (all_of_it.SIGF > 0.95 * alone.SIGF).all()
    assert all_of_it.SIGF.median() > 1.02 * alone.SIGF.median()


def test_draws_agree_with_their_moments(one):
    s, p = one
    a = p.amplitudes(n_draws=16, n_samples=1600)
    assert a.draws.shape == (1600, len(s.obs.asu))
    assert a.draws.dtype == torch.float32
    assert (a.draws >= 0).all()
    z = (a.draws.double().mean(0) - a.F) / (a.SIGF / 40)
    assert (z**2).mean() < 1.2
    assert (a.draws.double().std(0) / a.SIGF - 1).abs().mean() < 0.04
    torch.testing.assert_close(a.I, a.F**2 + a.SIGF**2, rtol=1e-2, atol=1e-3)


def test_reflections_without_spots_have_their_prior(one):
    s, p = one
    mask = s.obs.hkl_id >= 10
    a = p.amplitudes(s.obs.subset(mask))
    prior = br.dist.Wilson(s.obs.asu.epsilon, s.obs.asu.centric)
    assert (a.N[:10] == 0).all()
    torch.testing.assert_close(a.F[:10], prior.mean[:10], rtol=0.01, atol=0)
    torch.testing.assert_close(a.SIGF[:10], prior.stddev[:10], rtol=0.02, atol=0)


def test_every_step_is_reported():
    s, rows = data(21), []
    p = br.fit(merge_normal.model, s.obs, br.Falloff(s.obs, 0), report=rows.append)
    assert rows == p.history
    assert [r["step"] for r in rows] == list(range(len(rows)))
    assert {r["phase"] for r in rows} == {"round", "polish"}
    assert rows[-1]["elbo"] >= rows[0]["elbo"]


def test_learned_priors_are_at_their_fixed_point(one):
    """Sds re-estimated at the end stay within the ten per cent that the last steps may have moved them."""
    _, p = one
    (scale,) = p.args
    mine = p.latents.sites["w"].where
    w, variance = p.mean[mine], p.root[mine].square().sum(1)
    sd = [g.sd for g in scale.groups]
    try:
        factor = scale.adapt(w, variance)
    finally:
        for t in scale.terms:
            t.groups = [g.__class__(g.name, g.n, sd.pop(0), g.learned) for g in t.groups]
        scale.forget()
    matters = scale.sd() > 0.02  # the others are on their way to nothing
    assert (factor[matters].log().abs() < 0.1).all()


def test_a_fixed_site_is_exactly_there():
    s = data(21)
    numbers = {"a": 1.0, "b": 1e-6, "c": 1e-6}
    fixed = {k: torch.tensor(v, **D) for k, v in numbers.items()}
    p = br.fit(merge_normal.model, s.obs, br.Falloff(s.obs, 0), fixed=fixed)
    assert list(p.latents.sites) == ["w"]
    assert p.converged


def test_a_network_and_its_linearisation():
    """The fit with a network as its scale: honest, and its posterior is that of the linearised network."""
    s = data(21)
    scale = br.Product(br.Falloff(s.obs, 6), br.Neural(s.obs, 6, 1), br.ImageWise(s.obs))
    p = br.fit(merge_normal.model, s.obs, scale)
    assert p.converged
    (line,) = p.linearized().args
    w = p.latents.unpack(p.mean)["w"]
    torch.testing.assert_close(line(w, s.obs), scale(w, s.obs))
    z = z_scores(p.amplitudes(), s.F)
    assert abs((z.abs() < 1.645).double().mean() - 0.9) < 0.05


STRONG = {"sig0": 3.0, "gain": 0.1, "sdadd": 0.003, "multiplicity": 12, "seed": 24}


@pytest.fixture(scope="module")
def strong():
    """Spots of 1 %: the scale of a shell of reflections is less well known than the reflections in it."""
    s = data(**STRONG)
    return s, br.fit(merge_normal.model, s.obs, scale_of(s.obs))


def test_elbo_of_strong_data(strong):
    """E_q log p(I, z) is half a log unit per latent below log p(I, m), for a posterior that is nearly normal."""
    _, p = strong
    n = len(p.mean)
    entropy = 0.5 * n * (1 + math.log(2 * math.pi)) + float(torch.linalg.slogdet(p.root).logabsdet)
    assert p.elbo_error < 20
    assert p.elbo - entropy - p.log_joint == pytest.approx(-n / 2, abs=20)


def test_amplitudes_of_strong_data(strong):
    """SIGF as from the amplitudes at each draw of z, on nodes of their own, brought to one scale."""
    s, p = strong
    mean, variance = [], []
    for z in p.draw(16):
        c = Collapsed(p.model, s.obs, p.args, p.latents)
        c.refresh(z)
        F, slope = c.spans[0].nodes(24)
        q = c.spans[0].posterior(c.log_density(c.pieces[0], c.latents.unpack(z), F), slope)
        mean.append(q.expectation(F))
        variance.append(q.central(F))
    mean, weight = torch.stack(mean), 1 / torch.stack(variance).mean(0)
    mean = mean * ((weight * mean.mean(0) * mean).sum(1) / (weight * mean**2).sum(1))[:, None]
    want = (1 / weight + mean.var(0)).sqrt()
    assert (p.amplitudes(n_draws=16).SIGF / want).log().abs().median() < 0.05


def test_sites_of_its_own_and_images_in_a_plate():
    """Style of the model pages: k and B of the images as Pyro sites, without a scale among the arguments."""
    s = data(22)

    def model(obs):
        with pyro.plate("hkl", len(obs.asu)):
            F = pyro.sample("F", br.dist.Wilson(obs.asu.epsilon, obs.asu.centric))
        G = pyro.sample("G", dist.Normal(torch.tensor(5.0, **D), 3.0))
        B = pyro.sample("B", dist.LogNormal(torch.tensor(2.7, **D), 1.0))
        with pyro.plate("image", obs.n_image):
            k = pyro.sample("k", dist.Normal(torch.tensor(0.0, **D), 0.3))
        with pyro.plate("spot", len(obs)):
            I_pred = torch.exp(G + k[obs.image_id] - 2 * B * obs.stol2) * F[..., obs.hkl_id] ** 2
            sigma = (obs.SIGI**2 + (0.1 * I_pred) ** 2).sqrt()  # as much as this scale leaves out
            pyro.sample("I", dist.Normal(I_pred, sigma), obs=obs.I)

    p = br.fit(model, s.obs)
    assert p.converged
    sites = p.sites(400)
    assert abs(sites["B"].mean() - 17.5) < 3 * sites["B"].std()
    image_mean = torch.zeros(20, **D).index_add(0, s.obs.image_id, s.log_K) / s.obs.image_id.bincount()
    found = torch.stack([image_mean, sites["k"].mean(0)]).corrcoef()[0, 1]
    assert found > 0.9
