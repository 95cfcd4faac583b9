"""Whether merged intensities are those of a twin: moments, L-test, H-test and likelihood of the twin fraction.

    e = I/(εΣ)                 Σ smooth in resolution and direction; acentric, no h = h T
    ⟨e²⟩/⟨e⟩²                  2 (centric 3), of a perfect twin 1.5 (2); the variance of the measurement taken off
    L = (e - e')/(e + e')      e' near h in the lattice: ⟨|L|⟩ ½, of a perfect twin ⅜; N(|L|) = |L| or |L|(3 - L²)/2
    H = (e - e')/(e + e')      e' at h T, T a twin law: ⟨|H|⟩ = ½ - α, ⟨H²⟩ = (1 - 2α)²/3
    p(I, I' | α)               two Wilson amplitudes integrated out, see `distributions.measured_twin`

L and H spread by the errors of measurement too. What ⟨|L|⟩ would be without a twin, or with one, is therefore
simulated: intensities of Wilson's distribution with the errors of these data, rank by rank in each shell. The
likelihood has errors in it. Resolution is cut where ⟨I⟩/⟨SIGI⟩ falls below 3.
Padilla & Yeates (2003), Acta Cryst. D59, 1124; Yeates (1988), Acta Cryst. A44, 142; Stanley (1972), J. Appl. Cryst.
5, 191.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch

from bayesref.crystal import symmetry
from bayesref.crystal.cell import reciprocal_vectors
from bayesref.crystal.twin_laws import TwinLaw, twin_laws
from bayesref.distributions.falloff import wilson_sigma
from bayesref.validation.twin_fraction import TwinFraction, twin_fraction

SIGNAL = 3.0  # ⟨I⟩/⟨SIGI⟩ of the last shell that is used
FEWEST = 200  # reflections: below, nothing is said
N_SHELL = 20
EDGES = np.linspace(0, 1, 51)  # of |L|
FRACTIONS = np.linspace(0, 0.5, 11)  # for which ⟨|L|⟩ is simulated
REPEATS = 4  # of the simulation


@dataclass(frozen=True)
class Moment:
    """⟨e²⟩/⟨e⟩² of n reflections and its standard error."""

    value: float
    error: float
    n: int


@dataclass(frozen=True)
class LTest:
    """Local test of pairs near one another.

    Attributes
    ----------
    mean, mean2 : ⟨|L|⟩, ⟨L²⟩
    error : standard error of ⟨|L|⟩
    expected : ⟨|L|⟩ of data with these errors without twinning
    fraction, sd : twin fraction that would give ⟨|L|⟩
    cumulative : N(|L|) at EDGES
    n : pairs
    step : (3,) what neighbours differ by along each axis
    """

    mean: float
    mean2: float
    error: float
    expected: float
    fraction: float
    sd: float
    cumulative: np.ndarray
    n: int
    step: tuple[int, int, int]


@dataclass(frozen=True)
class Twinning:
    """All tests of one set of data; `dmin` is the resolution that they went to."""

    dmin: float
    acentric: Moment
    centric: Moment | None
    L: LTest
    laws: tuple[TwinFraction, ...]


def twinning(
    asu, I, SIGI, laws: list[TwinLaw] | None = None, step=(2, 2, 2), seed: int = 0
) -> Twinning | None:
    """Tests of merged intensities; None for too few of them.

    Parameters
    ----------
    asu : ReciprocalASU of the rows, Friedel mates merged
    I, SIGI : (hkl,), of any sign
    laws : default: those of the lattice
    step : differences of neighbours along each axis; even, so that a translation by half a cell, which makes every
        other reflection weak, does not look like untwinned data
    """
    I, SIGI = (torch.as_tensor(x).double() for x in (I, SIGI))
    known = torch.isfinite(I) & torch.isfinite(SIGI) & (SIGI > 0)
    asu, I, SIGI = asu.subset(known), I[known], SIGI[known]
    if int((~asu.centric).sum()) < FEWEST:
        return None
    s = reciprocal_vectors(asu.hkl, asu.cell)
    Sigma = wilson_sigma(I, SIGI, asu.stol2, asu.epsilon, asu.centric, s=s) * asu.epsilon
    use = _strong(asu, I, SIGI)
    asu, e, sigma = asu.subset(use), (I / Sigma)[use].numpy(), (SIGI / Sigma)[use].numpy()
    acentric = ~asu.centric.numpy()
    if acentric.sum() < FEWEST:
        return None
    laws = twin_laws(asu.cell, asu.spacegroup) if laws is None else laws
    centric = _moment(e[~acentric], sigma[~acentric], 24.0) if (~acentric).sum() >= FEWEST else None
    for law in laws:
        mate = law.mates(asu.hkl.numpy(), asu.spacegroup)[0]
        acentric &= (mate != asu.hkl.numpy()).any(
            1
        )  # a reflection that is its own mate has the statistics of no twin
    one = asu.subset(torch.from_numpy(acentric))
    e, sigma = e[acentric], sigma[acentric]
    return Twinning(
        float(asu.dHKL.min()), _moment(e, sigma, 4.0), centric, l_test(one, e, sigma, step, seed),
        tuple(twin_fraction(one, e, sigma, law) for law in laws),
    )  # fmt: skip


def _strong(asu, I, SIGI) -> torch.Tensor:
    """Rows of the shells, from low resolution on, whose signal is good; (hkl,) bool."""
    order = asu.dHKL.argsort(descending=True)
    keep = torch.zeros(len(I), dtype=torch.bool)
    for k, rows in enumerate(order.tensor_split(N_SHELL)):
        if k >= 3 and I[rows].mean() < SIGNAL * SIGI[rows].mean():
            break
        keep[rows] = True
    return keep


def _moment(e, sigma, wilson) -> Moment:
    """With an error no smaller than that of Wilson's distribution, whose variance is `wilson`/n: tails are long."""
    mean, second = e.mean(), e**2 - sigma**2
    value = second.mean() / mean**2
    spread = second / mean**2 - 2 * value * e / mean
    return Moment(float(value), float((max(spread.var(), wilson) / len(e)) ** 0.5), len(e))


