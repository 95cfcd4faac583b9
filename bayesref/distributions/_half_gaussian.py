"""The Gaussian cut off at zero, in its natural parameters: stable at any depth of the tail.

    p(J) = exp(-a J²/2 + c J - L(a, c)),  J ≥ 0          a > 0, any c; or a = 0, c < 0 (exponential)
    L(a, c) = log ∫₀^∞ exp(-a J²/2 + c J) dJ = log[Φ(t)/φ(t)] - ½ log a,       t = c/√a
    g_n(a, c) = E J^n / E J^(n-1) = n / (-c + a g_(n+1))                       continued fraction
    S(J) = exp(-a J²/2 + c J + L(a, c - a J) - L(a, c))                        survival function

For negative c every term of the fraction is positive, so nothing cancels; it also needs no division by a,
and a = 0 is an ordinary point. The derivatives close on the same functions:

    ∂L/∂c = g₁       ∂g_n/∂c = g_n (g_(n+1) - g_n)
    ∂L/∂a = -½ g₁g₂  ∂g_n/∂a = -½ g_n g_(n+1) (g_(n+2) - g_n)

The fraction is that of the Mills ratio (Abramowitz & Stegun, 26.2.14); the derivatives follow from
d E[J^n] = cov(J^n, J dc - J² da/2).
"""

import math

import torch
from torch.autograd import Function

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_FAR = 3.0  # below t = -3 the fraction reaches double precision in _TERMS steps; above, erfcx loses < 100 eps
_TERMS = 34


def _far(a, c):
    return c < -_FAR * a.sqrt()


def _fraction(a, c, n):
    """g_1 .. g_n by the continued fraction from the tail; `a`, `c` with t ≤ -3."""
    k, x = _TERMS + n, -c
    g = 2 * (k + 1) / (x + torch.sqrt(x * x + 4 * (k + 1) * a))  # solves g = (k+1)/(x + a g)
    out = []
    for m in range(k, 0, -1):
        g = m / torch.addcmul(x, a, g)
        if m <= n:
            out.append(g)
    return out[::-1]


def _climb(a, c, n):
    """g_1 .. g_n upwards from the boundary density φ(t)/Φ(t); stable for t ≥ -3."""
    root = a.sqrt()
    t = c / root
    g = [(t + math.sqrt(2 / math.pi) / torch.special.erfcx(-t * math.sqrt(0.5))) / root]
    for m in range(1, n):
        g.append((m / g[-1] + c) / a)
    return g


def _ratio(a, c, n):
    """g_n without gradient."""
    far = _far(a, c)
    one = torch.ones_like(a)
    tail = _fraction(torch.where(far, a, one), torch.where(far, c, -_FAR * one), n)[-1]
    near = _climb(torch.where(far, one, a), torch.where(far, one, c), n)[-1]
    return torch.where(far, tail, near)


def _step(a, c, n, by=1):
    """g_(n+by) - g_n for by = 1 or 2, differentiable; for large t the difference is taken analytically."""
    far = _far(a, c)
    tail = ratio(a, c, n + by) - ratio(a, c, n)
    a, c = torch.where(far, torch.ones_like(a), a), torch.where(far, torch.zeros_like(c), c)
    below = torch.exp(-log_integral(a, c)) if n == 1 else (n - 1) / ratio(a, c, n - 1)
    m = n + by - 1
    return torch.where(far, tail, (m / ratio(a, c, m) - below) / a)


class _LogIntegral(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(a, c):
        far = _far(a, c)
        one = torch.ones_like(a)
        a_far, c_far = torch.where(far, a, one), torch.where(far, c, -_FAR * one)
        tail = -torch.log(-c_far + a_far * _fraction(a_far, c_far, 1)[0])
        a, c = torch.where(far, one, a), torch.where(far, one, c)
        t = c / a.sqrt()
        low = torch.log(torch.special.erfcx(-t.clamp(max=0) * math.sqrt(0.5)) * math.sqrt(math.pi / 2))
        high = torch.log1p(-0.5 * torch.erfc(t.clamp(min=0) * math.sqrt(0.5))) + 0.5 * t * t + _LOG_SQRT_2PI
        return torch.where(far, tail, torch.where(t < 0, low, high) - 0.5 * a.log())

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        a, c = ctx.saved_tensors
        g1 = ratio(a, c, 1)
        return -0.5 * grad * g1 * ratio(a, c, 2) if ctx.needs_input_grad[0] else None, grad * g1


class _Ratio(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(a, c, n):
        return _ratio(a, c, n)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:2])
        ctx.n = inputs[2]

    @staticmethod
    def backward(ctx, grad):
        (a, c), n = ctx.saved_tensors, ctx.n
        scaled = grad * ratio(a, c, n)
        da = -0.5 * scaled * ratio(a, c, n + 1) * _step(a, c, n, 2) if ctx.needs_input_grad[0] else None
        return da, scaled * _step(a, c, n), None


