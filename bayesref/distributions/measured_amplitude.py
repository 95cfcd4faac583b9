"""Evidence of one measurement of an amplitude around an expected one.

    p(y | G, V) = ∫ p(F | G, V) p(y | F) dF          p(F | G, V) Rice or Woolfson, see `rice_woolfson`
    p(I | F)  = Normal(F², SIGI)     or     p(F_obs | F) = Normal(F, SIGF)

    ∂ log p(y)/∂G = E ∂ log p(F)/∂G                    expectations over p(F | y, G, V)
    ∂² log p(y)/∂G² = E ∂² log p(F)/∂G² + Var ∂ log p(F)/∂G

Gauss-Legendre nodes over the span where the integrand lies within e^-DROP of its mode, found by Newton's method.
The integral is that of `AmplitudePosterior` with a `RiceWoolfson` prior, compiled into one loop for refinement,
which evaluates it thousands of times. Derivatives: Fisher's identity, and Louis (1982), J. R. Stat. Soc. B 44, 226.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit

from bayesref._checks import InputError
from bayesref.distributions._bessel import bessel
from bayesref.distributions._legendre import gauss

DROP = 28.0  # log units below the mode where the integral ends: e^-28 is 1e-12
_NODES = 28
_Y, _W = (np.ascontiguousarray(x) for x in gauss(_NODES))


@njit(cache=True)
def _log_prior(F, G, V, centric):
    """log p(F), and m: the mean cosine of the phase error."""
    if centric:
        x = F * G / V
        e = np.exp(-2 * x)
        return 0.5 * np.log(2 / (np.pi * V)) - 0.5 * (F - G) ** 2 / V + np.log(0.5 * (1 + e)), (1 - e) / (
            1 + e
        )
    log_i0, m = bessel(2 * F * G / V)
    return np.log(2 * F / V) - (F - G) ** 2 / V + log_i0, m


@njit(cache=True)
def _log_density(F, G, V, centric, y, sigma, squared):
    r = ((F * F if squared else F) - y) / sigma
    return _log_prior(F, G, V, centric)[0] - 0.5 * r * r


@njit(cache=True)
def _slopes(F, G, V, centric, y, sigma, squared):
    """First and second derivative of the log density in F."""
    if centric:
        m = np.tanh(F * G / V)
        first, second = -F / V + G / V * m, -1 / V + (G / V) ** 2 * (1 - m * m)
    else:
        x = 2 * F * G / V
        m = bessel(x)[1]
        bend = 0.5 if x < 1e-4 else 1 - m / x - m * m
        first = 1 / F - 2 * F / V + 2 * G / V * m
        second = -1 / (F * F) - 2 / V + (2 * G / V) ** 2 * bend
    if squared:
        first -= 2 * F * (F * F - y) / sigma**2
        second -= (6 * F * F - 2 * y) / sigma**2
    else:
        first -= (F - y) / sigma**2
        second -= 1 / sigma**2
    return first, second


@njit(cache=True)
def _reach(F, step, peak, G, V, centric, y, sigma, squared):
    """How far from the mode, in the direction of `step`, the density falls by DROP, to a quarter."""
    while F + step > 0 and _log_density(F + step, G, V, centric, y, sigma, squared) > peak - DROP:
        step *= 1.25
    if F + step <= 0:
        return F
    while _log_density(F + 0.8 * step, G, V, centric, y, sigma, squared) < peak - DROP:
        step *= 0.8
    return abs(step)


@njit(cache=True)
def _span(G, V, centric, y, sigma, squared):
    """Limits of F that hold the integral."""
    spread = np.sqrt(V if centric else 0.5 * V)
    peak_of_data = np.sqrt(max(y, 0.0)) if squared else max(y, 0.0)
    lo, hi = 0.0, max(G + 3 * spread, peak_of_data)  # the mode lies between those of prior and data
    tiny = 1e-6 * spread
    F = max(tiny, min(hi, 0.5 * (G + peak_of_data)))
    second = -1.0
    for _ in range(60):
        first, second = _slopes(F, G, V, centric, y, sigma, squared)
        if first > 0:
            lo = F
        else:
            hi = F
        step = -first / second if second < 0 else 0.0
        new = F + step
        if second >= 0 or new <= lo or new >= hi:
            new = 0.5 * (lo + hi)
        if abs(new - F) < 1e-2 / np.sqrt(abs(second)) or hi < tiny:
            F = max(new, tiny)
            break
        F = max(new, tiny)
    second = _slopes(F, G, V, centric, y, sigma, squared)[1]
    peak = _log_density(F, G, V, centric, y, sigma, squared)
    width = min(1 / np.sqrt(max(-second, 1e-300)), spread)
    left = F - _reach(F, -5 * width, peak, G, V, centric, y, sigma, squared)
    right = F + _reach(F, 5 * width, peak, G, V, centric, y, sigma, squared)
    return left, right, peak


@njit(cache=True)
def _integrate(G, V, centric, y, sigma, squared, out):
    """Rows of `out`: log p, ∂G, ∂V, ∂²G, E F, E F², E F m; each (hkl,)."""
    for h in range(len(G)):
        g, v, c, value, s = G[h], V[h], centric[h], y[h], sigma[h]
        lo, hi, peak = _span(g, v, c, value, s, squared)
        half = 0.5 * (hi - lo)
        Z, F1, F2, Fm, S1, S2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for k in range(_NODES):
            F = lo + half * (_Y[k] + 1)
            log_p, m = _log_prior(F, g, v, c)
            r = ((F * F if squared else F) - value) / s
            w = _W[k] * np.exp(log_p - 0.5 * r * r - peak)
            x = F * g / v if c else 2 * F * g / v
            bend = 1 - m * m if c else (0.5 if x < 1e-4 else 1 - m / x - m * m)
            score = (F * m - g) / v if c else 2 * (F * m - g) / v
            curve = -1 / v + (F / v) ** 2 * bend if c else -2 / v + (2 * F / v) ** 2 * bend
            Z += w
            F1 += w * F
            F2 += w * F * F
            Fm += w * F * m
            S1 += w * score
            S2 += w * (curve + score * score)
        F1, F2, Fm, S1, S2 = F1 / Z, F2 / Z, Fm / Z, S1 / Z, S2 / Z
        out[0, h] = np.log(Z * half) + peak - 0.5 * np.log(2 * np.pi) - np.log(s)
        out[1, h] = S1
        quadratic = (F2 + g * g - 2 * g * Fm) / (v * v)
        out[2, h] = -0.5 / v + 0.5 * quadratic if c else -1 / v + quadratic
        out[3, h] = S2 - S1 * S1
        out[4, h], out[5, h], out[6, h] = F1, F2, Fm


@dataclass(frozen=True)
class MeasuredAmplitude:
    """What a measurement says about an amplitude and about its model; every field is (hkl,).

    Attributes
    ----------
    log_evidence : log p(y | G, V)
    slope_G, slope_V, curvature_G : ∂/∂G, ∂/∂V and ∂²/∂G² of it
    F, F2 : E F, E F²
    phased : E[F m], the amplitude expected along the phase of the model
    """

    log_evidence: torch.Tensor
    slope_G: torch.Tensor
    slope_V: torch.Tensor
    curvature_G: torch.Tensor
    F: torch.Tensor
    F2: torch.Tensor
    phased: torch.Tensor


def measured_amplitude(G, V, centric, value, sigma, kind) -> MeasuredAmplitude:
    """Evidence and moments of each amplitude, without autograd.

    Parameters
    ----------
    G, V : (hkl,) expected amplitude, and variance of the complex error (`RiceWoolfson`)
    centric : (hkl,) bool
    value, sigma : (hkl,) I and SIGI, or F and SIGF
    kind : "I" or "F", which of them

    Raises
    ------
    InputError : another kind
    """
    if kind not in ("I", "F"):
        raise InputError(f"Measurements are of kind I or F, not {kind!r}.")
    out = np.empty((7, len(value)))
    columns = (x.detach().double().contiguous().numpy() for x in (G, V))
    data = (x.double().contiguous().numpy() for x in (value, sigma))
    G, V = columns
    value, sigma = data
    _integrate(G, V, centric.contiguous().numpy(), value, sigma, kind == "I", out)
    return MeasuredAmplitude(*torch.from_numpy(out))


class _LogEvidence(torch.autograd.Function):
    @staticmethod
    def forward(G, V, centric, value, sigma, kind):
        m = measured_amplitude(G, V, centric, value, sigma, kind)
        return m.log_evidence, m.slope_G, m.slope_V

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx, grad, *_):
        slope_G, slope_V = ctx.saved_tensors
        return grad * slope_G, grad * slope_V, None, None, None, None


def log_evidence(G, V, centric, value, sigma, kind) -> torch.Tensor:
    """log p(y | G, V), (hkl,), with first derivatives in G and V; arguments as `measured_amplitude`."""
    return _LogEvidence.apply(G, V, centric, value, sigma, kind)[0]
