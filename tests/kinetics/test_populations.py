"""Populations against scipy and mpmath, conservation, gradients; responses against integrals of high precision."""

import math
from itertools import pairwise

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import torch
from hypothesis import given, settings

import bayesref as br
from bayesref.kinetics.populations import populations

DOUBLE = torch.float64


@st.composite
def schemes(draw, decades=6):
    """A random rate matrix with any graph: zero rates, equal rates, cycles."""
    n = draw(st.integers(2, 5))
    exponent = st.sampled_from([None, *np.linspace(-decades, decades, 13)])
    Q = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            e = draw(exponent) if i != j else None
            Q[i, j] = 0.0 if e is None else 10.0**e
    return Q - np.diag(Q.sum(0))


def one(n, i=0):
    return torch.eye(n, dtype=DOUBLE)[i]


@settings(deadline=None, max_examples=60)
@given(schemes(), st.lists(st.floats(-7, 7), min_size=1, max_size=4))
def test_conserved_and_non_negative(Q, log_t):
    t = 10.0 ** torch.tensor([*log_t, log_t[0]], dtype=DOUBLE)  # a time given twice too
    p = populations(torch.tensor(Q), one(len(Q)), t)
    assert (p >= 0).all()
    assert (p.sum(-1) - 1).abs().max() < 4e-15
    assert torch.equal(p[0], p[-1])


@settings(deadline=None, max_examples=40)
@given(schemes(decades=1), st.floats(-2, 1))
def test_as_scipy(Q, log_t):
    t = 10.0**log_t
    p = populations(torch.tensor(Q), one(len(Q)), torch.tensor([t], dtype=DOUBLE))[0].numpy()
    np.testing.assert_allclose(p, scipy.linalg.expm(Q * t)[:, 0], rtol=0, atol=1e-12)


def test_as_an_ode():
    Q = br.Scheme("A<->B->C->A").rate_matrix({"A->B": 2.0, "B->A": 0.3, "B->C": 0.5, "C->A": 0.1})
    p = populations(Q, one(3), torch.tensor([0.7, 5.0], dtype=DOUBLE)).numpy()
    ode = scipy.integrate.solve_ivp(
        lambda s, y: Q.numpy() @ y, (0, 5), one(3).numpy(), "DOP853", (0.7, 5.0), rtol=1e-12, atol=1e-14
    )
    np.testing.assert_allclose(p, ode.y.T, atol=1e-11)


def precise(Q):
    """The matrix with its diagonal in 60 digits."""
    M = mpmath.matrix(Q.tolist())
    for j in range(M.cols):
        M[j, j] = 0
        M[j, j] = -mpmath.fsum(M[:, j])
    return M


@settings(deadline=None, max_examples=12)
@given(schemes(), st.floats(-6, 6))
def test_every_element_of_a_stiff_scheme(Q, log_t):
    t = 10.0**log_t
    p = populations(torch.tensor(Q), one(len(Q)), torch.tensor([t], dtype=DOUBLE))[0].numpy()
    with mpmath.workdps(60):
        M = precise(Q) * mpmath.mpf(t)
        m = 60  # halvings: the norm is below 1e13
        E = mpmath.eye(len(Q))
        for n in range(12, 0, -1):
            E = mpmath.eye(len(Q)) + M * E / (mpmath.mpf(2) ** m * n)
        for _ in range(m):
            E = E * E
        want = np.array([float(E[i, 0]) for i in range(len(Q))])
    seen = want > 1e-200
    np.testing.assert_allclose(p[seen], want[seen], rtol=1e-11)


def test_equal_rates_closed_form():
    t = torch.logspace(-3, 2, 20, dtype=DOUBLE)
    p = br.Kinetics("A->B->C").populations({"A->B": 2.0, "B->C": 2.0}, t)
    torch.testing.assert_close(p[:, 1], 2 * t * torch.exp(-2 * t), rtol=1e-12, atol=0)


