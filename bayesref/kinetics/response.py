"""Instrument response: what a probe of finite length sees.

    ⟨p⟩(t) = ∫ R(u) p(t - u) du,     ∫ R = 1,     p(s) = p_before for s < 0

    Gaussian                 R(u) = N(u; 0, σ²)
    exponential-Gaussian     the Gaussian convolved with exp(-u/τ)/τ, u > 0: excitation that comes late
    box                      R(u) = 1/w for |u| < w/2
    histogram                R(u) = weight_b / length_b in bin b

The integral starts anew at the step s = 0, on which no panel lies across. Gaussian: from a = max(0, t - 7σ) on,

    ⟨p⟩(t) = Φ(-c) p_before + Σ_j w_j N(c - v_j) exp(Q σ v_j) p(a),      c = (t - a)/σ,

with Gauss-Legendre panels of length σ up to v = 14, the first one halved down to the fastest rate, so that decays of
any rate are resolved. The nodes do not depend on t, and those of one panel are those of the panel before, doubled:
one chain of squarings gives all. Box and histogram are exact means of exp(Q s) p(a); the exponential is exact as one
more state that feeds the reaction at rate 1/τ.
"""

import math
from dataclasses import dataclass

import torch

from bayesref._checks import InputError
from bayesref.kinetics.populations import (
    apply,
    fastest,
    gauss_legendre,
    halvings,
    mean_populations,
    normalise,
    off_diagonal,
    propagator,
    square,
    step,
)
from bayesref.kinetics.units import seconds

REACH = 7.0  # in σ: the mass beyond is 1.3e-12 on each side


def _values(name: str, x, like: torch.Tensor) -> torch.Tensor:
    x = torch.as_tensor(seconds(x) if isinstance(x, str) else x, dtype=like.dtype, device=like.device)
    try:
        torch.broadcast_shapes(x.shape, like.shape[:-2])
    except RuntimeError:
        raise InputError(
            f"The {name} of the response has shape {tuple(x.shape)}; expected () or that of the rates, "
            f"{tuple(like.shape[:-2])}."
        ) from None
    if (x < 0).any():  # NaN passes, so that a sampler sees a NaN and not an end
        raise InputError(f"The {name} of the response must be at least zero, s; found {x.tolist()}.")
    return x


@dataclass(frozen=True)
class NoResponse:
    """An instant probe: ⟨p⟩(t) = p(t)."""

    def convolve(self, Q, start, before, t):
        """⟨p⟩(t), (..., time, state).

        Parameters
        ----------
        Q : rate matrix, 1/s, (..., state, state)
        start : populations at t = 0, (..., state)
        before : populations at t < 0, (..., state)
        t : times, s, (..., time)
        """
        p = apply(propagator(off_diagonal(Q), t.clamp(min=0)), start[..., None, :])
        return torch.where((t < 0)[..., None], before[..., None, :], p)


@dataclass(frozen=True)
class GaussianResponse:
    """A Gaussian of standard deviation `width`, s, () or the batch shape of Q; zero = an instant probe."""

    width: torch.Tensor | float

    def convolve(self, Q, start, before, t):
        """⟨p⟩(t), (..., time, state); arguments as in `NoResponse.convolve`."""
        width = _values("width", self.width, Q)
        if not width.any():
            return NoResponse().convolve(Q, start, before, t)
        if not width.all():
            raise InputError("Some widths of the response are zero, others not; give these in two calls.")
        return _gaussian(off_diagonal(Q), start, before, t, width[..., None])


@dataclass(frozen=True)
class ExponentialGaussianResponse:
    """A Gaussian of standard deviation `width` convolved with an exponential tail of mean `tail`, both s."""

    width: torch.Tensor | float
    tail: torch.Tensor | float

    def convolve(self, Q, start, before, t):
        """⟨p⟩(t), (..., time, state); arguments as in `NoResponse.convolve`."""
        tail = _values("tail", self.tail, Q)
        if not tail.any():
            return GaussianResponse(self.width).convolve(Q, start, before, t)
        if not tail.all():
            raise InputError("Some tails of the response are zero, others not; give these in two calls.")
        n = Q.shape[-1]
        shape = torch.broadcast_shapes(Q.shape[:-2], tail.shape, start.shape[:-1])
        feed = (start / tail[..., None]).expand(*shape, n)
        waiting = torch.cat([feed, -feed.sum(-1, keepdim=True)], -1)[..., None]  # (..., state + 1, 1)
        wide = torch.cat([torch.nn.functional.pad(Q, (0, 0, 0, 1)).expand(*shape, n + 1, n), waiting], -1)
        first = torch.zeros(n + 1).to(Q)
        first[n] = 1
        p = GaussianResponse(self.width).convolve(wide, first, first, t)
        return p[..., :n] + p[..., n:] * before[..., None, :]


