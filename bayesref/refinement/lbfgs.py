"""L-BFGS with a preconditioner that is a linear solve.

    z ← z - t H g        H: inverse Hessian, updated from H₀ by the last pairs s = Δz, y = Δg

scipy's has H₀ = γ I only; atoms need the sparse restraint Hessian, whose stiffest and softest directions differ by
10⁵. Two-loop recursion and line search: Nocedal & Wright, Numerical Optimization, 2nd ed., algorithms 7.4 and 3.1.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ARMIJO = 1e-4
PAIRS = 12
LONGER = 3.0  # than the last step, at most


@dataclass(frozen=True)
class Minimum:
    """Where a minimisation ended: z, the value there, ½ gᵀH₀g (what a Newton step promised), evaluations."""

    z: np.ndarray
    value: float
    decrement: float
    evaluations: int


def minimize(
    function: Callable, z: np.ndarray, solve: Callable, steps: int, max_step: float, tolerance=0.5
) -> Minimum:
    """Minimise `function(z) -> (value, gradient)`.

    Parameters
    ----------
    solve : H₀ times a vector
    steps : at most so many
    max_step : longest change of any element in one step
    tolerance : stop where ½ gᵀH₀g is below
    """
    value, g = function(z)
    n = 1
    pairs: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=PAIRS)
    decrement, last = np.inf, 1.0
    for _ in range(steps):
        decrement = 0.5 * float(g @ solve(g))
        if decrement < tolerance:
            break
        d = _clip(-_direction(g, pairs, solve), max_step)
        slope = float(g @ d)
        if slope >= 0:  # the pairs have gone stale, or clipping has turned the step uphill
            pairs.clear()
            d = -solve(g)
            d *= min(1.0, max_step / float(np.abs(d).max()))
            slope = float(g @ d)
        t = min(1.0, LONGER * last)  # where a full step went too far, the next one would as well
        found = False
        for _ in range(8):
            new = z + t * d
            new_value, new_g = function(new)
            n += 1
            if np.isfinite(new_value) and new_value <= value + ARMIJO * t * slope:
                found = True
                break
            # the minimum of the parabola through value, slope and new value, kept off both ends
            bend = new_value - value - t * slope
            t *= min(0.5, max(0.1, -0.5 * t * slope / bend)) if np.isfinite(bend) and bend > 0 else 0.25
        if not found:
            if not pairs:
                break
            pairs.clear()
            continue
        last = t
        s, y = new - z, new_g - g
        if s @ y > 1e-10 * np.sqrt((s @ s) * (y @ y)):
            pairs.append((s, y, 1 / (s @ y)))
        z, value, g = new, new_value, new_g
    return Minimum(z, value, decrement, n)


def _clip(d, limit):
    """Each element within the limit: a few loose atoms must not hold back the rest."""
    return np.clip(d, -limit, limit)


def _direction(g, pairs, solve):
    """The two loops: H g."""
    q, alphas = g.copy(), []
    for s, y, rho in reversed(pairs):
        alpha = rho * (s @ q)
        q -= alpha * y
        alphas.append(alpha)
    r = solve(q)
    for (s, y, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        r += s * (alpha - rho * (y @ r))
    return r
