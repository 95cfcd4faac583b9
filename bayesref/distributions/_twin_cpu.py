"""The integral over a pair of amplitudes, compiled; see `measured_twin`.

    √A F_a = R cos φ,   √B F_b = R sin φ,   0 ≤ φ ≤ π/2,     dF_a dF_b = R / √(AB) dR dφ

(A, B) is the direction in (F_a², F_b²) that the measurements determine best, so that R is as narrow as the data are
precise, whatever φ; what they leave open lies along φ, even where α = ½ and only the sum is known. Legendre nodes in φ
over the span where the largest integrand of a ray is within e^-DROP of the mode; on each ray nodes in R about its own
mode. Both spans are found by Newton's method and a walk outwards.
"""

import numpy as np
from numba import njit

from bayesref.distributions._rice_table import _constant, _prior, _prior_slopes

DROP = 16.0  # log units below the mode where the integral ends: 1e-7 of it
SHARP = 0.06  # width / R of a ray whose integrand is symmetric enough for a span without search
LEAST = 0.2  # of A and B: beyond, rays crowd along one axis


@njit(cache=True)
def _likelihood(J_a, J_b, p):
    """-½ Σ z² of both measurements, and its slope in α; p = (α, y_a, 1/σ_a, y_b, 1/σ_b, squared)."""
    f, y_a, w_a, y_b, w_b, squared = p
    T_a, T_b = (1 - f) * J_a + f * J_b, f * J_a + (1 - f) * J_b
    if squared:
        z_a, z_b = (y_a - T_a) * w_a, (y_b - T_b) * w_b
        return -0.5 * (z_a * z_a + z_b * z_b), (z_a * w_a - z_b * w_b) * (J_b - J_a)
    r_a, r_b = np.sqrt(max(T_a, 1e-300)), np.sqrt(max(T_b, 1e-300))
    z_a, z_b = (y_a - r_a) * w_a, (y_b - r_b) * w_b
    return -0.5 * (z_a * z_a + z_b * z_b), 0.5 * (z_a * w_a / r_a - z_b * w_b / r_b) * (J_b - J_a)


@njit(cache=True)
def _log_pair(F_a, F_b, a, b, p):
    """log p(F_a) p(F_b) p(y), but for constants in V."""
    factor = (1.0 if a[2] else F_a) * (1.0 if b[2] else F_b)
    prior = _prior(F_a, a[0], a[1], a[2])[0] + _prior(F_b, b[0], b[1], b[2])[0]
    return prior + np.log(factor) + _likelihood(F_a * F_a, F_b * F_b, p)[0]


@njit(cache=True)
def _ray_slopes(R, u_a, u_b, a, b, p):
    """First and second derivative in R of the log integrand on the ray F = R (u_a, u_b)."""
    f, y_a, w_a, y_b, w_b, squared = p
    first, second = 1 / R, -1 / (R * R)
    for k in range(2):
        u = u_a if k == 0 else u_b
        G, V, centric = a if k == 0 else b
        d1, d2 = _prior_slopes(max(R * u, 1e-150), G, V, centric)
        first += u * d1
        second += u * u * d2
    c_a, c_b = (1 - f) * u_a * u_a + f * u_b * u_b, f * u_a * u_a + (1 - f) * u_b * u_b
    for k in range(2):
        c, y, w = (c_a, y_a, w_a) if k == 0 else (c_b, y_b, w_b)
        if squared:
            first += 2 * w * w * c * R * (y - c * R * R)
            second += 2 * w * w * c * (y - 3 * c * R * R)
        else:
            root = np.sqrt(c)
            first += w * w * root * (y - root * R)
            second -= w * w * c
    return first, second


@njit(cache=True)
def _log_integrand(R, u_a, u_b, a, b, p):
    F_a, F_b = max(R * u_a, 1e-150), max(R * u_b, 1e-150)
    return _log_pair(F_a, F_b, a, b, p) + np.log(R)


