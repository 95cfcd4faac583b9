"""Populations of a first-order reaction scheme.

    dp/dt = Q p,    p(t) = exp(Q t) p₀  for t ≥ 0,    p(t) = p_before  for t < 0

    Q    rate matrix, 1/s: Q_ij ≥ 0 is the rate from state j to state i; columns sum to zero

With λ = max |Q_jj| the matrix P = Q + λ has no negative element, so that every term of

    exp(Q h) = exp(-λ h) Σ_n (P h)ⁿ / n!,     λ h ≤ 1/2,     exp(2 Q h) = exp(Q h)²

is non-negative and nothing cancels (uniformisation: Jensen (1953), Skand. Aktuarietidskr. 36, 87; its accuracy
element by element: Xue & Ye (2013), Math. Comp. 82, 1577). Each squaring doubles the error of a column's sum; columns
are therefore divided by their sum, which leaves errors that grow with the number of squarings only: rates over 12
decades, equal rates and cycles need no special case. The diagonal of Q is never read, since the small difference that
it would hold beside fast rates is lost to rounding.
"""

import math

import torch

from bayesref._checks import InputError

TERMS = 17  # 1/18! = 1.6e-16: enough for λ h ≤ 1
_PANEL = 10  # Gauss-Legendre nodes; on a panel [x, 2x] they integrate exp(-λ s) of any λ to 1e-13


def gauss_legendre(like: torch.Tensor, n: int = _PANEL) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes and weights on [0, 1], (n,) each, on the device of `like`."""
    i = torch.arange(1, n, dtype=torch.float64)
    off = i / torch.sqrt(4 * i**2 - 1)
    x, v = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))  # Golub & Welsch (1969)
    return ((x + 1) / 2).to(like), (v[0] ** 2).to(like)


def off_diagonal(Q: torch.Tensor) -> torch.Tensor:
    """Q without its diagonal, once its columns are seen to sum to zero; (..., state, state)."""
    if Q.ndim < 2 or Q.shape[-1] != Q.shape[-2]:
        raise InputError(f"The rate matrix has shape {tuple(Q.shape)}; expected (..., state, state).")
    rates = Q - torch.diag_embed(Q.diagonal(dim1=-2, dim2=-1))
    if (rates < 0).any():
        raise InputError("The rate matrix has a negative rate off its diagonal; rates are at least zero.")
    leak = (Q.sum(-2).abs() - 1e-9 * rates.sum(-2)).detach()
    if (leak > 0).any():
        raise InputError(
            "The columns of the rate matrix do not sum to zero; give what is lost a state of its own."
        )
    return rates


def fastest(rates: torch.Tensor) -> torch.Tensor:
    """λ, the largest total rate out of a state; (...)."""
    return rates.sum(-2).amax(-1)


def halvings(x: torch.Tensor) -> int:
    """The number m with x / 2^m ≤ 1/2 for every finite element of x = λ t."""
    x = x.detach()
    top = float(x[torch.isfinite(x)].max()) if torch.isfinite(x).any() else 0.0
    return max(0, math.ceil(math.log2(max(2 * top, 1.0))))


def step(rates: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """exp(Q h) for λ h ≤ 1/2; rates (..., state, state), h (...), both broadcast."""
    total = rates.sum(-2)
    P = rates + torch.diag_embed(total.amax(-1, keepdim=True) - total)
    X = P * h[..., None, None]
    one = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
    E = one.expand_as(X)
    for n in range(TERMS, 0, -1):
        E = one + X @ E / n
    return normalise(E)  # the factor exp(-λ h) drops out


def normalise(E: torch.Tensor) -> torch.Tensor:
    """Divide every column by its sum."""
    return E / E.sum(-2, keepdim=True)


def square(E: torch.Tensor) -> torch.Tensor:
    """exp(2 Q h) from exp(Q h)."""
    return normalise(E @ E)


def propagator(rates: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """exp(Q t) for t ≥ 0.

    Parameters
    ----------
    rates : Q without its diagonal, 1/s, (..., state, state)
    t : times, s, (..., time)

    Returns
    -------
    tensor (..., time, state, state), columns sum to one
    """
    m = halvings(fastest(rates)[..., None] * t)
    E = step(rates[..., None, :, :], t * 0.5**m)
    for _ in range(m):
        E = square(E)
    return E


def apply(E: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """E p over the last axis of p."""
    return (E @ p[..., None])[..., 0]


def populations(Q: torch.Tensor, p0: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Populations at times t; p₀ before t = 0.

    Parameters
    ----------
    Q : rate matrix, 1/s, (..., state, state); columns sum to zero
    p0 : populations at t = 0, (..., state)
    t : times, s, (..., time)

    Returns
    -------
    tensor (..., time, state)
    """
    return apply(propagator(off_diagonal(Q), t.clamp(min=0)), p0[..., None, :])


def mean_populations(rates: torch.Tensor, p0: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """Mean of exp(Q s) p₀ over 0 ≤ s ≤ length.

    The mean over twice the length is the mean of two, mean(2h) = [mean(h) + exp(Q h) mean(h)] / 2; the first is by
    Gauss-Legendre quadrature with λ h ≤ 1/2.

    Parameters
    ----------
    rates : Q without its diagonal, 1/s, (..., state, state)
    p0 : (..., state)
    length : s, (..., time)

    Returns
    -------
    tensor (..., time, state)
    """
    m = halvings(fastest(rates)[..., None] * length)
    h = length * 0.5**m
    x, w = gauss_legendre(rates)
    nodes = step(rates[..., None, None, :, :], h[..., None] * x)  # (..., time, node, state, state)
    mean = apply((w[:, None, None] * nodes).sum(-3), p0[..., None, :])
    E = step(rates[..., None, :, :], h)
    for i in range(m):
        mean = 0.5 * (mean + apply(E, mean))
        E = square(E) if i < m - 1 else E
    return mean
