"""Families of related amplitudes: message passing against sums over a grid of all amplitudes at once."""

import numpy as np
import pytest
import torch

from bayesref.distributions import AmplitudePosterior, RiceWoolfson, Wilson, WilsonTree, legendre, nodes
from bayesref.distributions.wilson_tree import family_ends
from bayesref.distributions.wilson_tree_nodes import log_evidence, solve

TOP = 4.5  # beyond, all likelihoods of these tests are negligible
A = torch.tensor([3.0, 0.0, 8.0]).double()  # the second row has no spots
B = torch.tensor([4.0, 0.0, 6.0]).double()
CHAIN, STAR = (-1, 0, 1), (-1, 0, 0)


def tree(parent, r, centric=False, epsilon=1.0):
    n = len(parent)
    r = torch.as_tensor(r, dtype=torch.float64)
    return WilsonTree(
        torch.full((n,), epsilon, dtype=torch.float64), torch.tensor([centric] * n), torch.tensor(parent), r
    )


def log_L(F, a=A, b=B):
    return F**2 * (b - 0.5 * a * F**2)


def place(n_row, top=TOP):
    lo, hi = torch.zeros(n_row).double(), torch.full((n_row,), top).double()
    return lambda N: (nodes(lo, hi, N), (legendre(N)[1][:, None] * 0.5 * (hi - lo)).log())


def posterior(t, a=A, b=B, n=64):
    at = place(len(t.parent))
    return solve(t, log_L(at(n)[0], a, b), at), at(n)[0]


def brute_force(t, a=A, b=B, m=160):
    """log Z, means and covariances of three rows on a grid of m³ points."""
    x = (torch.arange(m).double() + 0.5) * TOP / m
    total = torch.zeros(m, m, m).double()
    shape = [[-1 if i == k else 1 for i in range(3)] for k in range(3)]
    for k in range(3):
        p = int(t.parent[k])
        total = total + log_L(x, a[k], b[k]).reshape(shape[k])
        if p < 0:
            total = total + Wilson(t.epsilon[k], t.centric[k]).log_prob(x).reshape(shape[k])
        else:
            V = (t.epsilon[k] * (1 - t.r[k] ** 2)).expand(m, m)
            K = RiceWoolfson((t.r[k] * x).expand(m, m), V, t.centric[k]).log_prob(x[:, None].expand(m, m))
            total = total + (K if k < p else K.T).reshape([m if i in (k, p) else 1 for i in range(3)])
    top = total.max()
    P = (total - top).exp()
    log_Z = float(top + P.sum().log() + 3 * np.log(TOP / m))
    P = P / P.sum()
    X = [x.reshape(s) for s in shape]
    mean = torch.stack([(P * f).sum() for f in X])
    C = torch.stack(
        [
            torch.stack([(P * (f - i) * (g - j)).sum() for g, j in zip(X, mean, strict=True)])
            for f, i in zip(X, mean, strict=True)
        ]
    )
    return log_Z, mean, C


@pytest.mark.parametrize("parent", [CHAIN, STAR], ids=["chain", "star"])
@pytest.mark.parametrize("centric", [False, True])
@pytest.mark.parametrize("r", [0.5, 0.95])
def test_against_brute_force(parent, centric, r):
    t = tree(parent, [0.0, r, r], centric, epsilon=1.5)
    p, F = posterior(t)
    log_Z, mean, C = brute_force(t)
    assert p.log_Z == pytest.approx(log_Z, abs=2e-3)
    torch.testing.assert_close((p.weight * F).sum(0), mean, atol=2e-3, rtol=0)
    torch.testing.assert_close(p.covariance.tril(), C.tril(), atol=2e-3, rtol=0)


def test_without_correlation_rows_are_independent():
    t = tree(STAR, [0.0, 1e-9, 1e-9])
    p, F = posterior(t)
    alone = AmplitudePosterior(Wilson(t.epsilon, t.centric), A, B)
    assert p.log_Z == pytest.approx(float(alone.log_normalizer.sum()), abs=1e-8)
    torch.testing.assert_close((p.weight * F).sum(0), alone.mean, atol=1e-8, rtol=0)
    assert p.covariance[:, 0][1:].abs().max() < 1e-9


def test_near_one_all_rows_are_one_amplitude():
    t = tree(CHAIN, [0.0, 0.9998, 0.9998])
    p, F = posterior(t)
    one = AmplitudePosterior(Wilson(t.epsilon[:1], t.centric[:1]), A.sum()[None], B.sum()[None])
    assert p.log_Z == pytest.approx(float(one.log_normalizer), abs=0.02)
    torch.testing.assert_close((p.weight * F).sum(0), one.mean.expand(3), atol=5e-3, rtol=0)


def test_nodes_are_refined_where_r_is_high():
    t = tree(CHAIN, [0.0, 0.99, 0.99])
    few, many = posterior(t, n=40)[0], posterior(t, n=160)[0]
    assert max(p.F.shape[1] for p in few.parts) > 40
    assert few.log_Z == pytest.approx(many.log_Z, abs=1e-5)


