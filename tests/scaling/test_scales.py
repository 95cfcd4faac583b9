"""Every scale: its derivative against autograd, its sum in a product, what it is at its start."""

from dataclasses import replace

import pytest
import torch
from known_truth import simulated

import bayesref as br
from bayesref.scaling.basis import bumps
from bayesref.scaling.scale import Group

D = {"dtype": torch.float64}


@pytest.fixture(scope="module")
def obs():
    """Monoclinic spots of two files, images 0-2 and 3-5."""
    obs = simulated(cell=(30, 40, 35, 90, 105, 90), spacegroup="P 21", dmin=5, multiplicity=3, images=6).obs
    return replace(obs, file_id=(obs.image_id >= 3).long())


SCALES = {
    "falloff": br.Falloff,
    "straight falloff": lambda obs: br.Falloff(obs, n_bumps=0),
    "additive": lambda obs: br.Additive(obs, n_single=5, n_pair=3),
    "without pairs": lambda obs: br.Additive(obs, n_single=5, n_pair=0),
    "image": br.ImageWise,
    "physical": lambda obs: br.Physical(obs, n_image_bumps=4, surface=("X", "Y"), n_surface=3),
    "no surface": lambda obs: br.Physical(obs, anisotropic=False),
    "neural": lambda obs: br.Neural(obs, width=5, depth=2),
    "shallow": lambda obs: br.Neural(obs, width=3, depth=1),
    "product": lambda obs: br.Product(br.Falloff(obs, 3), br.Neural(obs, 4, 1), br.ImageWise(obs)),
    "linear product": lambda obs: br.Product(br.Falloff(obs, 3), br.ImageWise(obs)),
}
each_scale = pytest.mark.parametrize("make", SCALES.values(), ids=SCALES.keys())


def weights(scale, size=0.5):
    return size * torch.randn(scale.n_weights, **D)


@each_scale
def test_jacobian_is_that_of_autograd(make, obs):
    scale = make(obs)
    w = weights(scale)
    J = torch.autograd.functional.jacobian(lambda w: scale(w, obs), w)
    assert J.shape == (len(obs), scale.n_weights)
    torch.testing.assert_close(scale.jacobian(w, obs), J, rtol=1e-10, atol=1e-12)


@each_scale
def test_linearized(make, obs):
    """Same value and slope at w; linear everywhere; the scale itself where that is linear already."""
    scale = make(obs)
    w, step = weights(scale), weights(scale, 1e-4)
    line = scale.linearized(w)
    assert (line is scale) == scale.linear
    torch.testing.assert_close(line(w, obs), scale(w, obs))
    torch.testing.assert_close(line.jacobian(w + step, obs), scale.jacobian(w, obs))
    torch.testing.assert_close(
        line(w + step, obs) - line(w, obs), scale.jacobian(w, obs) @ step, rtol=1e-6, atol=0
    )
    torch.testing.assert_close(scale(w + step, obs), line(w + step, obs), rtol=0, atol=1e-6)
    assert line.n_weights == scale.n_weights


@each_scale
def test_subsets_have_the_scales_of_the_whole(make, obs):
    """A minibatch or a piece of the reflections must see the same function."""
    scale = make(obs)
    w = weights(scale)
    whole = scale(w, obs)
    mask = obs.image_id % 2 == 1
    torch.testing.assert_close(scale(w, obs.subset(mask)), whole[mask])
    piece = obs.slice_reflections(3, 9)
    torch.testing.assert_close(scale(w, piece), whole[obs.offsets[3] : obs.offsets[9]])


@each_scale
def test_prior_and_groups_fit_the_weights(make, obs):
    scale = make(obs)
    n = scale.n_weights
    assert sum(g.n for g in scale.groups) == n == len(scale.initial()) == len(scale.sd())
    w = weights(scale)
    want = torch.distributions.Normal(0, 1).log_prob(w).sum()
    torch.testing.assert_close(scale.prior().log_prob(w), want)
    assert torch.isfinite(scale(scale.initial(), obs)).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_is_the_identity_at_its_start(obs, seed):
    scale = br.Neural(obs, seed=seed)
    assert (scale(scale.initial(), obs) == 0).all()
    torch.testing.assert_close(scale.initial(), br.Neural(obs, seed=seed).initial(), rtol=0, atol=0)
    assert (scale.initial() != br.Neural(obs, seed=seed + 1).initial()).any()
    # all that it needs to leave zero is in its last layer
    J = scale.jacobian(scale.initial(), obs)
    assert (J[:, -12:] != 0).all(1).any()
    assert (J[:, :-12] == 0).all()