@dataclass(frozen=True)
class BoxResponse:
    """A box of full width `width`, s, () or the batch shape of Q; zero = an instant probe."""

    width: torch.Tensor | float

    def convolve(self, Q, start, before, t):
        """⟨p⟩(t), (..., time, state); arguments as in `NoResponse.convolve`."""
        width = _values("width", self.width, Q)
        if not width.any():
            return NoResponse().convolve(Q, start, before, t)
        if not width.all():
            raise InputError("Some widths of the response are zero, others not; give these in two calls.")
        half = width[..., None] / 2
        return _uniform(off_diagonal(Q), start, before, t - half, t + half)


@dataclass(frozen=True)
class HistogramResponse:
    """A measured response, constant in each bin: `edges`, s, (bin + 1,) rising; `weights` ≥ 0, (bin,), of any sum."""

    edges: torch.Tensor
    weights: torch.Tensor

    def __post_init__(self):
        edges = torch.as_tensor(self.edges, dtype=torch.float64)
        weights = torch.as_tensor(self.weights, dtype=torch.float64)
        if edges.ndim != 1 or weights.shape != (len(edges) - 1,) or len(weights) == 0:
            raise InputError(
                f"The histogram of the response has {tuple(edges.shape)} edges and {tuple(weights.shape)} weights; "
                "expected one edge more than weights."
            )
        if not (edges.diff() > 0).all():
            raise InputError(
                "The edges of the response's histogram must rise; sort them and drop duplicates."
            )
        if not (weights >= 0).all() or not 0 < float(weights.sum()) < math.inf:
            raise InputError(
                "The weights of the response's histogram must be at least zero, and not all zero."
            )

    def convolve(self, Q, start, before, t):
        """⟨p⟩(t), (..., time, state); arguments as in `NoResponse.convolve`."""
        edges = torch.as_tensor(self.edges, dtype=Q.dtype, device=Q.device)
        weights = torch.as_tensor(self.weights, dtype=Q.dtype, device=Q.device)
        weights, n = weights / weights.sum(), len(weights)
        low = (t[..., None] - edges[1:]).flatten(-2)  # (..., time × bin)
        high = (t[..., None] - edges[:-1]).flatten(-2)
        p = _uniform(off_diagonal(Q), start, before, low, high)
        return (p.unflatten(-2, (t.shape[-1], n)) * weights[:, None]).sum(-2)


def _uniform(rates, start, before, low, high):
    """Mean of p over [low, high], (..., time) each: (..., time, state)."""
    a = low.clamp(min=0)
    length = high.clamp(min=0) - a
    after = (length / (high - low))[..., None]
    shape = torch.broadcast_shapes(rates.shape[:-2], start.shape[:-1], length.shape[:-1])
    mean = mean_populations(rates.expand(*shape, *rates.shape[-2:]), start, length)
    return (1 - after) * before[..., None, :] + after * apply(propagator(rates, a), mean)


def _gaussian(rates, start, before, t, width):
    v, w, E = _nodes(rates, width)
    far = t > REACH * width
    c = torch.where(far, torch.full_like(t / width, REACH), t / width).clamp(min=-40.0)  # N(40) = 0
    a = (t - REACH * width).clamp(min=0)
    p = apply(propagator(rates, a), start[..., None, :])  # (..., time, state)
    W = w * torch.exp(-0.5 * (c[..., None] - v) ** 2) / math.sqrt(2 * math.pi)  # (..., time, node)
    missed = torch.special.ndtr(-c)
    total = missed + W.sum(-1)  # 1 but for the quadrature
    n = rates.shape[-1]
    seen = (W @ E.flatten(-2)).unflatten(-1, (n, n))  # (..., time, state, state)
    return (missed[..., None] * before[..., None, :] + apply(seen, p)) / total[..., None]


def _nodes(rates, width):
    """Nodes in units of σ and weights, (node,), and exp(Q σ v), (..., node, state, state); width (..., 1)."""
    x, w = gauss_legendre(rates)
    m = halvings(fastest(rates)[..., None] * width)
    E = step(rates[..., None, :, :], width * 0.5**m * (1 + x))  # λ h ≤ 1 on [h, 2h]: the Taylor sum bears it
    first = step(rates[..., None, :, :], width * 0.5**m * x)
    v, weight, all_E = [x * 0.5**m], [w * 0.5**m], [first]
    for i in range(m):
        h = 0.5 ** (m - i)
        v.append(h * (1 + x))
        weight.append(h * w)
        all_E.append(E)
        E = square(E)
    # E now holds the nodes of [1, 2]; the panel after adds one σ to each node.
    one = step(rates[..., None, :, :], width * 0.5**m)
    for _ in range(m):
        one = square(one)
    for k in range(1, int(2 * REACH)):
        v.append(k + x)
        weight.append(w)
        all_E.append(E)
        E = normalise(one @ E)
    return torch.cat(v), torch.cat(weight), torch.cat(torch.broadcast_tensors(*all_E), -3)
