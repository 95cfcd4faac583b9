"""Priors about a reference amplitude: normalisation, scipy's densities, samples, gradients, posteriors."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch.autograd import gradcheck

from bayesref._checks import InputError
from bayesref.distributions import (
    AmplitudePosterior,
    ReferenceLaplace,
    ReferenceNormal,
    ReferenceStudentT,
    RiceWoolfson,
    Wilson,
)  # fmt: skip

LAWS = {
    "normal": (ReferenceNormal, stats.norm),
    "laplace": (ReferenceLaplace, stats.laplace),
    "student-t": (ReferenceStudentT, stats.t(4)),
}
G = torch.tensor([0.0, 0.3, 2.0, 5.0, 1.0, 1.0], dtype=torch.float64)
W = torch.tensor([0.5, 2.0, 0.01, 1.0, 0.3, 0.3], dtype=torch.float64)
KNOWN = torch.tensor([True, True, True, True, False, False])
EPSILON = torch.tensor([1.0, 2, 1, 4, 2, 1], dtype=torch.float64)
CENTRIC = torch.tensor([False, True, False, True, False, True])


def make(name, G=G, W=W, **more):
    return LAWS[name][0](G, W, KNOWN, EPSILON, CENTRIC, **more)


def one(prior, i):
    """log p of element i as a function of a number."""
    shape = prior.loc.shape
    return lambda F: float(prior.log_prob(torch.full(shape, F, dtype=torch.float64))[i])


@pytest.mark.parametrize("name", LAWS)
def test_integrates_to_one(name):
    prior = make(name)
    for i in range(len(G)):
        density = one(prior, i)
        lo, hi = (float(x[i]) for x in prior.interval(45.0))
        cuts = sorted(
            {lo, hi, *(np.clip(float(G[i]) + float(W[i]) * z, lo, hi) for z in (-9, -3, 0, 3, 9, 90))}
        )
        parts = [
            integrate.quad(lambda F: np.exp(density(F)), a, b, epsabs=1e-11, limit=200)[0]  # noqa: B023
            for a, b in pairwise(cuts)
        ]
        assert abs(sum(parts) - 1) < 1e-8


@pytest.mark.parametrize("name", LAWS)
def test_density_is_that_of_scipy_cut_off_at_zero(name):
    prior, law = make(name), LAWS[name][1]
    F = np.array([0.01, 0.5, 2.0, 7.0])
    mine = prior.log_prob(torch.tensor(F)[:, None].expand(4, len(G))).numpy()
    for i in np.flatnonzero(KNOWN.numpy()):
        g, w = float(G[i]), float(W[i])
        truth = law.logpdf((F - g) / w) - np.log(w) - np.log(law.sf(-g / w))
        np.testing.assert_allclose(mine[:, i], truth, rtol=1e-10, atol=1e-10)
    wilson = Wilson(EPSILON, CENTRIC).log_prob(torch.tensor(F)[:, None].expand(4, len(G))).numpy()
    np.testing.assert_array_equal(mine[:, ~KNOWN.numpy()], wilson[:, ~KNOWN.numpy()])


@pytest.mark.parametrize("df", [2, 4, 6, 10])
def test_students_tails_for_every_even_number(df):
    one = torch.ones(1, dtype=torch.float64)
    F = torch.tensor([[0.1], [1.0], [9.0]], dtype=torch.float64)
    prior = ReferenceStudentT(one, 0.7 * one, one > 0, one, one < 0, df=df)
    law = stats.t(df, 1.0, 0.7)
    truth = (law.cdf(F.numpy()) - law.cdf(0)) / law.sf(0)
    np.testing.assert_allclose(prior.cdf(F).numpy(), truth, rtol=1e-10)
    assert prior.expand((3, 1)).df == df


@pytest.mark.parametrize("df", [1, 3, 4.5, 0])
def test_other_degrees_of_freedom_are_refused(df):
    one = torch.ones(1, dtype=torch.float64)
    with pytest.raises(InputError, match="even number"):
        ReferenceStudentT(one, one, one > 0, one, one < 0, df=df)


@pytest.mark.parametrize("name", LAWS)
def test_samples_follow_the_distribution_function(name):
    prior = make(name)
    u = prior.cdf(prior.sample((4000,)))
    for i in range(len(G)):
        assert stats.kstest(u[:, i].numpy(), "uniform").pvalue > 1e-4
    levels = torch.tensor([1e-6, 0.2, 0.7, 1 - 1e-6], dtype=torch.float64)[:, None].expand(4, len(G))
    torch.testing.assert_close(prior.cdf(prior.icdf(levels)), levels, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", LAWS)
def test_slopes(name):
    F = torch.tensor([0.2, 1.0, 2.003, 4.0, 1.0, 0.5], dtype=torch.float64)
    g, w = (G + 0.05).requires_grad_(), W.clone().requires_grad_()
    assert gradcheck(lambda g, w: make(name, g, w).log_prob(F), (g, w))
    u = torch.tensor([0.1, 0.4, 0.3, 0.9, 0.5, 0.5], dtype=torch.float64)
    assert gradcheck(lambda g, w: make(name, g, w).icdf(u), (g, w), eps=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", LAWS)
def test_interval_holds_all_that_is_high_enough(name):
    prior = make(name)
    for drop in (5.0, 30.0):
        lo, hi = prior.interval(drop)
        top = prior.log_prob(torch.where(KNOWN, G, Wilson(EPSILON, CENTRIC).mean).clamp(min=1e-9))
        outside = prior.log_prob(hi * (1 + 1e-9))
        assert (outside < top - drop + 1e-6).all()
        left = prior.log_prob((lo * (1 - 1e-9)).clamp(min=1e-300))
        assert ((lo == 0) | (left < top - drop + 1e-6)).all()


@pytest.mark.parametrize("name", [*LAWS, "rice"])
def test_posterior_moments_against_brute_force(name, brute, zoom):
    a = torch.tensor([3.0, 40.0, 2e4, 0.5, 8.0, 8.0], dtype=torch.float64)
    b = a * torch.tensor([-0.2, 1.0, 4.02, 20.0, 1.5, 1.5], dtype=torch.float64)
    prior = RiceWoolfson(G, W, CENTRIC) if name == "rice" else make(name)
    q = AmplitudePosterior(prior, a, b)
    # The cusp of Laplace's law is not seen by smooth quadrature.
    tolerance = 3e-3 if name == "laplace" else 1e-7
    for i in range(len(G)):

        def log_density(F, i=i):
            x = torch.from_numpy(np.asarray(F, dtype=float))[:, None].expand(-1, len(G))
            return prior.log_prob(x)[:, i].numpy() + np.longdouble(
                -0.5 * float(a[i]) * F**4 + float(b[i]) * F**2
            )

        lo, hi = zoom(log_density, 0.0, 12.0)
        log_Z, mean, m2, *_, variance, _ = brute(log_density, lo, hi)
        assert abs(float(q.log_normalizer[i]) - log_Z) < tolerance * max(1, abs(log_Z))
        assert abs(float(q.mean[i]) - mean) < tolerance * np.sqrt(variance) + 1e-9
        assert abs(float(q.variance[i]) / variance - 1) < 10 * tolerance
        assert abs(float(q.moment(2)[i]) / m2 - 1) < tolerance