def closed(Q, t, width):
    """∫ N(t - s) p(s) ds by eigenvectors in 60 digits (distinct eigenvalues)."""
    with mpmath.workdps(60):
        value, vector = mpmath.eig(precise(Q))
        p0 = mpmath.matrix([1] + [0] * (len(Q) - 1))
        c, w, t = mpmath.lu_solve(vector, p0), mpmath.mpf(width), mpmath.mpf(t)
        out = p0 * mpmath.ncdf(-t / w)
        for l in range(len(Q)):
            lam = -value[l]
            seen = (
                mpmath.exp(lam**2 * w**2 / 2 - lam * t) * mpmath.erfc((lam * w - t / w) / mpmath.sqrt(2)) / 2
            )
            out += vector[:, l] * (c[l] * seen)
        return np.array([float(mpmath.re(x)) for x in out])


STIFF = br.Scheme("A->B->C->A, B->D").rate_matrix({"A->B": 1e6, "B->C": 1e-6, "C->A": 1.0, "B->D": 1e3})
MILD = br.Scheme("A->B->C").rate_matrix({"A->B": 3.0, "B->C": 0.2})
TIMES = [-1.0, -0.2, 0.0, 1e-7, 1e-3, 0.1, 0.1, 0.9, 3.0, 1e4]


@pytest.mark.parametrize("Q", [STIFF, MILD], ids=["stiff", "mild"])
@pytest.mark.parametrize("width", [1e-5, 0.3, 10.0])
def test_gaussian(Q, width):
    n = len(Q)
    p = br.GaussianResponse(width).convolve(Q, one(n), one(n), torch.tensor(TIMES, dtype=DOUBLE))
    want = np.stack([closed(Q, t, width) for t in TIMES])
    np.testing.assert_allclose(p.numpy(), want, rtol=0, atol=1e-10)
    assert (p.sum(-1) - 1).abs().max() < 1e-14


def by_quad(Q, t, density, support, n_jump=()):
    """∫ R(u) p(t - u) du with scipy, split where R or p jumps."""
    Q, n = Q.numpy(), len(Q)

    def integrand(u):
        s = t - u
        return density(u) * (scipy.linalg.expm(Q * s)[:, 0] if s > 0 else np.eye(n)[0])

    inner = sorted({support[0], support[1], *(x for x in (t, *n_jump) if support[0] < x < support[1])})
    return sum(scipy.integrate.quad_vec(integrand, a, b, epsabs=1e-12)[0] for a, b in pairwise(inner))


def emg(width, tail):
    def density(u):
        x = (width / tail - u / width) / math.sqrt(2)
        return math.exp(-0.5 * (u / width) ** 2) * scipy.special.erfcx(x) / (2 * tail)

    return density


RESPONSES = [
    (br.ExponentialGaussianResponse(0.3, 0.2), emg(0.3, 0.2), (-2.5, 8.0), ()),
    (br.BoxResponse(0.6), lambda u: 1 / 0.6, (-0.3, 0.3), ()),
    (
        br.HistogramResponse([-1.0, 0.0, 0.1, 0.5], [1.0, 2.0, 3.0]),
        lambda u: 1 / 6 if u < 0 else (20 / 6 if u < 0.1 else 7.5 / 6),
        (-1.0, 0.5),
        (0.0, 0.1),
    ),
]


@pytest.mark.parametrize(
    ("response", "density", "support", "jumps"), RESPONSES, ids=["emg", "box", "histogram"]
)
def test_other_responses(response, density, support, jumps):
    t = torch.tensor([-0.4, 0.0, 0.05, 0.2, 2.0], dtype=DOUBLE)
    p = response.convolve(MILD, one(3), one(3), t).numpy()
    want = np.stack([by_quad(MILD, x, density, support, jumps) for x in t.tolist()])
    np.testing.assert_allclose(p, want, rtol=0, atol=1e-9)


def test_stiff_box_closed_form():
    k, w = 1e9, 1.0
    Q = br.Scheme("A->B, C->A").rate_matrix({"A->B": k, "C->A": 1e-3})
    t = torch.tensor([-0.5, 0.0, 0.2, 0.5, 0.6], dtype=DOUBLE)
    a, b = (t - w / 2).clamp(min=0), (t + w / 2).clamp(min=0)
    before = 1 - (b - a) / w
    want = before + torch.exp(-k * a) * -torch.expm1(-k * (b - a)) / (k * w)
    p = br.BoxResponse(w).convolve(Q, one(3), one(3), t)
    torch.testing.assert_close(p[:, 0], want, rtol=1e-12, atol=1e-14)


