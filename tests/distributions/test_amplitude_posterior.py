"""The amplitude posterior against brute force: moments, gradients, quantiles, its place in a guide."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.special
import torch
from pyro.infer import Trace_ELBO
from torch.autograd import gradcheck, gradgradcheck

from bayesref.distributions import AmplitudePosterior, NodePosterior, RiceWoolfson, Wilson

D = {"dtype": torch.float64}
N = 300


def _wilson_truth(brute, V, centric, a, b):
    """log Z and moments, the square completed for b above 1/V so that no digits go to b²/(2a)."""
    V, a, b = (np.longdouble(x) for x in (V, a, b))
    c = b - (0.5 if centric else 1) / V
    norm = 0.5 * np.log(2 / (np.pi * V)) if centric else np.log(2 / V)
    if c > 0:
        mu, sd = c / a, 1 / np.sqrt(a)
        lo, hi, offset = np.sqrt(max(mu - 12 * sd, 0)), np.sqrt(mu + 12 * sd), c * mu / 2
    else:
        lo, hi, offset = 0, np.sqrt(2 * 70 / (-c + np.sqrt(c * c + 140 * a))), np.longdouble(0)

    def log_density(F):
        J = F * F
        core = -0.5 * a * (J - mu) ** 2 if c > 0 else -J * (a * J / 2 - c)
        return core if centric else core + np.log(F)

    out = brute(log_density, lo, hi)
    out[0] += norm + offset
    return out


@pytest.fixture(scope="module")
def wilson_cases(brute):
    """a from 10⁻⁶ to 10¹², I from -10 to 10⁶ standard deviations, ε from 1 to 12: (posterior, truth)."""
    rng = np.random.default_rng(1)
    a = 10 ** rng.uniform(-6, 12, N)
    z = np.where(rng.random(N) < 0.6, rng.uniform(-10, 10, N), 10 ** rng.uniform(0, 6, N))
    epsilon, Sigma = rng.choice([1.0, 2, 3, 4, 6, 8, 12], N), 10 ** rng.uniform(-2, 2, N)
    centric = rng.random(N) < 0.6
    b = z * np.sqrt(a)
    truth = [_wilson_truth(brute, *x) for x in zip(epsilon * Sigma, centric, a, b, strict=True)]
    tensors = [torch.tensor(x) for x in (epsilon, centric, Sigma, a, b)]
    return tensors, np.array(truth, dtype=float).T


def _posterior(tensors):
    epsilon, centric, Sigma, a, b = tensors
    return AmplitudePosterior(Wilson(epsilon, centric, Sigma), a, b)


def test_brute_force_is_itself_right(brute):
    """∫ F exp(-F²) dF = 1/2 and E F⁴ = 2."""
    out = brute(lambda F: np.log(F) - F * F, 0, 9)
    np.testing.assert_allclose(out[[0, 2, 4]].astype(float), [-math.log(2), 1, 2], rtol=1e-15)


def test_normaliser_and_moments(wilson_cases):
    tensors, truth = wilson_cases
    q = _posterior(tensors)
    np.testing.assert_allclose(q.log_normalizer, truth[0], rtol=1e-12, atol=1e-12)
    for k in (1, 2, 3, 4):
        np.testing.assert_allclose(q.moment(k), truth[k], rtol=1e-10)
    np.testing.assert_allclose(q.mean, truth[1], rtol=1e-10)
    np.testing.assert_allclose(q.variance, truth[5], rtol=1e-9)
    np.testing.assert_allclose(q.mean_intensity, truth[2], rtol=1e-10)
    np.testing.assert_allclose(q.variance_intensity, truth[6], rtol=1e-9)


def test_gradients_of_the_normaliser(wilson_cases):
    (epsilon, centric, Sigma, a, b), truth = wilson_cases
    leaves = [x.clone().requires_grad_() for x in (a, b, Sigma)]
    q = AmplitudePosterior(Wilson(epsilon, centric, leaves[2]), *leaves[:2])
    da, db, dSigma = torch.autograd.grad(q.log_normalizer.sum(), leaves)
    np.testing.assert_allclose(da, -truth[4] / 2, rtol=1e-10)
    np.testing.assert_allclose(db, truth[2], rtol=1e-10)
    # ∂ log p(F)/∂Σ = (F²/(εΣ) - 1)/Σ acentric, half of it centric
    factor = np.where(centric, 0.5, 1.0)
    expected = factor * (truth[2] / (epsilon * Sigma).numpy() - 1) / Sigma.numpy()
    np.testing.assert_allclose(dSigma, expected, rtol=1e-8, atol=1e-10 / Sigma.min())


def test_log_prob_and_quantiles(wilson_cases):
    tensors, _ = wilson_cases
    q = _posterior(tensors)
    p = [kind.nodes for _, kind in q._kinds]
    rows = [rows for rows, _ in q._kinds]
    for mine, part in zip(rows, p, strict=True):
        sub = AmplitudePosterior(Wilson(*(x[mine] for x in tensors[:3])), tensors[3][mine], tensors[4][mine])
        again = NodePosterior(part.lo, part.hi, sub.log_prob(part.F))
        torch.testing.assert_close(again.log_normalizer, torch.zeros_like(part.lo), atol=1e-9, rtol=0)
    u = torch.tensor([1e-6, 0.02, 0.5, 0.98, 1 - 1e-6], **D)[:, None].expand(5, N)
    F = q.icdf(u)
    assert (F.diff(dim=0) > 0).all()
    torch.testing.assert_close(q.cdf(F), u, atol=1e-9, rtol=0)


def test_samples_have_finite_gradients_everywhere(wilson_cases):
    (epsilon, centric, Sigma, a, b), _ = wilson_cases
    leaves = [x.clone().requires_grad_() for x in (a, b, Sigma)]
    q = AmplitudePosterior(Wilson(epsilon, centric, leaves[2]), *leaves[:2])
    F = q.rsample((400,))
    assert (F > 0).all()
    assert q.log_prob(F).isfinite().all()
    grads = torch.autograd.grad(F.mean(0).sum(), leaves)
    assert all(g.isfinite().all() for g in grads)
    z = (F.mean(0) - q.mean) / q.stddev * 20
    assert z.abs().max() < 5
    exact = torch.autograd.grad(q.mean.sum(), leaves[1])[0]  # Cov(F, F²)
    relative = (grads[1] - exact).abs() / (q.variance * q.variance_intensity).sqrt()
    assert relative.max() < 0.6
    assert relative.mean() < 0.06


def test_finite_differences():
    epsilon, centric = torch.tensor([1.0, 2, 1, 1], **D), torch.tensor([True, True, False, False])
    Sigma = torch.tensor([1.0, 2, 0.5, 3], requires_grad=True, **D)
    a = torch.tensor([0.5, 20, 3, 0.01], requires_grad=True, **D)
    b = torch.tensor([-2.0, 60, 4, -0.3], requires_grad=True, **D)
    F = torch.tensor([0.4, 1.5, 1.2, 1.0], requires_grad=True, **D)
    u = torch.tensor([0.2, 0.5, 0.9, 0.7], **D)

    def make(a, b, Sigma):
        return AmplitudePosterior(Wilson(epsilon, centric, Sigma), a, b)

    assert gradcheck(lambda *x: make(*x).log_normalizer, (a, b, Sigma))
    assert gradgradcheck(lambda *x: make(*x).log_normalizer, (a, b, Sigma))
    assert gradcheck(lambda F, *x: make(*x).log_prob(F), (F, a, b, Sigma))
    assert gradcheck(lambda *x: make(*x).mean, (a, b, Sigma))
    # the span moves with the parameters by less than the node error, so steps must not be too small
    assert gradcheck(lambda *x: make(*x).icdf(u), (a, b, Sigma), eps=1e-4, atol=1e-5)
    assert gradcheck(lambda *x: make(*x).cdf(F), (a, b, Sigma), eps=1e-4, atol=1e-5)


def test_no_spots_gives_the_prior():
    epsilon, centric = torch.tensor([1.0, 3, 2, 1], **D), torch.tensor([True, False, False, True])
    zero = torch.zeros(4, **D)
    for prior in (Wilson(epsilon, centric, 2.0), RiceWoolfson(epsilon, 0.5 * epsilon, centric)):
        a, b = zero.clone().requires_grad_(), zero.clone().requires_grad_()
        q = AmplitudePosterior(prior, a, b)
        F = prior.sample((30,))
        torch.testing.assert_close(q.log_normalizer.detach(), zero, atol=1e-12, rtol=0)
        torch.testing.assert_close(q.log_prob(F).detach(), prior.log_prob(F), atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(q.mean.detach(), prior.mean, rtol=1e-11, atol=0)
        torch.testing.assert_close(q.variance.detach(), prior.variance, rtol=1e-11, atol=0)
        torch.testing.assert_close(q.cdf(F).detach(), prior.cdf(F), atol=1e-8, rtol=0)
        da, db = torch.autograd.grad(q.log_normalizer.sum(), (a, b))
        torch.testing.assert_close(db, prior.mean_intensity, rtol=1e-11, atol=0)
        torch.testing.assert_close(-2 * da, q.moment(4).detach(), rtol=1e-10, atol=0)
        assert all(g.isfinite().all() for g in torch.autograd.grad(q.rsample().sum(), (a, b)))


def test_rice_woolfson_prior(brute, zoom):
    rng = np.random.default_rng(2)
    n = 80
    V, a = 10 ** rng.uniform(-3, 2, n), 10 ** rng.uniform(-6, 8, n)
    G = 10 ** rng.uniform(-2, 1.5, n) * rng.choice([0, 1, 1, 1], n)
    z = np.where(rng.random(n) < 0.6, rng.uniform(-10, 10, n), 10 ** rng.uniform(0, 4, n))
    centric, b = rng.random(n) < 0.5, z * np.sqrt(a)
    q = AmplitudePosterior(
        RiceWoolfson(*(torch.tensor(x) for x in (G, V, centric))), torch.tensor(a), torch.tensor(b)
    )
    offset = np.where(b > 0, b * b / (2 * a), 0)
    rows = []
    for i in range(n):

        def log_density(F, i=i):
            x = F * np.longdouble(G[i]) / V[i]
            if centric[i]:
                prior = 0.5 * np.log(2 / (np.pi * V[i])) - (F - G[i]) ** 2 / (2 * V[i])
                prior = prior + np.logaddexp(0, -2 * x) - np.log(np.longdouble(2))
            else:
                scaled = scipy.special.i0e((2 * x).astype(float)).astype(np.longdouble)
                prior = np.log(np.maximum(2 * F / V[i], 1e-300)) - (F - G[i]) ** 2 / V[i] + np.log(scaled)
            J, root = F * F, np.sqrt(np.longdouble(a[i]))
            return prior - (0.5 * (root * J - b[i] / root) ** 2 if b[i] > 0 else J * (0.5 * a[i] * J - b[i]))

        top = max(G[i], math.sqrt(max(b[i], 0) / a[i])) + 12 * math.sqrt(V[i])
        rows.append(brute(log_density, *zoom(log_density, 0.0, top)))
    truth = np.array(rows, dtype=float).T
    np.testing.assert_allclose(q.log_normalizer, truth[0] + offset, rtol=1e-12, atol=1e-10)
    for k in (1, 2, 3, 4):
        np.testing.assert_allclose(q.moment(k), truth[k], rtol=1e-8)
    np.testing.assert_allclose(q.variance, truth[5], rtol=2e-8)
    u = torch.rand(20, n, **D)
    torch.testing.assert_close(q.cdf(q.icdf(u)), u, atol=1e-9, rtol=0)


def test_rice_woolfson_gradients():
    centric = torch.tensor([True, False, True])
    G = torch.tensor([1.0, 2.0, 0.2], requires_grad=True, **D)
    V = torch.tensor([0.3, 0.5, 2.0], requires_grad=True, **D)
    a = torch.tensor([4.0, 50.0, 0.1], requires_grad=True, **D)
    b = torch.tensor([5.0, 160.0, -0.4], requires_grad=True, **D)
    u = torch.tensor([0.2, 0.6, 0.9], **D)

    def make(G, V, a, b):
        return AmplitudePosterior(RiceWoolfson(G, V, centric), a, b)

    assert gradcheck(lambda *x: make(*x).log_normalizer, (G, V, a, b))
    assert gradgradcheck(lambda *x: make(*x).log_normalizer, (G, V, a, b))
    assert gradcheck(lambda *x: make(*x).icdf(u), (G, V, a, b), eps=1e-4, atol=1e-5)


def test_shapes(wilson_cases):
    (epsilon, centric, Sigma, a, b), _ = wilson_cases
    q = AmplitudePosterior(Wilson(epsilon[:5], centric[:5], Sigma[:5]), a[:5].expand(3, 5), b[:5])
    assert q.batch_shape == (3, 5)
    F = q.sample((2,))
    assert F.shape == q.log_prob(F).shape == (2, 3, 5)
    wide = q.expand((4, 3, 5))
    assert wide.rsample().shape == wide.mean.shape == wide.log_normalizer.shape == (4, 3, 5)
    torch.testing.assert_close(wide.mean[1], q.mean)
    torch.testing.assert_close(q.log_prob(F[0])[2], wide.log_prob(F[0])[3, 2])
    assert q.log_prob(torch.ones(48, 1, 5, **D)).shape == (48, 3, 5)
    assert q.to_event(1).log_prob(F).shape == (2, 3)
    assert AmplitudePosterior(Wilson(epsilon[:0], centric[:0]), a[:0], b[:0]).sample().shape == (0,)


@pytest.mark.parametrize("kind", [True, False])
def test_one_kind_only(kind):
    n = 6
    prior = Wilson(torch.ones(n, **D), torch.full((n,), kind))
    q = AmplitudePosterior(prior, torch.ones(n, **D), torch.linspace(-3, 3, n, **D))
    assert (q.mean.diff() > 0).all()
    assert q.log_prob(q.sample((3,))).isfinite().all()


def test_backward_twice_and_no_gradient_lost(wilson_cases):
    (epsilon, centric, Sigma, a, b), _ = wilson_cases
    a = a[:20].clone().requires_grad_()
    q = AmplitudePosterior(Wilson(epsilon[:20], centric[:20], Sigma[:20]), a, b[:20])
    with torch.no_grad():
        assert not q.mean.requires_grad
    for _ in range(2):
        (grad,) = torch.autograd.grad(q.log_normalizer.sum() + q.mean.sum(), a)
        assert grad.isfinite().all()


def test_elbo_is_the_evidence_at_every_draw():
    """log p(F) + log p(I|F) - log q(F) = log p(I), whatever F."""
    n = 40
    epsilon, centric = torch.ones(n, **D), torch.arange(n) % 4 == 0
    K, v = 0.5 + torch.rand(3, n, **D), 0.1 + torch.rand(3, n, **D)
    F = Wilson(epsilon, centric).sample()
    I = K * F**2 + v.sqrt() * torch.randn(3, n, **D)
    a, b = (K**2 / v).sum(0), (K * I / v).sum(0)

    def model():
        with pyro.plate("hkl", n):
            F = pyro.sample("F", Wilson(epsilon, centric))
            with pyro.plate("spot", 3):
                pyro.sample("I", dist.Normal(K * F**2, v.sqrt()), obs=I)

    def guide():
        with pyro.plate("hkl", n):
            pyro.sample("F", AmplitudePosterior(Wilson(epsilon, centric), a, b))

    evidence = AmplitudePosterior(Wilson(epsilon, centric), a, b).log_normalizer.sum()
    evidence = evidence - 0.5 * ((2 * math.pi * v).log() + I**2 / v).sum()
    draws = [-Trace_ELBO().loss(model, guide) for _ in range(5)]
    np.testing.assert_allclose(draws, float(evidence), rtol=1e-11)


def test_single_precision():
    n = 200
    epsilon, centric = torch.ones(n), torch.arange(n) % 3 == 0
    a, z = torch.logspace(-4, 6, n), torch.linspace(-8, 50, n)
    prior = Wilson(epsilon, centric)
    q = AmplitudePosterior(prior, a, z * a.sqrt())
    exact = AmplitudePosterior(Wilson(epsilon.double(), centric), a.double(), (z * a.sqrt()).double())
    assert q.mean.dtype == q.sample().dtype == torch.float32
    torch.testing.assert_close(q.mean.double(), exact.mean, rtol=1e-4, atol=0)
    torch.testing.assert_close(q.variance.double(), exact.variance, rtol=1e-2, atol=0)
    torch.testing.assert_close(q.log_normalizer.double(), exact.log_normalizer, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(q.cdf(q.sample((20,))).mean(), torch.tensor(0.5), atol=0.05, rtol=0)


def test_parameters_are_checked():
    one = torch.ones(2, **D)
    with pytest.raises(ValueError, match="parameter a"):
        AmplitudePosterior(Wilson(one, one > 0), -one, one)
