"""How much of a posterior its priors make: priors raised to a power, by importance weights on the draws.

    w_s ∝ p(θ_s)^(γ - 1),  γ = ½ and 2        smoothed by a Pareto tail

A parameter whose median moves by little when its prior is made half as strong or twice as strong is told by the data.
After Kallioinen et al. (2024), Stat. Comput. 34, 57.
"""

from typing import Any

import numpy as np

POWERS = (0.5, 2.0)
MATTERS, WIDER = 0.3, 1.2  # standard deviations; ratio of two of them (the prior alone: 1.41)


def prior_sensitivity(draws: dict[str, np.ndarray], log_prior: dict[str, np.ndarray]) -> list[dict]:
    """A row for each parameter: shift of its mean, in its standard deviations, and ratio of these, at each power.

    Parameters
    ----------
    draws : {parameter: (draw,)}, on a scale on which it is about normal
    log_prior : {parameter: (draw,)}
    """
    from arviz.stats import psislw

    rows = []
    for name, x in draws.items():
        x = np.asarray(x, dtype=float)
        row: dict[str, Any] = {"parameter": name}
        for power in POWERS:
            log_w = (power - 1) * np.asarray(log_prior[name], dtype=float)
            with np.errstate(over="ignore"):
                smoothed, k = psislw(log_w - log_w.max())
            w = np.exp(np.asarray(smoothed))
            w = w / w.sum()
            mean = (w * x).sum()
            sd = np.sqrt((w * (x - mean) ** 2).sum())
            row |= {f"shift_{power:g}": (mean - x.mean()) / x.std(), f"sd_ratio_{power:g}": sd / x.std()}
            row[f"k_hat_{power:g}"] = float(k)
        moved = max(abs(row[f"shift_{p:g}"]) for p in POWERS)
        wider = max(abs(np.log(row[f"sd_ratio_{p:g}"])) for p in POWERS)
        row["matters"] = bool(moved > MATTERS or wider > np.log(WIDER))
        rows.append(row)
    return rows
