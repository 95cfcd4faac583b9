"""Label swaps: exchanges of rates that data on unknown structures cannot tell apart.

    ρ(t) = Σ_s o_s(t) ρ_s

With free structures ρ_s the data fix only the space that the curves o_s(t) span. In A -> B -> C it is that of
exp(-k₁t), exp(-k₂t) and 1, whichever is which: k₁ <-> k₂ leaves C(t) as it is, and fits equally well with another
structure of B (slow-fast ambiguity: Vajda & Rabitz (1988), J. Phys. Chem. 92, 701). A posterior has a mode for each.
"""

from dataclasses import dataclass
from itertools import combinations

import torch

from bayesref._checks import InputError
from bayesref.kinetics.kinetics import Kinetics
from bayesref.kinetics.scheme import Scheme

MAX_RATES = 24  # pairs are tested one by one


@dataclass(frozen=True)
class Swap:
    """Two rates whose exchange leaves the span of all curves; `unchanged` = structures with the very same curve."""

    rates: tuple[str, str]
    unchanged: tuple[str, ...]


def swaps(kinetics: Kinetics | Scheme | str, tolerance: float = 1e-8) -> tuple[Swap, ...]:
    """Pairs of rates whose exchange the data cannot see unless the structures are known.

    Decided at three fixed sets of rates, by the angle between the spans before and after; rates that appear nowhere
    in the curves are reported too, with every structure unchanged.
    """
    if not isinstance(kinetics, Kinetics):
        kinetics = Kinetics(kinetics)
    n = len(kinetics.rates)
    if n > MAX_RATES:
        raise InputError(f"The scheme has {n} transitions; swaps are looked for among {MAX_RATES} at most.")
    t = torch.logspace(-2, 2, 60, dtype=torch.float64)
    i = torch.arange(1, n + 1, dtype=torch.float64)
    trials = torch.stack(
        [torch.exp(2 * torch.sin(i * a + a)) for a in (1.3, 2.1, 3.7)]
    )  # (trial, transition)
    before = kinetics.occupancies(trials, t)
    found = []
    for a, b in combinations(range(n), 2):
        order = list(range(n))
        order[a], order[b] = b, a
        after = kinetics.occupancies(trials[:, order], t)
        if _same_span(before, after, tolerance):
            same = (before - after).abs().amax((0, 1)) < tolerance
            names = tuple(s for s, yes in zip(kinetics.occupied, same.tolist(), strict=True) if yes)
            found.append(Swap((kinetics.rates[a], kinetics.rates[b]), names))
    return tuple(found)


def _same_span(x, y, tolerance):
    """Whether the columns of y lie in the span of those of x, and the reverse; (trial, time, structure)."""
    for u, v in ((x, y), (y, x)):
        left, size, _ = torch.linalg.svd(u, full_matrices=False)
        basis = left * (size > tolerance * size[:, :1])[:, None, :]
        if ((v - basis @ (basis.mT @ v)).abs() > tolerance).any():
            return False
    return True
