"""Message passing over families of related amplitudes, compiled; see `wilson_tree` for the equations.

A family is a run of rows, parents before children: the same reflection in related datasets. Arrays are (row, node);
`parent` is a row or -1; `mass` is the log likelihood of a row's own spots at its nodes + the log quadrature weight.

    log K_jk = log p(F_j | G_k)          j: nodes of the child, k: of its parent
    U_c(j) = mass_c(j) + Σ_children M(j),    M_c(k) = log Σ_j exp(U_c(j) + log K_jk)       upwards
    C_c(k) = log b_p(k) - M_c(k),            b_c(j) = Σ_k w_jk,  w_jk = exp(U_c(j) + log K_jk + C_c(k))   downwards
"""

import math

import numpy as np
from numba import njit
from scipy.special import i0e

_LOG_2PI = math.log(2 * math.pi)
_FAR = 40.0  # log units below the largest term, where a term is rounding error
_CELLS, _TERMS, _LONG = 10, 10, 14
_LARGE = 2000.0  # here two terms of the asymptotic series are exact to 1e-11
_BAND = 80.0  # log units that a pair of nodes may lie below the closest pair: both masses and _FAR


def _fit(f, lo, hi, n):
    """Coefficients of the polynomial in [-1, 1] through f at Chebyshev nodes of [lo, hi], lowest power first."""
    y = np.cos(np.pi * (np.arange(n) + 0.5) / n)
    series = np.polynomial.chebyshev.Chebyshev.fit(
        y, f(0.5 * (lo + hi) + 0.5 * (hi - lo) * y), n - 1, [-1, 1]
    )
    return np.polynomial.chebyshev.cheb2poly(series.coef)


# log[I₀(x) e⁻ˣ] on cells of unit width below _CELLS; above, what its asymptotic form leaves, in 1/x.
_NEAR = np.array([_fit(lambda x: np.log(i0e(x)), k, k + 1.0, _TERMS) for k in range(_CELLS)])
_TAIL = _fit(lambda u: np.log(i0e(1 / u)) + 0.5 * np.log(2 * np.pi / u), 1e-9, 1 / _CELLS, _LONG)


@njit(cache=True, error_model="numpy", nogil=True)
def _log_i0e(x, log_x):
    """log[I₀(x) exp(-x)] and I₁/I₀; the logarithm of x is known."""
    if x < _CELLS:
        cell = int(x)
        t = 2 * (x - cell) - 1
        value, slope = _NEAR[cell, _TERMS - 1], 0.0
        for k in range(_TERMS - 2, -1, -1):
            slope = slope * t + value
            value = value * t + _NEAR[cell, k]
        return value, 1 + 2 * slope
    if x > _LARGE:
        u = 0.125 / x
        return u * (1 + 4 * u) - 0.5 * (_LOG_2PI + log_x), 1 - 4 * u * (1 + u)
    t = 2 * _CELLS / x - 1
    value, slope = _TAIL[_LONG - 1], 0.0
    for k in range(_LONG - 2, -1, -1):
        slope = slope * t + value
        value = value * t + _TAIL[k]
    return value - 0.5 * (_LOG_2PI + log_x), 1 - (0.5 + 2 * _CELLS / x * slope) / x


@njit(cache=True, error_model="numpy", nogil=True)
def log_child(F, log_F, G, log_G, r, V, log_V, log_r, centric):
    """log p(F | G) of a child, V = ε(1 - r²)."""
    d = F - r * G
    if centric:
        e = math.exp(-2 * r * F * G / V)
        return 0.5 * (math.log(2 / math.pi) - log_V - d * d / V) + math.log(0.5 * (1 + e))
    x = 2 * r * F * G / V
    value = _log_i0e(x, math.log(2) + log_r + log_F + log_G - log_V)[0]
    return math.log(2) + log_F - log_V - d * d / V + value


@njit(cache=True, error_model="numpy", nogil=True)
def _slope(F, G, r, epsilon, centric):
    """∂ log p(F | G)/∂r."""
    V = epsilon * (1 - r * r)
    v = -2 * r * epsilon / V  # ∂ log V/∂r
    s = (F * F + r * r * G * G) / V
    x = r * F * G / V
    if centric:
        return 0.5 * v * (s - 1) - r * G * G / V + math.tanh(x) * x * (1 / r - v)
    ratio = _log_i0e(2 * x, math.log(max(2 * x, 1e-300)))[1]
    return v * (s - 1) - 2 * r * G * G / V + ratio * 2 * x * (1 / r - v)


