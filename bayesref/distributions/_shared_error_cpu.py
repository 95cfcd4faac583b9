"""The integral of `shared_error` over the dark amplitude, and its derivatives, compiled.

log p = log Σ_n exp(ℓ_n),   ∂ log p/∂θ = Σ_n w_n ∂ℓ_n/∂θ,   w_n = exp(ℓ_n)/p          n: nodes
Rice      ∂ℓ/∂g = 2(F R - g)/W,   R = I₁/I₀(2Fg/W)       Woolfson   ∂ℓ/∂g = (F tanh(Fg/W) - g)/W
"""

import math

import numpy as np
from numba import njit

from bayesref.distributions._bessel import bessel

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_WEAK = 3.5  # widths above zero, below which an amplitude takes the finer nodes
_BEND = 0.5  # square of the change across the amplitude over that along it, above which likewise
_SPACING = 0.8  # of nodes in phase, in standard deviations


@njit(cache=True, error_model="numpy")
def _light(F, g, W, centric):
    """log p(F | g, W) and its slopes in g and W."""
    if centric:
        x = F * g / W
        e = math.exp(-2 * x)
        value = 0.5 * (math.log(2 / math.pi) - math.log(W) - (F - g) ** 2 / W) + math.log(0.5 * (1 + e))
        t = (1 - e) / (1 + e)
        return value, (F * t - g) / W, -0.5 / W + 0.5 * ((F - g) / W) ** 2 - x / W * (t - 1)
    x = 2 * F * g / W
    log_i0, R = bessel(x)
    value = math.log(2 * F / W) - (F - g) ** 2 / W + log_i0
    return value, 2 * (F * R - g) / W, -1 / W + ((F - g) / W) ** 2 - x / W * (R - 1)


@njit(cache=True, error_model="numpy")
def _conditional(h, cosine, sine, G, V, d, V_time, sigma, F, K, c):
    """About where |F_0| lies at one phase, how wide, and whether an amplitude is far from linear in it there.

    Gauss and Newton's steps from the measured dark amplitude, all laws taken as normal along the phase.
    """
    share = 1 if c else 2
    F0, width, bent = max(F[h, 0], 0.0), 0.0, False
    for step in range(3):
        precision = 1 / sigma[h, 0] ** 2 + share / V[h]
        total = F[h, 0] / sigma[h, 0] ** 2 + share * G[h] * cosine / V[h]
        bent = _WEAK * width > F0
        for t in range(d.shape[1]):
            s = sigma[h, 1 + t]
            if math.isfinite(s):
                along = F0 + d[h, t].real * cosine + d[h, t].imag * sine
                across = d[h, t].imag * cosine - d[h, t].real * sine
                m = max(math.sqrt(along * along + across * across), 1e-12)
                slope = along / m
                w = share / (V_time[h, t] + share * (s / K[h, t]) ** 2)
                precision += w * slope * slope
                total += w * slope * (F[h, 1 + t] / K[h, t] - m + slope * F0)
                bent = bent or along < _WEAK * width or across * across > _BEND * along * along
        centre = total / precision
        moved, width = abs(max(centre, 0.0) - F0), 1 / math.sqrt(precision)
        if not bent and step > 0:
            return centre, width, False
        F0 = max(centre, 0.0)
        if moved < 0.3 * width and step > 0:
            break
    return centre, width, bent


@njit(cache=True, error_model="numpy")
def _fineness(h, half, T, G, V, d, V_time, sigma, F, K, fewest, levels):
    """How often the nodes in phase must be doubled, for they must lie as close as the integrand is wide."""
    precision = 2 * max(F[h, 0], sigma[h, 0]) * G[h] / V[h]
    for t in range(T):
        if math.isfinite(sigma[h, 1 + t]):
            change = d[h, t].real ** 2 + d[h, t].imag ** 2
            precision += change / (0.5 * V_time[h, t] + (sigma[h, 1 + t] / K[h, t]) ** 2)
    spacing = 2 * half / fewest * math.sqrt(precision)
    level = 0
    while level < levels - 1 and spacing > _SPACING * (1 << level):
        level += 1
    return level