@njit(cache=True)
def _ray_mode(R, u_a, u_b, a, b, p):
    """Mode, to a tenth of the width, and width of the integrand on a ray, from a guess."""
    lo, hi = 0.0, np.inf
    second = -1.0
    for _ in range(50):
        first, second = _ray_slopes(R, u_a, u_b, a, b, p)
        if first > 0:
            lo = R
        else:
            hi = R
        step = -first / second if second < 0 else 2 * R
        new = R + step
        if new >= 3 * R:
            new = 3 * R
        if new <= lo or new >= hi:
            new = 0.5 * (lo + hi) if hi < np.inf else 2 * lo
        done = second < 0 and (new - R) ** 2 * -second < 0.01
        R = new
        if done:
            break
    return R, 1 / np.sqrt(max(-second, 1e-8 / (R * R)))


@njit(cache=True)
def _ray_reach(R, step, peak, u_a, u_b, a, b, p):
    """How far from the mode of a ray the integrand falls by DROP, to a quarter."""
    while R + step > 0 and _log_integrand(R + step, u_a, u_b, a, b, p) > peak - DROP:
        step *= 1.25
    if R + step <= 0:
        return R
    while _log_integrand(R + 0.8 * step, u_a, u_b, a, b, p) < peak - DROP:
        step *= 0.8
    return abs(step)


@njit(cache=True)
def _information(F_a, F_b, a, b, p):
    """Gradient (2) and a positive curvature (aa, ab, bb, determinant) of the log density of a pair."""
    f, y_a, w_a, y_b, w_b, squared = p
    g_a, h_a = _prior_slopes(F_a, a[0], a[1], a[2])
    g_b, h_b = _prior_slopes(F_b, b[0], b[1], b[2])
    h_a, h_b = max(-h_a, 0.2 / a[1]), max(-h_b, 0.2 / b[1])
    T_a, T_b = (1 - f) * F_a**2 + f * F_b**2, f * F_a**2 + (1 - f) * F_b**2
    if squared:
        z_a, z_b, c_a, c_b = (y_a - T_a) * w_a, (y_b - T_b) * w_b, 2 * w_a, 2 * w_b
    else:
        r_a, r_b = np.sqrt(max(T_a, 1e-300)), np.sqrt(max(T_b, 1e-300))
        z_a, z_b, c_a, c_b = (y_a - r_a) * w_a, (y_b - r_b) * w_b, w_a / r_a, w_b / r_b
    aa, ab = c_a * (1 - f) * F_a, c_a * f * F_b  # of the first measurement
    ba, bb = c_b * f * F_a, c_b * (1 - f) * F_b  # of the second
    g_a, g_b = g_a + z_a * aa + z_b * ba, g_b + z_a * ab + z_b * bb
    A, B = aa * aa + ba * ba, ab * ab + bb * bb
    det = h_a * h_b + h_b * A + h_a * B + (aa * bb - ab * ba) ** 2  # as a sum: differences may cancel
    return g_a, g_b, h_a + A, aa * ab + ba * bb, h_b + B, det


@njit(cache=True)
def _pair_mode(a, b, p):
    """F_a, F_b at the mode, by Gauss and Newton's steps, and the curvature there."""
    _, y_a, w_a, y_b, w_b, squared = p
    tiny_a, tiny_b = 1e-5 * np.sqrt(a[1]), 1e-5 * np.sqrt(b[1])
    F_a, F_b = np.sqrt(a[0] ** 2 + 0.5 * a[1]), np.sqrt(b[0] ** 2 + 0.5 * b[1])
    seen = w_a * max(y_a, 0.0) + w_b * max(y_b, 0.0)  # scaled half way to what was measured
    seen = np.sqrt(seen / (w_a + w_b)) if squared else seen / (w_a + w_b)
    k = 0.5 + 0.5 * seen / np.sqrt(0.5 * (F_a**2 + F_b**2))
    F_a, F_b = F_a * k, F_b * k
    value = _log_pair(F_a, F_b, a, b, p)
    for _ in range(40):
        g_a, g_b, h_aa, h_ab, h_bb, det = _information(F_a, F_b, a, b, p)
        d_a, d_b = (h_bb * g_a - h_ab * g_b) / det, (h_aa * g_b - h_ab * g_a) / det
        left = g_a * d_a + g_b * d_b
        t = 1.0
        for _ in range(12):
            n_a, n_b = max(F_a + t * d_a, tiny_a, 0.2 * F_a), max(F_b + t * d_b, tiny_b, 0.2 * F_b)
            new = _log_pair(n_a, n_b, a, b, p)
            if new >= value:
                break
            t *= 0.4
        gain = new - value
        if gain > 0:
            F_a, F_b, value = n_a, n_b, new
        if left < 1e-2 or gain < 1e-3:
            break
    return F_a, F_b, _information(F_a, F_b, a, b, p)