@settings(deadline=None, max_examples=15)
@given(schemes(), st.sampled_from([r[0] for r in RESPONSES] + [br.GaussianResponse(0.3)]))
def test_responses_conserve(Q, response):
    n = len(Q)
    p = response.convolve(torch.tensor(Q), one(n), one(n), torch.tensor(TIMES, dtype=DOUBLE))
    assert (p >= 0).all()
    assert (p.sum(-1) - 1).abs().max() < 1e-13


@pytest.mark.parametrize("kind", [br.GaussianResponse, br.BoxResponse])
def test_width_zero_and_small(kind):
    t = torch.tensor([-1.0, 0.5, 2.0], dtype=DOUBLE)
    p = br.NoResponse().convolve(MILD, one(3), one(3), t)
    assert torch.equal(kind(0.0).convolve(MILD, one(3), one(3), t), p)
    near = kind(1e-6).convolve(MILD, one(3), one(3), t)
    torch.testing.assert_close(near, p, rtol=0, atol=1e-10)
    with pytest.raises(br.InputError, match="two calls"):
        kind(torch.tensor([0.0, 1.0])).convolve(MILD, one(3), one(3), t)
    with pytest.raises(br.InputError, match="at least zero"):
        kind(-1.0).convolve(MILD, one(3), one(3), t)


@pytest.mark.parametrize(
    "make",
    [
        lambda w: br.NoResponse(),
        br.GaussianResponse,
        lambda w: br.ExponentialGaussianResponse(w, 2 * w),
        br.BoxResponse,
    ],
    ids=["none", "gaussian", "emg", "box"],
)
def test_gradients(make):
    kinetics = br.Kinetics("A<->B->C")
    t = torch.tensor([-0.3, 0.1, 0.4, 2.0], dtype=DOUBLE)
    k = torch.tensor([2.0, 2.0, 0.5], dtype=DOUBLE, requires_grad=True)  # equal rates on purpose
    w = torch.tensor(0.3, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda k, w: kinetics.populations(k, t, response=make(w)), (k, w), check_undefined_grad=False
    )


@pytest.mark.parametrize("response", [br.NoResponse(), br.GaussianResponse(0.1), br.BoxResponse(0.1)])
def test_gradients_of_a_stiff_scheme_are_finite(response):
    log_k = torch.log(torch.tensor([1e6, 1e-6, 1.0, 1e3], dtype=DOUBLE)).requires_grad_()
    t = torch.tensor([-10.0, 0.0, 1e-6, 1.0, 1e6], dtype=DOUBLE)
    p = br.Kinetics("A->B->C->A, B->D").populations(log_k.exp(), t, response=response)
    (p * torch.rand_like(p)).sum().backward()
    assert torch.isfinite(log_k.grad).all()


def test_batch_is_each_alone():
    k = torch.exp(torch.randn(5, 2, dtype=DOUBLE) * 3)
    w = torch.rand(5, dtype=DOUBLE) + 0.1
    t = torch.tensor([-0.3, 0.1, 4.0], dtype=DOUBLE)
    kinetics = br.Kinetics("A->B->C")
    for make in (br.GaussianResponse, br.BoxResponse, lambda w: br.ExponentialGaussianResponse(w, w)):
        together = kinetics.populations(k, t, response=make(w))
        alone = [kinetics.populations(a, t, response=make(b)) for a, b in zip(k, w, strict=True)]
        torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-12)


def test_refused():
    with pytest.raises(br.InputError, match="a state of its own"):
        populations(torch.tensor([[-2.0, 0.0], [1.0, 0.0]]), one(2), torch.ones(1))
    with pytest.raises(br.InputError, match="negative rate"):
        populations(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), one(2), torch.ones(1))
    with pytest.raises(br.InputError, match="must rise"):
        br.HistogramResponse([0.0, 0.0, 1.0], [1.0, 1.0])
    with pytest.raises(br.InputError, match="one edge more"):
        br.HistogramResponse([0.0, 1.0], [1.0, 1.0])
    with pytest.raises(br.InputError, match="not all zero"):
        br.HistogramResponse([0.0, 1.0], [0.0])
