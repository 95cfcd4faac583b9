"""Summaries of draws."""

import numpy as np

MASS = 0.9


def interval(x: np.ndarray, mass: float = MASS) -> tuple[float, float]:
    """Shortest interval that holds `mass` of the draws."""
    x = np.sort(np.asarray(x, dtype=float))
    n = max(1, int(np.ceil(mass * len(x))))
    if n >= len(x):
        return float(x[0]), float(x[-1])
    width = x[n:] - x[: len(x) - n]
    i = int(width.argmin())
    return float(x[i]), float(x[i + n])
