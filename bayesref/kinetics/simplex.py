"""Unrestrained occupancies: one point of the simplex per time, no reaction scheme.

o(t) ~ Dirichlet(c, …, c),     o_s(t) ≥ 0,     Σ_s o_s(t) = 1
"""

from dataclasses import dataclass

import pyro.distributions as dist
import torch

from bayesref._checks import InputError


@dataclass(frozen=True)
class SimplexOccupancies:
    """Occupancies of `states` at `n_time` times.

    Parameters
    ----------
    states : names of the structures
    n_time : number of times
    concentration : c of the Dirichlet; 1 = uniform over the simplex, below 1 favours one structure alone
    """

    states: tuple[str, ...]
    n_time: int
    concentration: float = 1.0

    def __post_init__(self):
        if len(self.states) < 2 or len(set(self.states)) < len(self.states):
            raise InputError(f"The structures are {self.states}; give two or more of different names.")
        if self.n_time < 1 or self.concentration <= 0:
            raise InputError(
                f"Found {self.n_time} times and a concentration of {self.concentration}; both must be above zero."
            )

    def prior(self) -> dist.Distribution:
        """Dirichlet of batch shape (time,) and event shape (state,)."""
        c = torch.full((self.n_time, len(self.states)), self.concentration, dtype=torch.float64)
        return dist.Dirichlet(c)

    def occupancies(self, z: torch.Tensor) -> torch.Tensor:
        """Free numbers (..., time, state - 1), against the first state, to occupancies (..., time, state)."""
        shape = (self.n_time, len(self.states) - 1)
        if z.shape[-2:] != shape:
            raise InputError(f"The free occupancies have shape {tuple(z.shape)}; expected (..., {shape}).")
        return torch.softmax(torch.nn.functional.pad(z, (1, 0)), -1)


@dataclass(frozen=True)
class NoScheme:
    """States of which each delay has its own shares: what stands for `Kinetics` where there are no reactions.

    Parameters
    ----------
    states : names of the structures, the dark one first
    """

    states: tuple[str, ...]
    rates: tuple[str, ...] = ()

    @property
    def occupied(self) -> tuple[str, ...]:
        """States that have a structure: all."""
        return self.states

    @property
    def ground(self) -> str:
        """The dark state."""
        return self.states[0]

    @property
    def structures(self) -> dict[str, str]:
        """state -> structure, of one name."""
        return {s: s for s in self.states}

    def shares(self, fixed: dict, n_time: int) -> torch.Tensor | None:
        """(time, state), the shares that `fixed`, {state: share}, gives all states but the dark one; None if empty.

        Raises
        ------
        InputError
            Where it names no state, leaves one out, or exceeds one in sum.
        """
        if not fixed:
            return None
        others = self.states[1:]
        for name in (*fixed, *others):
            if name not in others:
                raise InputError(f"--fix {name}: without a scheme it holds shares of {', '.join(others)}.")
            if name not in fixed:
                raise InputError(
                    f"--fix holds the shares of all states or of none; that of {name} is missing."
                )
        if min(fixed.values()) < 0 or sum(fixed.values()) > 1:
            raise InputError(
                f"--fix: the shares of {', '.join(others)} must be at least 0 and at most 1 in sum."
            )
        row = torch.tensor(
            [1 - float(sum(fixed.values())), *(float(fixed[s]) for s in others)], dtype=torch.float64
        )
        return row.expand(n_time, -1).clone()