@pytest.mark.parametrize("name", ["additive", "image", "physical"])
def test_linear_terms_are_the_identity_at_their_start(obs, name):
    scale = SCALES[name](obs)
    assert (scale(scale.initial(), obs) == 0).all()


def test_falloff_starts_at_the_wilson_line():
    """Without errors of measurement the line meets the true scale to what 1,300 random amplitudes allow."""
    s = simulated(dmin=2.8, sig0=1e-3, gain=0, sdadd=0, B1=0, seed=5)
    scale = br.Falloff(s.obs)
    log_K = scale(scale.initial(), s.obs)
    # the simulated detector adds a smooth 10 % of its own
    slopes = [torch.stack([s.obs.stol2, x]).cov()[0, 1] / s.obs.stol2.var() for x in (log_K, s.log_K)]
    assert abs((log_K - s.log_K).mean()) < 0.1
    assert slopes[0] == pytest.approx(float(slopes[1]), abs=5)


def test_product_adds_logarithms(obs):
    terms = br.Falloff(obs, 3), br.ImageWise(obs), br.Neural(obs, 4, 1)
    scale = br.Product(*terms)
    w = weights(scale)
    parts = w.split([t.n_weights for t in terms])
    torch.testing.assert_close(scale(w, obs), sum(t(x, obs) for t, x in zip(terms, parts, strict=True)))
    assert [g.name for g in scale.groups] == [g.name for t in terms for g in t.groups]
    assert not scale.linear
    with pytest.raises(AttributeError, match="groups of a Product"):
        scale.groups = [Group("mine", 1, 1.0)]


def test_image_scales_are_what_the_equation_says(obs):
    scale = br.ImageWise(obs)
    n, sd = obs.n_image, scale.sd()
    w = weights(scale)
    u = (obs.stol2 - obs.stol2.mean()) / obs.stol2.std()
    want = (sd * w)[obs.image_id] + (sd * w)[n + obs.image_id] * u
    torch.testing.assert_close(scale(w, obs), want)


def test_additive_can_follow_any_smooth_function(obs):
    """sin of one column plus a product of two, to one per cent, by least squares."""
    scale = br.Additive(obs, 12, 4)
    x = obs.metadata
    want = torch.sin(x[:, 0]) + 0.05 * x[:, 2] * x[:, 3]
    J = scale.jacobian(scale.initial(), obs)
    fitted = J @ torch.linalg.lstsq(J, want[:, None], driver="gelsd").solution[:, 0]
    assert (fitted - want).std() < 0.01


def test_bumps():
    x = torch.linspace(-1.0, 5.0, 1000, **D)
    phi = bumps(x, 12, (-1.0, 5.0))
    assert phi.shape == (1000, 12)
    torch.testing.assert_close(x[phi.argmax(0)], torch.linspace(-1.0, 5.0, 12, **D), rtol=0, atol=0.01)
    inside = (x > -1 + 4 * 6 / 11) & (x < 5 - 4 * 6 / 11)
    total = phi.sum(1)[inside]
    assert total.max() / total.min() - 1 < 0.01


def test_bumps_over_a_range_of_nothing():
    phi = bumps(torch.full((3,), 2.0, **D), 4, (2.0, 2.0))
    assert torch.isfinite(phi).all()


def test_a_value_is_kept_until_the_weights_or_the_prior_change(obs):
    scale = br.ImageWise(obs)
    w = weights(scale)
    first = scale(w, obs)
    assert scale(w, obs) is first
    torch.testing.assert_close(scale(2 * w, obs), 2 * first)
    leaf = w.clone().requires_grad_()
    assert scale(leaf, obs) is not scale(leaf, obs)  # graphs are never shared
    scale.groups = [replace(g, sd=3 * g.sd) for g in scale.groups]
    scale.forget()
    torch.testing.assert_close(scale(w, obs), 3 * first)


def test_observations_are_not_kept_alive(obs):
    scale = br.ImageWise(obs)
    piece = obs.subset(slice(0, 10))
    scale(weights(scale), piece)
    assert len(scale._features) == 1
    del piece
    assert len(scale._features) == 0