@njit(cache=True, error_model="numpy", nogil=True)
def log_wilson(F, epsilon, centric):
    """log p(F) of a root."""
    if centric:
        return 0.5 * (math.log(2 / math.pi / epsilon) - F * F / epsilon)
    return math.log(2 * F / epsilon) - F * F / epsilon


@njit(cache=True, error_model="numpy", nogil=True)
def _band(F, G, r, V, lo, hi):
    """For each node j of the child those of the parent, lo[j] .. hi[j] - 1, whose log K_jk can matter; F, G ascend."""
    n, m = len(F), len(G)
    best, k = np.inf, 0
    for j in range(n):
        while k + 1 < m and abs(r * G[k + 1] - F[j]) <= abs(r * G[k] - F[j]):
            k += 1
        best = min(best, (F[j] - r * G[k]) ** 2)
    reach, first, last = math.sqrt(best + _BAND * V), 0, 0
    for j in range(n):
        while first < m and r * G[first] < F[j] - reach:
            first += 1
        while last < m and r * G[last] <= F[j] + reach:
            last += 1
        lo[j], hi[j] = first, last


@njit(cache=True, error_model="numpy", nogil=True)
def _table(F, G, r, epsilon, centric, K, lo, hi):
    """log K_jk of one edge, into K (node, node), and the band outside which it is left as it was."""
    V = epsilon * (1 - r * r)
    _band(F, G, r, 2 * V if centric else V, lo, hi)
    log_V, log_r = math.log(V), math.log(max(r, 1e-300))
    log_G = np.log(G)
    for j in range(len(F)):
        log_F = math.log(F[j])
        for k in range(lo[j], hi[j]):
            K[j, k] = log_child(F[j], log_F, G[k], log_G[k], r, V, log_V, log_r, centric)


@njit(cache=True, error_model="numpy", nogil=True)
def _sum_over_first(a, K, lo, hi, out):
    """out_k = log Σ_j exp(a_j + K_jk), within the band."""
    n, m = K.shape
    top, total = np.full(m, -np.inf), np.zeros(m)
    for j in range(n):
        if a[j] > -np.inf:
            for k in range(lo[j], hi[j]):
                top[k] = max(top[k], a[j] + K[j, k])
    for j in range(n):
        for k in range(lo[j], hi[j]):
            t = a[j] + K[j, k] - top[k]
            if t > -_FAR:
                total[k] += math.exp(t)
    for k in range(m):
        out[k] = top[k] + math.log(total[k]) if total[k] > 0 else -np.inf


@njit(cache=True, error_model="numpy", nogil=True)
def _normalised(a, b):
    """b = exp(a)/Σ exp(a); returns log Σ exp(a)."""
    top = a.max()
    for j in range(len(a)):
        b[j] = math.exp(a[j] - top)
    total = b.sum()
    b /= total
    return top + math.log(total)


@njit(cache=True, error_model="numpy", nogil=True)
def _down(c, p, F, K, lo, hi, up, message, belief, cavity, r, epsilon, centric):
    """Belief of child c; K becomes its joint weights w with parent p. Returns E ∂ log p(F | G)/∂r."""
    n, slope = F.shape[1], 0.0
    for k in range(n):
        b = belief[p, k]
        cavity[c, k] = math.log(b) - message[c, k] if b > 0 and message[c, k] > -np.inf else -np.inf
    for j in range(n):
        total = 0.0
        for k in range(lo[j], hi[j]):
            t = up[c, j] + K[j, k] + cavity[c, k]
            K[j, k] = math.exp(t) if t > -_FAR else 0.0
            total += K[j, k]
            if K[j, k] > 1e-14:
                slope += K[j, k] * _slope(F[c, j], F[p, k], r, epsilon, centric)
        belief[c, j] = total
    return slope


