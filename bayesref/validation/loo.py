"""How well models foresee a reflection that they have not seen: leave-one-out by importance sampling.

    elpd = Σ_h log p(y_h | y_-h),   p(y_h | y_-h) ≈ Σ_s w_hs p(y_h | z_s),   w_hs ∝ 1/p(y_h | z_s), smoothed

The difference of two models has the standard error √(n var(elpd_h - elpd'_h)); below two of them the data cannot
tell. Vehtari, Gelman & Gabry (2017), Stat. Comput. 27, 1413.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    """elpd of each reflection, (hkl,), and the share of them whose weights cannot be trusted (k̂ > 0.7)."""

    each: np.ndarray
    untrusted: float

    @property
    def elpd(self) -> float:
        return float(self.each.sum())


def leave_one_out(log_likelihood) -> LeaveOneOut:
    """Of a log likelihood (draw, hkl)."""
    from arviz.stats import psislw

    ll = np.asarray(log_likelihood, dtype=float)
    log_w, k = psislw(-ll.T.copy())
    return LeaveOneOut(np.logaddexp.reduce(ll.T + log_w, axis=1), float((np.asarray(k) > 0.7).mean()))


def compare(models: dict[str, LeaveOneOut]) -> list[dict]:
    """Rows best first: model, elpd, difference from the best, its standard error, and a verdict."""
    best = max(models, key=lambda k: models[k].elpd)
    rows = []
    for name in sorted(models, key=lambda k: -models[k].elpd):
        step = models[name].each - models[best].each
        se = float(np.sqrt(len(step) * step.var()))
        verdict = "best" if name == best else "cannot tell" if abs(step.sum()) < 2 * se else "worse"
        rows.append({"model": name, "elpd": models[name].elpd, "difference": float(step.sum()), "se": se,
                     "verdict": verdict, "untrusted": models[name].untrusted})  # fmt: skip
    return rows