@njit(cache=True)
def _directions(a, b, p):
    """A, B: how the measurements weigh F_a² against F_b², the sum of squares being one.

    A measurement that says less than the priors counts for what they say: they favour neither.
    """
    f, y_a, w_a, y_b, w_b, squared = p
    i_a, i_b = w_a * w_a, w_b * w_b
    if not squared:
        i_a, i_b = i_a / (4 * y_a * y_a + 2 / max(i_a, 1e-300)), i_b / (4 * y_b * y_b + 2 / max(i_b, 1e-300))
    prior = 1 / (a[1] * (2 * a[0] ** 2 + a[1]) + b[1] * (2 * b[0] ** 2 + b[1]))
    i_a, i_b = i_a / prior + 1, i_b / prior + 1
    m_aa, m_bb = i_a * (1 - f) ** 2 + i_b * f * f, i_a * f * f + i_b * (1 - f) ** 2
    angle = 0.5 * np.arctan2(2 * (i_a + i_b) * f * (1 - f), m_aa - m_bb)
    return max(np.cos(angle), LEAST), max(np.sin(angle), LEAST)


@njit(cache=True)
def _highest(phi, R, roots, a, b, p):
    """The largest log integrand on the ray at φ."""
    u_a, u_b = np.cos(phi) / roots[0], np.sin(phi) / roots[1]
    return _log_integrand(_ray_mode(R, u_a, u_b, a, b, p)[0], u_a, u_b, a, b, p)


@njit(cache=True)
def _phi_reach(phi, step, peak, R, roots, a, b, p):
    """The angle beyond φ, in the direction of `step`, where the largest integrand of a ray is DROP below the peak."""
    last, down = 0.5 * np.pi, step < 0
    for _ in range(60):
        at = min(max(phi + step, 1e-9), last - 1e-9)
        if _highest(at, R, roots, a, b, p) < peak - DROP:
            break
        if phi + step <= 0 or phi + step >= last:
            return 0.0 if down else last
        step *= 1.3
    for _ in range(60):
        at = phi + 0.75 * step
        if 0 < at < last and _highest(at, R, roots, a, b, p) > peak - DROP:
            break
        step *= 0.75
    return min(max(phi + step, 0.0), last)