def log_integral(a, c):
    """L(a, c) = log ∫₀^∞ exp(-a J²/2 + c J) dJ, differentiable to any order.

    Parameters
    ----------
    a, c : tensors that broadcast; a in 1/J², c in 1/J
    """
    return _LogIntegral.apply(*torch.broadcast_tensors(a, c))


def ratio(a, c, n=1):
    """g_n = E J^n / E J^(n-1), so E J = g_1 and E J² = g_1 g_2; differentiable to any order."""
    return _Ratio.apply(*torch.broadcast_tensors(a, c), n)


def variance(a, c):
    """Var J = g_1 (g_2 - g_1)."""
    a, c = torch.broadcast_tensors(a, c)
    return ratio(a, c, 1) * _step(a, c, 1)


def log_prob(J, a, c):
    """log p(J), J ≥ 0; for c > 0 with the square completed, since L is then near c²/(2a)."""
    J, a, c = torch.broadcast_tensors(J, a, c)
    high = c > 0
    c_low = torch.where(high, torch.zeros_like(c), c)
    tail = -J * (0.5 * a * J - c_low) - log_integral(a, c_low)
    root = torch.where(high, a, torch.ones_like(a)).sqrt()
    t = torch.where(high, c, torch.zeros_like(c)) / root
    peak = -0.5 * (root * J - t) ** 2 + root.log() - _LOG_SQRT_2PI - torch.special.log_ndtr(t)
    return torch.where(high, peak, tail)


def log_survival(J, a, c):
    """log P(J' > J), J ≥ 0."""
    J, a, c = torch.broadcast_tensors(J, a, c)
    far = _far(a, c)
    one = torch.ones_like(a)
    a_far, c_far = torch.where(far, a, one), torch.where(far, c, -_FAR * one)
    g, g_J = ratio(a_far, c_far), ratio(a_far, c_far - a_far * J)
    tail = -J * (0.5 * a_far * J - c_far) - torch.log1p(a_far * (J - (g - g_J)) / (-c_far + a_far * g))
    root = torch.where(far, one, a).sqrt()
    t = torch.where(far, one, c) / root
    near = torch.special.log_ndtr(t - root * J) - torch.special.log_ndtr(t)
    return torch.where(far, tail, near)


@torch.no_grad()
def _icdf(u, a, c):
    far = _far(a, c)
    one = torch.ones_like(a)
    root = torch.where(far, one, a).sqrt()
    t = torch.where(far, one, c) / root
    upper = (1 - u) * torch.special.ndtr(t)
    lower = u + (1 - u) * torch.special.ndtr(-t)
    # of the two complementary areas the smaller one holds the digits
    z = torch.where(upper < 0.5, -torch.special.ndtri(upper), torch.special.ndtri(lower))
    J = ((t + z) / root).clamp(min=0)
    J[far] = _tail_icdf(u[far], a[far], c[far])
    return J


def _tail_icdf(u, a, c):
    E = -torch.log1p(-u)
    J = 2 * E / (-c + torch.sqrt(c * c + 2 * a * E))
    for _ in range(5):  # log S is concave, so Newton cannot diverge; the start is good to 1/t² < 0.12
        J = (J + (log_survival(J, a, c) + E) * torch.exp(log_integral(a, c - a * J))).clamp(min=0)
    return J


def icdf(u, a, c):
    """Quantile J(u), 0 < u < 1, with dJ = -∂cdf(J)/p(J) for its gradient in a and c, 1/p(J) in u."""
    u, a, c = torch.broadcast_tensors(u, a, c)
    J = _icdf(u, a, c)
    if not (torch.is_grad_enabled() and (u.requires_grad or a.requires_grad or c.requires_grad)):
        return J
    mills = torch.exp(log_integral(a, c - a * J)).detach()  # S(J)/p(J)
    log_S = log_survival(J, a, c) - torch.log1p(-u)
    return J + (log_S - log_S.detach()) * mills