def l_test(asu, e, sigma, step=(2, 2, 2), seed=0) -> LTest:
    """Padilla and Yeates' test of acentric normalised intensities (hkl,)."""
    first, second = neighbours(asu, step)
    L = _ratio(e, sigma, first, second)
    mean = float(np.abs(L).mean())
    error = float(
        np.abs(L).std() / min(len(L), len(e)) ** 0.5
    )  # pairs that share a reflection are not independent
    curve = _simulated(asu, e, sigma, first, second, seed)
    fraction = float(np.interp(-mean, -curve, FRACTIONS))  # ⟨|L|⟩ falls with the fraction
    slope = abs(np.gradient(curve, FRACTIONS)[np.abs(FRACTIONS - max(fraction, 0.05)).argmin()])
    sd = error / max(slope, 0.05)
    cumulative = np.searchsorted(np.sort(np.abs(L)), EDGES, side="right") / len(L)
    return LTest(
        mean,
        float((L**2).mean()),
        error,
        float(curve[0]),
        fraction,
        min(float(sd), 0.5),
        cumulative,
        len(L),
        step,
    )


def neighbours(asu, step) -> tuple[np.ndarray, np.ndarray]:
    """Rows of pairs (h, h + δ), δ = one or two steps along the axes; (pair,) each."""
    hkl = asu.hkl.numpy()
    bound = 2 * int(np.abs(hkl).max()) + 2 * max(step) + 2
    key = symmetry.pack(hkl, bound)
    order = np.argsort(key)
    pairs = []
    for n in itertools.product((-1, 0, 1), repeat=3):
        if n <= (0, 0, 0) or sum(map(abs, n)) > 2:
            continue
        image = symmetry.to_asu(hkl + np.array(n) * np.array(step), asu.spacegroup)[0]
        wanted = symmetry.pack(image, bound)
        at = order[np.searchsorted(key, wanted, sorter=order).clip(max=len(key) - 1)]
        found = (key[at] == wanted) & (at != np.arange(len(key)))
        rows = np.flatnonzero(found)
        pairs.append(np.minimum(rows, at[rows]) * len(key) + np.maximum(rows, at[rows]))
    return np.divmod(np.unique(np.concatenate(pairs)), len(key))


def _ratio(e, sigma, first, second):
    """L of the pairs whose sum is measured at all."""
    total, noise = e[first] + e[second], np.hypot(sigma[first], sigma[second])
    use = total > 2 * noise
    return ((e[first] - e[second])[use] / total[use]).clip(-1, 1)


def _simulated(asu, e, sigma, first, second, seed) -> np.ndarray:
    """⟨|L|⟩ at each of FRACTIONS, of data with these errors."""
    g = np.random.default_rng(seed)
    shells = np.array_split(np.argsort(-asu.dHKL.numpy()), min(N_SHELL, max(1, len(e) // 50)))
    curve = np.zeros(len(FRACTIONS))
    for _ in range(REPEATS):
        one, other, noise = *g.exponential(size=(2, len(e))), g.standard_normal(len(e))
        for k, f in enumerate(FRACTIONS):
            J = (1 - f) * one + f * other
            own = np.empty_like(J)
            for rows in shells:  # the errors of a strong reflection go with a strong one
                own[rows[np.argsort(J[rows])]] = sigma[rows[np.argsort(e[rows])]]
            curve[k] += np.abs(_ratio(J + own * noise, own, first, second)).mean() / REPEATS
    return np.minimum.accumulate(curve)