@njit(cache=True)
def integrate_pair(a, b, p, y_phi, v_phi, y_R, v_R, sums):
    """log of the integral of a pair, and moments; a, b = (G, V, centric), p as `_likelihood`.

    `sums` (2, 5) becomes E F, E F², E F m, E score, E (curvature + score²) of a and of b. Returns log Z and ∂/∂α.
    """
    A, B = _directions(a, b, p)
    roots = (np.sqrt(A), np.sqrt(B))
    F_a, F_b, (_, _, h_aa, h_ab, h_bb, det) = _pair_mode(a, b, p)
    x, y = roots[0] * F_a, roots[1] * F_b
    R2 = x * x + y * y
    phi, R = np.arctan2(y, x), np.sqrt(R2)
    g_a, g_b = -y * roots[0] / R2, x * roots[1] / R2
    spread = np.sqrt(max((h_bb * g_a * g_a - 2 * h_ab * g_a * g_b + h_aa * g_b * g_b) / det, 1e-24))
    peak = _highest(phi, R, roots, a, b, p)
    step = min(5.5 * spread, 0.5)
    left = _phi_reach(phi, -step, peak, R, roots, a, b, p)
    right = _phi_reach(phi, step, peak, R, roots, a, b, p)
    sums[:] = 0
    Z, S_f, half_phi = 0.0, 0.0, 0.5 * (right - left)
    for i in range(len(y_phi)):
        at = left + half_phi * (y_phi[i] + 1)
        u_a, u_b = np.cos(at) / roots[0], np.sin(at) / roots[1]
        R, width = _ray_mode(R, u_a, u_b, a, b, p)
        if width < SHARP * R:
            lo, hi = R - 5.7 * width, R + 5.7 * width
        else:
            top = _log_integrand(R, u_a, u_b, a, b, p)
            lo = R - _ray_reach(R, -5 * width, top, u_a, u_b, a, b, p)
            hi = R + _ray_reach(R, 5 * width, top, u_a, u_b, a, b, p)
        half_R = 0.5 * (hi - lo)
        for j in range(len(y_R)):
            r = lo + half_R * (y_R[j] + 1)
            f_a, f_b = max(r * u_a, 1e-150), max(r * u_b, 1e-150)
            log_a, m_a = _prior(f_a, a[0], a[1], a[2])
            log_b, m_b = _prior(f_b, b[0], b[1], b[2])
            chi, slope = _likelihood(f_a * f_a, f_b * f_b, p)
            factor = (1.0 if a[2] else f_a) * (1.0 if b[2] else f_b)
            w = v_phi[i] * v_R[j] * half_R * r * factor * np.exp(log_a + log_b + chi - peak)
            Z += w
            S_f += w * slope
            _add(sums[0], w, f_a, m_a, a[0], a[1], a[2])
            _add(sums[1], w, f_b, m_b, b[0], b[1], b[2])
    scale = np.log(half_phi / (roots[0] * roots[1])) + peak
    if not (
        1e-200 < Z < 1e200
    ):  # a model so far from the data that nodes cannot follow: the mode stands for all
        sums[:] = 0
        Z, S_f = 1.0, _likelihood(F_a * F_a, F_b * F_b, p)[1]
        _add(sums[0], Z, F_a, _prior(F_a, a[0], a[1], a[2])[1], a[0], a[1], a[2])
        _add(sums[1], Z, F_b, _prior(F_b, b[0], b[1], b[2])[1], b[0], b[1], b[2])
        scale = _log_pair(F_a, F_b, a, b, p) + np.log(2 * np.pi) - 0.5 * np.log(det)
    sums /= Z
    return np.log(Z) + scale + _constant(a[1], a[2]) + _constant(b[1], b[2]), S_f / Z


@njit(cache=True)
def _add(sums, w, F, m, G, V, centric):
    """Moments and scores of one amplitude at a node."""
    if centric:
        bend, score, curve = 1 - m * m, (F * m - G) / V, -1 / V
        curve += (F / V) ** 2 * bend
    else:
        x = 2 * F * G / V
        bend, score, curve = 0.5 if x < 1e-4 else 1 - m / x - m * m, 2 * (F * m - G) / V, -2 / V
        curve += (2 * F / V) ** 2 * bend
    sums[0] += w * F
    sums[1] += w * F * F
    sums[2] += w * F * m
    sums[3] += w * score
    sums[4] += w * (curve + score * score)


@njit(cache=True)
def integrate(first, second, G, V, centric, y, w, fraction, squared, y_phi, v_phi, y_R, v_R, out):
    """Rows of `out` as `measured_amplitude` has them, at the reflections of all pairs; returns ∂/∂α."""
    total, sums = 0.0, np.zeros((2, 5))
    for k in range(len(first)):
        i, j = first[k], second[k]
        a, b = (G[i], V[i], centric[i]), (G[j], V[j], centric[j])
        p = (fraction, y[i], w[i], y[j], w[j], squared)
        value, slope = integrate_pair(a, b, p, y_phi, v_phi, y_R, v_R, sums)
        total += slope
        for s in range(2):
            h = i if s == 0 else j
            value += np.log(w[h] / np.sqrt(2 * np.pi)) if w[h] > 0 else 0.0
        for s in range(2):
            h = i if s == 0 else j
            F1, F2, Fm, S1, S2 = sums[s]
            g, v, c = G[h], V[h], centric[h]
            quadratic = (F2 + g * g - 2 * g * Fm) / (v * v)
            out[0, h], out[1, h] = 0.5 * value, S1
            out[2, h] = -0.5 / v + 0.5 * quadratic if c else -1 / v + quadratic
            out[3, h] = S2 - S1 * S1
            out[4, h], out[5, h], out[6, h] = F1, F2, Fm
    return total
