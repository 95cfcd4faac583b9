"""Curvature of latents that are no scale, such as one k for each image as a Pyro site."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from known_truth import simulated

import bayesref as br
from bayesref.guides.latents import Latents
from bayesref.inference.collapsed import Collapsed
from bayesref.inference.curvature import gauss_newton, jacobian, precision, prior_precision, scale_sites

D = {"dtype": torch.float64}


def model(obs, scale):
    """A scale, and beside it k of each image, B and the error of measurement as sites of their own."""
    with pyro.plate("hkl", len(obs.asu)):
        F = pyro.sample("F", br.dist.Wilson(obs.asu.epsilon, obs.asu.centric))
    w = pyro.sample("w", scale.prior())
    B = pyro.sample("B", dist.LogNormal(torch.tensor(1.0, **D), 0.5))
    with pyro.plate("image", obs.n_image):
        k = pyro.sample("k", dist.Normal(torch.tensor(0.0, **D), 0.3))
    a = pyro.sample("a", dist.LogNormal(torch.tensor(0.0, **D), 0.7))
    with pyro.plate("spot", len(obs)):
        K = torch.exp(scale(w, obs) + k[obs.image_id] - 2 * B * obs.stol2)
        pyro.sample("I", dist.Normal(K * F[..., obs.hkl_id] ** 2, a * obs.SIGI), obs=obs.I)


@pytest.fixture(scope="module")
def case():
    s = simulated(dmin=4.0, multiplicity=5, images=6, gain=0, sdadd=0, seed=3)
    scale = br.Falloff(s.obs, 0)
    c = Collapsed(model, s.obs, (scale,), Latents(model, (s.obs, scale)))
    z = br.fit(model, s.obs, scale).mean
    c.refresh(z)
    return c, z


NAMES = ["w", "B", "k"]


def test_sites_that_enter_the_scale(case):
    c, z = case
    assert scale_sites(c, z) == NAMES


def test_jacobian(case):
    """∂ log K/∂z by hand: 2 + 1 + 6 columns; B is exp of its coordinate."""
    c, z = case
    obs, values = c.pieces[0], c.latents.unpack(z)
    J = jacobian(c, obs, z, NAMES)
    image = torch.nn.functional.one_hot(obs.image_id, 6).to(J)
    want = [c.args[0].jacobian(values["w"], obs), (-2 * values["B"] * obs.stol2)[:, None], image]
    torch.testing.assert_close(J, torch.cat(want, 1))


def test_prior_precision(case):
    c, z = case
    want = torch.tensor([1.0, 1.0, 0.5**-2, *[0.3**-2] * 6], **D)
    torch.testing.assert_close(prior_precision(c, z, NAMES), want.diag())


def test_precision_is_the_hessian_on_average(case):
    """Against differences of the exact gradient. The expected information differs from the observed one by the
    scatter of Σ over 430 reflections, some √(2/430) = 7 % of what each direction has."""
    c, z = case
    H = precision(c, z, NAMES)
    step, rows = 1e-3, []
    for i in range(len(z)):
        e = torch.zeros_like(z)
        e[i] = step
        rows.append((c.exact(z - e)[1] - c.exact(z + e)[1]) / (2 * step))
    observed = torch.stack(rows)
    torch.testing.assert_close(observed, observed.T, rtol=1e-3, atol=1e-3 * float(observed.abs().max()))
    # in the coordinates where H is one
    L = torch.linalg.cholesky(torch.linalg.inv(H))
    relative = torch.linalg.eigvalsh(L.T @ observed @ L)
    assert (relative - 1).abs().max() < 4 * math.sqrt(2 / 430)


def test_information_of_one_reflection():
    """n spots of one reflection with one k each, all at a strong signal: diag(W) - W Wᵀ/(ΣW + τ), τ = F²."""
    s = simulated(dmin=4.0, multiplicity=5, images=6, gain=0, sdadd=0, seed=3)
    obs = s.obs
    h = int(((obs.counts() == 5) & ~obs.asu.centric).nonzero()[0])
    part = obs.slice_reflections(h, h + 1)
    scale = br.Falloff(obs, 0)
    c = Collapsed(model, part, (scale,), Latents(model, (part, scale)))
    z = torch.zeros(c.latents.n, **D)
    c.refresh(z)
    H = gauss_newton(c, z, ["k"])
    m = c.moments[0]
    K = torch.exp(scale(torch.zeros(2, **D), part) - 2 * part.stol2)
    W = m.precision * K**2 * m.m4
    tau = m.m2 / part.asu.epsilon
    inner = W.diag() - torch.outer(W, W) / (W.sum() + tau)
    image = torch.nn.functional.one_hot(part.image_id, 6).to(W)
    torch.testing.assert_close(H, image.T @ inner @ image, rtol=2e-3, atol=2e-3 * float(W.max()))
