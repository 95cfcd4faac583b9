"""Whether a model of a series would give data like those that were measured: posterior predictive checks.

    T_t = √(mean [(F̂_t / K_t - F̂_dark)² / (σ_t²/K_t² + σ_dark²)])        size of the difference at each delay
    p_t = share of replicates whose T_t is larger;   near 0 or 1, the model fails there

K_t, the ratio of the two, is taken anew from each replicate, Σ F̂_t F̂_dark / Σ F̂_dark². Gelman, Meng & Stern
(1996), Stat. Sinica 6, 733.
"""

import numpy as np


def difference_sizes(F, SIGF) -> np.ndarray:
    """T, (..., time), of amplitudes (..., hkl, 1 + time), column 0 dark; SIGF (hkl, 1 + time), infinite = missing."""
    F, SIGF = np.asarray(F), np.asarray(SIGF)
    dark, light = F[..., :1], F[..., 1:]
    there = np.isfinite(SIGF[:, 1:])
    s = np.where(there, SIGF[:, 1:], 1.0)
    w = there / s**2
    K = (w * light * dark).sum(-2) / (w * dark**2).sum(-2)
    K = K[..., None, :]
    z2 = (light / K - dark) ** 2 / ((s / K) ** 2 + SIGF[:, :1] ** 2)
    return np.sqrt((there * z2).sum(-2) / there.sum(0))


def predictive_checks(F, SIGF, replicates, t) -> list[dict]:
    """A row for each delay: T of the data, 90 % interval of T over replicates (n, hkl, 1 + time), p."""
    observed, many = difference_sizes(F, SIGF), difference_sizes(replicates, SIGF)
    low, high = np.quantile(many, [0.05, 0.95], axis=0)
    p = (many > observed).mean(0)
    return [
        {"delay": float(t[i]), "observed": float(observed[i]), "low": float(low[i]), "high": float(high[i]),
         "p": float(p[i])}
        for i in range(len(observed))
    ]  # fmt: skip