@njit(cache=True, error_model="numpy")
def integrate(G, V, d, V_time, sigma, F, K, centric, x, log_x, z, u, y, v, fewest, span, out, grad):
    """log p into `out` (hkl,); slopes in G, V, then per time in Re d, Im d, V_time, K into `grad` (hkl, 2 + 4 time).

    Nodes in amplitude: Gauss-Hermite `x` with weights exp(`log_x`), or Gauss-Legendre `z`, `u` where it may vanish; in
    phase `y`, `v` (level, most), the first `fewest` of row 0, and twice as many of each next.
    """
    T = d.shape[1]
    size = len(z) * y.shape[1]
    logs, slopes = np.empty(size), np.empty((size, 2 + 4 * T))
    for h in range(len(G)):
        n, c = 0, centric[h]
        dark, s0 = F[h, 0], sigma[h, 0]
        half = min(math.pi, span / math.sqrt(max(2 * max(dark, s0) * G[h] / V[h], 1e-6)))
        level = 0 if c else _fineness(h, half, T, G, V, d, V_time, sigma, F, K, fewest, len(y))
        for k in range(2 if c else fewest << level):
            cosine = 1.0 - 2 * k if c else math.cos(half * y[level, k])
            sine = 0.0 if c else math.sin(half * y[level, k])
            centre, width, weak = _conditional(h, cosine, sine, G, V, d, V_time, sigma, F, K, c)
            low, high = max(centre - span * width, 0.0), max(centre, 0.0) + span * width
            for a in range(len(z) if weak else len(x)):
                if weak:
                    F0 = 0.5 * (low + high) + 0.5 * (high - low) * z[a]
                    log_weight = math.log(u[a] * 0.5 * (high - low) / s0) - _HALF_LOG_2PI
                else:
                    F0 = centre + width * x[a]
                    log_weight = log_x[a] + math.log(width / s0)
                r = F0 * F0 + G[h] * G[h] - 2 * F0 * G[h] * cosine
                if c:
                    value = -0.5 * r / V[h] - 0.5 * math.log(2 * math.pi * V[h])
                    slopes[n, 0] = (F0 * cosine - G[h]) / V[h]
                    slopes[n, 1] = 0.5 * r / V[h] ** 2 - 0.5 / V[h]
                else:
                    value = math.log(v[level, k] * half * F0 / (math.pi * V[h])) - r / V[h]
                    slopes[n, 0] = 2 * (F0 * cosine - G[h]) / V[h]
                    slopes[n, 1] = r / V[h] ** 2 - 1 / V[h]
                value += log_weight - 0.5 * ((dark - F0) / s0) ** 2
                for t in range(T):
                    s = sigma[h, 1 + t]
                    i = 2 + 4 * t
                    if not math.isfinite(s):
                        slopes[n, i : i + 4] = 0.0
                        continue
                    re, im = F0 * cosine + d[h, t].real, F0 * sine + d[h, t].imag
                    m = max(math.sqrt(re * re + im * im), 1e-12)
                    k_t = K[h, t]
                    W = k_t * k_t * V_time[h, t] + (s * s if c else 2 * s * s)
                    log_p, by_g, by_W = _light(max(F[h, 1 + t], 1e-12), k_t * m, W, c)
                    value += log_p
                    slopes[n, i], slopes[n, i + 1] = by_g * k_t * re / m, by_g * k_t * im / m
                    slopes[n, i + 2] = by_W * k_t * k_t
                    slopes[n, i + 3] = by_g * m + by_W * 2 * k_t * V_time[h, t]
                logs[n] = value
                n += 1
        top = logs[:n].max()
        total = 0.0
        grad[h] = 0.0
        for j in range(n):
            w = math.exp(logs[j] - top)
            total += w
            for i in range(2 + 4 * T):
                grad[h, i] += w * slopes[j, i]
        out[h] = top + math.log(total)
        for i in range(2 + 4 * T):
            grad[h, i] /= total
