"""Evidence of twinned pairs against brute-force integrals, its derivatives against differences."""

import itertools

import numpy as np
import pytest
import torch

from bayesref._checks import InputError
from bayesref.distributions.measured_amplitude import measured_amplitude
from bayesref.distributions.measured_twin import log_evidence_twin, measured_twin
from bayesref.distributions.rice_woolfson import RiceWoolfson

PAIR = torch.tensor([1, 0])


def log_joint(F, G, V, centric, y, sigma, f, kind, counted):
    """log p(F_h) p(F_h') p(y) on a grid, written out from the definition."""
    F = [torch.from_numpy(x) for x in F]
    law = [RiceWoolfson(g, v, centric) for g, v in zip(G, V, strict=True)]
    total = law[0].log_prob(F[0])[:, None] + law[1].log_prob(F[1])[None, :]
    J = F[0][:, None] ** 2, F[1][None, :] ** 2
    for k in range(2):
        if counted[k]:
            mean = (1 - f) * J[k] + f * J[1 - k]
            noise = torch.distributions.Normal(mean if kind == "I" else mean.sqrt(), sigma[k])
            total = total + noise.log_prob(y[k])
    return total.numpy()


def brute(*case):
    """log p(y) and E F_h by 300 × 300 Legendre nodes over the box that holds the integrand."""
    G, V = case[:2]
    box = [[max(0.0, float(G[k] - 8 * V[k] ** 0.5)), float(G[k] + 8 * V[k] ** 0.5)] for k in range(2)]
    for _ in range(6):
        x = [np.linspace(*b, 151)[1:] for b in box]
        L = log_joint(x, *case)
        inside = L.max() - 36 < L
        for k in range(2):
            rows = np.flatnonzero(inside.any(1 - k))
            h = x[k][1] - x[k][0]
            box[k] = [max(0.0, x[k][rows[0]] - 2 * h), x[k][rows[-1]] + 2 * h]
    t, w = np.polynomial.legendre.leggauss(300)
    x = [b[0] + 0.5 * (b[1] - b[0]) * (t + 1) for b in box]
    L = log_joint(x, *case)
    P = np.exp(L - L.max()) * np.outer(w, w) * 0.25 * (box[0][1] - box[0][0]) * (box[1][1] - box[1][0])
    return np.log(P.sum()) + L.max(), float(P.sum(1) @ x[0] / P.sum())


CASES = list(
    itertools.product([0.03, 0.25, 0.5], ["I", "F"], [False, True], [0.03, 0.3, 3.0], [(1, 1), (1, 0)])
)[::5]


@pytest.mark.parametrize(("f", "kind", "centric", "noise", "counted"), CASES)
def test_evidence_is_the_integral(f, kind, centric, noise, counted):
    g = np.random.default_rng(CASES.index((f, kind, centric, noise, counted)))
    G, V = torch.from_numpy(g.gamma(2, 0.5, 2)), torch.full((2,), 10 ** g.uniform(-1.2, 0.3)).double()
    J = (G.numpy() + 0.7 * V.numpy() ** 0.5 * g.standard_normal(2)) ** 2
    mean = (1 - f) * J + f * J[::-1]
    y = torch.from_numpy((mean if kind == "I" else mean**0.5) + noise * g.standard_normal(2))
    sigma = noise * torch.tensor([1.0, 1.7]).double()
    both = torch.tensor([centric, centric])
    found = measured_twin(G, V, both, y, sigma, PAIR, f, kind, torch.tensor(counted).bool()).amplitudes
    log_p, F = brute(G, V, torch.tensor(centric), y, sigma, f, kind, counted)
    assert float(found.log_evidence.sum()) == pytest.approx(log_p, abs=2e-3)
    assert float(found.F[0]) == pytest.approx(F, rel=1e-3)


def crystal(n=60, seed=0):
    g = torch.Generator().manual_seed(seed)
    G = 0.1 + 1.5 * torch.rand(2 * n, generator=g, dtype=torch.float64)
    V = 0.2 + 0.1 * torch.rand(2 * n, generator=g, dtype=torch.float64)
    centric = (torch.arange(n) % 4 == 0).repeat_interleave(2)
    mate = torch.arange(2 * n).reshape(n, 2).flip(1).reshape(-1)
    mate[:4] = torch.arange(4)  # on the twin axis
    F = RiceWoolfson(G, V, centric).sample()
    sigma = 0.02 + 0.5 * torch.rand(2 * n, generator=g, dtype=torch.float64) ** 3
    J = 0.7 * F**2 + 0.3 * F[mate] ** 2
    return G, V, centric, J + sigma * torch.randn(2 * n, generator=g, dtype=torch.float64), sigma, mate