@pytest.mark.parametrize("centric", [False, True])
def test_slopes(centric):
    """∂ log Z/∂r and ∂ log Z/∂a by differences."""
    at = place(3)

    def value(r, a):
        return log_evidence(tree(CHAIN, torch.stack([r * 0, r, 0.9 * r]), centric), log_L(at(64)[0], a), at)

    r, a = torch.tensor(0.8).double().requires_grad_(), A.clone().requires_grad_()
    by_r, by_a = torch.autograd.grad(value_with_graph(value, r, a, centric, at), [r, a])
    h = 1e-5
    with torch.no_grad():
        numeric = (value(r + h, a) - value(r - h, a)) / (2 * h)
        e = torch.tensor([0.0, 0.0, h]).double()
        numeric_a = (value(r, a + e) - value(r, a - e)) / (2 * h)
    assert float(by_r) == pytest.approx(float(numeric), rel=1e-6)
    assert float(by_a[2]) == pytest.approx(float(numeric_a), rel=1e-6)


def value_with_graph(value, r, a, centric, at):
    t = WilsonTree(
        torch.ones(3).double(),
        torch.tensor([centric] * 3),
        torch.tensor(CHAIN),
        torch.stack([r * 0, r, 0.9 * r]),
    )
    return log_evidence(t, log_L(at(64)[0], a), at)


def test_prior_of_each_row_given_the_others():
    """log L + log prior is the marginal: its mean and normalisation are those of the messages."""
    t = tree(CHAIN, [0.0, 0.9, 0.9])
    p, F = posterior(t)
    log_p = log_L(F) + p.log_prior(F) + place(3)(64)[1]
    torch.testing.assert_close((log_p.softmax(0) * F).sum(0), (p.weight * F).sum(0), atol=1e-8, rtol=0)


def test_joint_draws():
    t = tree(CHAIN, [0.0, 0.9, 0.9])
    p, F = posterior(t)
    at = place(3)
    u = torch.rand(4000, 3, generator=torch.Generator().manual_seed(1))
    draws = p.sample(t, log_L(F), at, lambda y, rows: 0.5 * TOP * (y + 1), u)
    C = torch.cov(draws.T)
    expected = p.covariance.tril()
    expected = expected + expected.tril(-1).T
    torch.testing.assert_close(C, expected, atol=0.01, rtol=0)
    torch.testing.assert_close(draws.mean(0), (p.weight * F).sum(0), atol=0.02, rtol=0)


@pytest.mark.parametrize("centric", [False, True])
def test_draws_of_the_prior(centric):
    """E F² = ε of every row; F² correlate by r² along each edge, r⁴ along two."""
    t = tree(CHAIN, [0.0, 0.8, 0.8], centric, epsilon=2.0)
    J = t.sample((40_000,)) ** 2
    torch.testing.assert_close(J.mean(0), torch.full((3,), 2.0).double(), atol=0.06, rtol=0)
    r = torch.corrcoef(J.T)
    for (i, j), expected in {(0, 1): 0.64, (1, 2): 0.64, (0, 2): 0.4096}.items():
        assert float(r[i, j]) == pytest.approx(expected, abs=0.02)


def test_density_of_the_prior():
    t = tree(CHAIN, [0.0, 0.7, 0.6], epsilon=1.3)
    F = torch.tensor([0.4, 1.1, 0.8]).double()
    expected = Wilson(t.epsilon, t.centric).log_prob(F)[0]
    expected = expected + RiceWoolfson(
        0.7 * F[0], torch.tensor(1.3 * 0.51, dtype=torch.float64), False
    ).log_prob(F[1])
    expected = expected + RiceWoolfson(
        0.6 * F[1], torch.tensor(1.3 * 0.64, dtype=torch.float64), False
    ).log_prob(F[2])
    assert float(t.log_prob(F)) == pytest.approx(float(expected), abs=1e-12)


def test_posterior_of_a_relative_that_contradicts():
    """Sharp spots that disagree by many sd of the prior leave finite numbers."""
    a = torch.tensor([1e4, 1e4]).double()
    b = a * torch.tensor([1.0, 4.0]).double()  # F = 1 and F = 2
    t = tree((-1, 0), [0.0, 0.99])
    lo, hi = torch.full((2,), 0.9).double(), torch.full((2,), 2.1).double()
    at = lambda N: (nodes(lo, hi, N), (legendre(N)[1][:, None] * 0.5 * (hi - lo)).log())  # noqa: E731
    p = solve(t, log_L(at(200)[0], a, b), at)
    F = (p.weight * at(200)[0]).sum(0)
    assert np.isfinite(p.log_Z)
    assert 1.0 < float(F[0]) < float(F[1]) < 2.0
    assert torch.isfinite(p.slope).all()


def test_where_families_end():
    assert family_ends(torch.tensor([-1, 0, 1, -1, -1, 4])).tolist() == [0, 3, 4, 6]
    assert family_ends(torch.tensor([-1, -1, 0, 1])).tolist() == [0, 4]
