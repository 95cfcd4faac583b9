"""Twin fraction of one law from pairs of acentric intensities: H-test and likelihood.

    log p(I, I' | α) = log ∫∫ p(F) p(F') p(I | F, F', α) p(I' | F, F', α) dF dF'       Wilson: G = 0, V = εΣ
    log B = log ∫ p(data | α) 2 dα - log p(data | 0)                     α uniform on (0, ½), Laplace's approximation

An axis of non-crystallographic symmetry along the law makes mates alike as well; then ⟨|L|⟩ stays that of untwinned
data.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from bayesref.crystal import symmetry
from bayesref.crystal.twin_laws import TwinLaw
from bayesref.distributions.measured_twin import measured_twin

MOST = 6000  # pairs that the likelihood is taken of: the fraction is then known to 0.003 or so
STEP = 0.004


@dataclass(frozen=True)
class TwinFraction:
    """What data say of one law.

    Attributes
    ----------
    law : TwinLaw
    n : pairs
    H, H2 : ⟨|H|⟩, ⟨H²⟩
    from_H : fraction by ⟨|H|⟩, errors of measurement not taken off
    fraction, sd : by likelihood
    log_odds : log B of this twin against none
    """

    law: TwinLaw
    n: int
    H: float
    H2: float
    from_H: float
    fraction: float
    sd: float
    log_odds: float


def twin_fraction(asu, e, sigma, law: TwinLaw, seed: int = 0) -> TwinFraction:
    """Of acentric normalised intensities e (hkl,) with errors sigma."""
    first, second = mates(asu, law)
    if len(first) < 10:
        nan = float("nan")
        return TwinFraction(law, len(first), nan, nan, nan, nan, nan, nan)
    total, noise = e[first] + e[second], np.hypot(sigma[first], sigma[second])
    use = total > 2 * noise
    H = ((e[first] - e[second])[use] / total[use]).clip(-1, 1)
    n, some = len(first), np.arange(len(first))
    if n > MOST:
        some = np.random.default_rng(seed).choice(n, MOST, replace=False)
    fraction, sd, log_odds = _likelihood(e, sigma, first[some], second[some])
    return TwinFraction(
        law, n, float(np.abs(H).mean()), float((H**2).mean()), float(np.clip(0.5 - np.abs(H).mean(), 0, 0.5)),
        fraction, sd, log_odds * n / len(some),
    )  # fmt: skip


def mates(asu, law: TwinLaw) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the pairs (h, h T) that are both there, (pair,) each, each pair once."""
    hkl = asu.hkl.numpy()
    image, absent = law.mates(hkl, asu.spacegroup)
    bound = int(max(np.abs(hkl).max(), np.abs(image).max()))
    key, wanted = symmetry.pack(hkl, bound), symmetry.pack(image, bound)
    order = np.argsort(key)
    at = order[np.searchsorted(key, wanted, sorter=order).clip(max=len(key) - 1)]
    rows = np.flatnonzero((key[at] == wanted) & ~absent & (np.arange(len(key)) < at))
    return rows, at[rows]


def _likelihood(e, sigma, first, second) -> tuple[float, float, float]:
    """Most probable fraction between 0 and ½, its standard deviation, and log B against none."""
    n = len(first)
    y, s = (torch.from_numpy(np.concatenate([x[first], x[second]])) for x in (e, sigma))
    mate = torch.arange(2 * n).roll(n)
    G, V, acentric = (
        torch.zeros(2 * n).double(),
        torch.ones(2 * n).double(),
        torch.zeros(2 * n, dtype=torch.bool),
    )

    def at(f):
        m = measured_twin(G, V, acentric, y, s, mate, f, "I")
        return float(m.amplitudes.log_evidence.sum()), m.slope_fraction

    found = minimize_scalar(lambda f: -at(f)[0], bounds=(0.0, 0.5), method="bounded", options={"xatol": 1e-3})
    f = float(found.x)
    low, high = max(f - STEP, 0.0), min(f + STEP, 0.5)
    curvature = (at(low)[1] - at(high)[1]) / (high - low)
    sd = min(curvature**-0.5, 0.3) if curvature > 0 else 0.3
    inside = 0.5 * (math.erf((0.5 - f) / (sd * 2**0.5)) + math.erf(f / (sd * 2**0.5)))
    log_B = at(f)[0] - at(0.0)[0] + math.log(2 * math.sqrt(2 * math.pi) * sd * max(inside, 1e-3))
    return f, sd, log_B