@pytest.mark.parametrize("kind", ["I", "F"])
def test_derivatives_are_those_of_the_sum(kind):
    G, V, centric, y, sigma, mate = crystal()
    counted = torch.arange(len(G)) % 7 > 0

    def total(G, V, f):
        return log_evidence_twin(G, V, f, centric, y, sigma, mate, kind, counted)

    f = torch.tensor(0.28, dtype=torch.float64, requires_grad=True)
    a, b = G.clone().requires_grad_(), V.clone().requires_grad_()
    grads = torch.autograd.grad(total(a, b, f), (a, b, f))
    f = f.detach()
    d = 1e-2  # wide enough for the last digits of the quadrature not to matter
    assert float(total(G, V, f + d) - total(G, V, f - d)) / (2 * d) == pytest.approx(
        float(grads[2]), rel=2e-2
    )
    for x, grad, at in ((G, grads[0], 0), (V, grads[1], 1)):
        for i in (0, 9, 20, 31):
            e = torch.zeros_like(x)
            e[i] = 0.02
            up, down = ((G + s * e, V) if at == 0 else (G, V + s * e) for s in (1, -1))
            slope = float(total(*up, f) - total(*down, f)) / 0.04
            assert slope == pytest.approx(float(grad[i]), rel=2e-2, abs=5e-3)


def test_curvature_is_the_change_of_the_slope():
    G, V, centric, y, sigma, mate = crystal()
    m = measured_twin(G, V, centric, y, sigma, mate, 0.3, "I").amplitudes
    e = torch.zeros_like(G)
    first = (torch.arange(len(G)) < mate) | (mate == torch.arange(len(G)))
    e[first] = 0.01  # one of each pair at a time
    up, down = (
        measured_twin(G + s * e, V, centric, y, sigma, mate, 0.3, "I").amplitudes.slope_G for s in (1, -1)
    )
    torch.testing.assert_close(((up - down) / 0.02)[first], m.curvature_G[first], rtol=2e-2, atol=2e-2)


def test_no_twin_is_two_amplitudes():
    G, V, centric, y, sigma, mate = crystal()
    twin = measured_twin(G, V, centric, y, sigma, mate, 0.0, "I").amplitudes
    apart = measured_amplitude(G, V, centric, y, sigma, "I")
    pair = apart.log_evidence + apart.log_evidence[mate]
    # where an amplitude may vanish, nodes in R and φ fit worst
    torch.testing.assert_close(twin.log_evidence + twin.log_evidence[mate], pair, rtol=0, atol=5e-3)
    for k in ("slope_G", "slope_V", "F", "F2", "phased"):
        torch.testing.assert_close(getattr(twin, k), getattr(apart, k), rtol=2e-3, atol=2e-3)


def test_fraction_one_swaps_the_domains():
    G, V, centric, y, sigma, mate = crystal()
    one = measured_twin(G, V, centric, y, sigma, mate, 0.2, "I").amplitudes.log_evidence
    other = measured_twin(G, V, centric, y[mate], sigma[mate], mate, 0.8, "I").amplitudes.log_evidence
    torch.testing.assert_close(other, one, rtol=0, atol=1e-3)


def test_pairs_that_do_not_count_say_nothing():
    G, V, centric, y, sigma, mate = crystal()
    m = measured_twin(G, V, centric, y, sigma, mate, 0.2, "I", torch.zeros(len(G)).bool())
    assert float(m.amplitudes.log_evidence.abs().sum() + m.amplitudes.slope_G.abs().sum()) == 0
    assert m.slope_fraction == 0


@pytest.mark.parametrize(
    ("mate", "f", "kind", "says"),
    [([1, 1], 0.2, "I", "mate"), ([1, 0], 1.2, "I", "twin fraction"), ([1, 0], 0.2, "E", "kind")],
)
def test_bad_arguments(mate, f, kind, says):
    one = torch.ones(2).double()
    with pytest.raises(InputError, match=says):
        measured_twin(one, one, one > 2, one, one, torch.tensor(mate), f, kind)


def test_absurd_models_have_finite_evidence():
    """What a line search may try: expectations thousands of times what was measured, and errors too small for it."""
    G = torch.tensor([3e5, 5e5, 2e5, 7e5, 1e-8, 1e-9, 400.0, 300.0]).double()
    V = torch.tensor([50.0, 50.0, 10.0, 10.0, 1e-6, 1e-6, 1e-4, 1e-4]).double()
    y = torch.tensor([60.0, 0.0, 50.0, -20.0, 1e4, 2e4, 9e6, 1.0]).double()
    mate, counted = torch.arange(8).reshape(4, 2).flip(1).reshape(-1), torch.arange(8) != 1
    for f in (0.018, 0.5, 0.982):
        for centric in (False, True):
            m = measured_twin(
                G, V, torch.full((8,), centric), y, 0 * y + 10, mate, f, "I", counted
            ).amplitudes
            assert bool(torch.isfinite(torch.stack(list(vars(m).values()))).all())
            assert float(m.log_evidence.max()) < 0