@njit(cache=True, error_model="numpy", nogil=True)
def _covariances(first, last, F, w, lo, hi, parent, belief, given, covariance):
    """Of each row of a family with every earlier one, through E[F_a | F_b = node], carried outwards from a."""
    n = F.shape[1]
    reached = np.empty(last - first, np.bool_)
    for a in range(first, last):
        reached[:] = False
        reached[a - first] = True
        given[a - first] = F[a]
        c = a
        while parent[c] >= 0:
            p = parent[c]
            reached[p - first] = True
            given[p - first] = 0.0
            for j in range(n):
                for k in range(lo[c - first, j], hi[c - first, j]):
                    given[p - first, k] += w[c - first, j, k] * given[c - first, j]
            for k in range(n):
                given[p - first, k] *= 1 / belief[p, k] if belief[p, k] > 0 else 0.0
            c = p
        for b in range(first, last):
            p = parent[b]
            if not reached[b - first] and p >= 0 and reached[p - first]:
                reached[b - first] = True
                for j in range(n):
                    e = 0.0
                    for k in range(lo[b - first, j], hi[b - first, j]):
                        e += w[b - first, j, k] * given[p - first, k]
                    given[b - first, j] = e / belief[b, j] if belief[b, j] > 0 else 0.0
            if b >= a and reached[b - first]:
                mean, m = (belief[b] * F[b]).sum(), (belief[a] * F[a]).sum()
                covariance[b, a - first] = (belief[b] * (F[b] - mean) * (given[b - first] - m)).sum()


@njit(cache=True, error_model="numpy", nogil=True)
def pass_messages(
    F, mass, parent, ends, r, epsilon, centric, down, log_Z, belief, slope, up, cavity, covariance
):
    """Everything about every family.

    Parameters
    ----------
    F, mass : (row, node)
    parent : (row,) row or -1
    ends : (family + 1,), rows of family f are ends[f] .. ends[f + 1] - 1
    r, epsilon, centric : (row,); r of a root is not used
    down : 0 = evidence only, 1 = beliefs and slopes, 2 = covariances too

    Results, in place
    -----------------
    log_Z : (row,), at roots; belief, up, cavity : (row, node); slope : (row,), ∂ log Z/∂r; covariance : (row, member)
    """
    n = F.shape[1]
    most = np.diff(ends).max()
    K, message, given = np.empty((most, n, n)), np.empty((len(F), n)), np.empty((most, n))
    lo, hi = np.empty((most, n), np.int64), np.empty((most, n), np.int64)
    up[:] = mass
    for f in range(len(ends) - 1):
        first, last = ends[f], ends[f + 1]
        for c in range(last - 1, first - 1, -1):
            p = parent[c]
            if p < 0:
                for j in range(n):
                    up[c, j] += log_wilson(F[c, j], epsilon[c], centric[c])
                log_Z[c] = _normalised(up[c], belief[c])
                continue
            i = c - first
            _table(F[c], F[p], r[c], epsilon[c], centric[c], K[i], lo[i], hi[i])
            _sum_over_first(up[c], K[i], lo[i], hi[i], message[c])
            up[p] += message[c]
        for c in range(first, last):
            p = parent[c]
            if p >= 0 and down:
                i, edge = c - first, (r[c], epsilon[c], centric[c])
                slope[c] = _down(c, p, F, K[i], lo[i], hi[i], up, message, belief, cavity, *edge)
        if down > 1:
            _covariances(first, last, F, K, lo, hi, parent, belief, given, covariance)


@njit(cache=True, error_model="numpy", nogil=True)
def incoming(F, parent, r, epsilon, centric, up, cavity, at, whole, out):
    """log of the prior of each row given the rest of its family, at amplitudes `at` (row, m), into `out`.

    Without `whole` its descendants only: what is wanted of a child whose parent is known.
    """
    n, m = F.shape[1], at.shape[1]
    K, sums = np.empty((n, m)), np.empty(m)
    lo, hi = np.zeros(n, np.int64), np.full(n, m)
    for c in range(len(F)):
        p, V = parent[c], epsilon[c] * (1 - r[c] * r[c])
        if p < 0:
            for q in range(m):
                out[c, q] += log_wilson(at[c, q], epsilon[c], centric[c])
            continue
        log_V, log_r = math.log(V), math.log(max(r[c], 1e-300))
        # from the parent: K_kq = log p(at_q | G_k)
        if whole:
            for k in range(n):
                log_G = math.log(F[p, k])
                for q in range(m):
                    x = at[c, q]
                    K[k, q] = log_child(x, math.log(x), F[p, k], log_G, r[c], V, log_V, log_r, centric[c])
            _sum_over_first(cavity[c], K, lo, hi, sums)
            out[c] += sums
        # to the parent: K_jq = log p(F_j | at_q)
        for j in range(n):
            log_F = math.log(F[c, j])
            for q in range(m):
                x = at[p, q]
                K[j, q] = log_child(F[c, j], log_F, x, math.log(x), r[c], V, log_V, log_r, centric[c])
        _sum_over_first(up[c], K, lo, hi, sums)
        out[p] += sums
