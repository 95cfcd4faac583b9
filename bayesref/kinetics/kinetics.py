"""Kinetics: from rates to the occupancies of structures.

    o(t) = M [(1 - α) u + α ⟨p⟩(t)]

    ⟨p⟩   populations of the molecules that the light reaches, seen through the response of the instrument;
          all in `ground` for t < 0, all in `start` at t = 0
    α     activation: the fraction that the light reaches
    u     occupancies of the rest, constant in time (unreacted): all in `ground`, or a simplex that is given or inferred
    M     structure of each kinetic state; several states may share one, and a state without one is lost to the data

Every factor is non-negative and sums to one, and so do the occupancies (to what is not lost).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import torch

from bayesref._checks import InputError
from bayesref.kinetics.response import NoResponse
from bayesref.kinetics.scheme import Scheme


@dataclass(frozen=True)
class Kinetics:
    """A reaction scheme, and what its states mean.

    Parameters
    ----------
    scheme : Scheme or its text
    ground : state of all molecules before t = 0; the first state of the scheme where empty
    start : state in which the reaction starts at t = 0; `ground` where empty
    light_activated : products that return to `ground` are inactive (a state "ground*" of the same structure)
    returns : {transition: state} that what a transition with an efficiency below one loses goes to; `ground` where
        a transition is not named
    structures : {kinetic state: structure}; None = a state that the data do not see. States that are not named have a
        structure of their own name
    """

    scheme: Scheme | str
    ground: str = ""
    start: str = ""
    light_activated: bool = False
    returns: Mapping[str, str] = field(default_factory=dict)
    structures: Mapping[str, str | None] = field(default_factory=dict)

    def __post_init__(self):
        scheme = Scheme(self.scheme) if isinstance(self.scheme, str) else self.scheme
        ground = self.ground or scheme.states[0]
        scheme.index(ground)
        start = self.start or ground
        scheme.index(start)
        unknown = [name for name in self.returns if name not in scheme.rates]
        if unknown:
            raise InputError(
                f"The scheme has no transition {unknown[0]!r} to lose from; it has {scheme.rates}."
            )
        home: dict[str, str | None] = {state: state for state in scheme.states}
        if self.light_activated:
            scheme = scheme.light_activated(ground)
            home[f"{ground}*"] = self.structures.get(ground, ground)
        for state in [*self.structures, *self.returns.values()]:
            scheme.index(state)
        home.update(self.structures)
        if "" in home.values():
            raise InputError(
                "A structure has an empty name; name it, or write None for a state that is not seen."
            )
        if not any(home.values()):
            raise InputError("No state has a structure; give at least one in `structures`.")
        for name, value in {"scheme": scheme, "ground": ground, "start": start, "structures": home}.items():
            object.__setattr__(self, name, value)

    @property
    def _scheme(self) -> Scheme:
        return cast(Scheme, self.scheme)  # text is parsed in __post_init__

    @property
    def states(self) -> tuple[str, ...]:
        """Kinetic states, with the inactive ground state where light acts once."""
        return self._scheme.states

    @property
    def rates(self) -> tuple[str, ...]:
        """Names of the rates, "A->B"."""
        return self._scheme.rates

    @property
    def occupied(self) -> tuple[str, ...]:
        """Structures, in the order of the last axis of `occupancies`."""
        return tuple(dict.fromkeys(s for state in self.states if (s := self.structures[state]) is not None))

    def mapping(self) -> torch.Tensor:
        """M, (structure, state), of zeros and ones."""
        M = torch.zeros(len(self.occupied), len(self.states), dtype=torch.float64)
        for j, state in enumerate(self.states):
            if self.structures[state] is not None:
                M[self.occupied.index(self.structures[state]), j] = 1
        return M

    def rate_matrix(self, rates, efficiencies=None, factors=None) -> torch.Tensor:
        """Q, 1/s, (..., state, state); arguments as in `occupancies`."""
        back = f"{self.ground}*" if self.light_activated else self.ground
        returns = {name: self.returns.get(name, back) for name in efficiencies or {}}
        if self.light_activated:  # what comes back to the ground state is inactive
            returns = {name: back if state == self.ground else state for name, state in returns.items()}
        return self._scheme.rate_matrix(rates, efficiencies, returns, factors)

    def populations(self, rates, t, *, response=None, efficiencies=None, factors=None) -> torch.Tensor:
        """⟨p⟩(t), (..., time, state); arguments as in `occupancies`."""
        Q = self.rate_matrix(rates, efficiencies, factors)
        one = torch.eye(len(self.states), dtype=Q.dtype, device=Q.device)
        start, before = (one[self._scheme.index(s)] for s in (self.start, self.ground))
        t = torch.as_tensor(t, dtype=Q.dtype, device=Q.device)
        if t.ndim == 0 or not torch.isfinite(t).all():
            raise InputError(f"The times have shape {tuple(t.shape)}; expected finite times, s, (..., time).")
        return (response or NoResponse()).convolve(Q, start, before, t)

    def occupancies(
        self, rates, t, *, response=None, efficiencies=None, activation=1.0, unreacted=None, factors=None
    ) -> torch.Tensor:
        """Occupancies of the structures.

        Parameters
        ----------
        rates : 1/s, {name: (...)} or a tensor (..., transition)
        t : times, s, (..., time), in any order, repeated ones allowed
        response : NoResponse (default), GaussianResponse, ExponentialGaussianResponse, BoxResponse, HistogramResponse
        efficiencies : {transition: fraction that arrives, (...)}; the rest returns as `returns` says
        activation : α in [0, 1], of the batch shape (...) of the rates; with one axis more, one α per time
        unreacted : u as occupancies of structures, (..., structure), at least zero, of sum one; `ground` where None
        factors : {transition: number that multiplies its rate}, for comparison with programs that call this an
            efficiency; the data determine only the product

        Returns
        -------
        tensor (..., time, structure)
        """
        p = self.populations(rates, t, response=response, efficiencies=efficiencies, factors=factors)
        M = self.mapping().to(p)
        alpha = torch.as_tensor(activation, dtype=p.dtype, device=p.device)
        if ((alpha < 0) | (alpha > 1)).any():
            raise InputError(f"The activation is {alpha.tolist()}; expected a fraction from 0 to 1.")
        alpha = self._per_time(alpha, p)
        return (1 - alpha) * self._unreacted(unreacted, M)[..., None, :] + alpha * (p @ M.T)

    @staticmethod
    def _per_time(alpha, p) -> torch.Tensor:
        shape = tuple(alpha.shape)
        alpha = alpha[..., None] if alpha.ndim > p.ndim - 2 else alpha[..., None, None]
        try:
            torch.broadcast_shapes(alpha.shape[:-1], p.shape[:-1])
        except RuntimeError:
            raise InputError(
                f"The activation has shape {shape}; expected that of the rates, {tuple(p.shape[:-2])}, or with the "
                f"times, {tuple(p.shape[:-1])}."
            ) from None
        return alpha

    def _unreacted(self, u, M) -> torch.Tensor:
        if u is None:
            return M[:, self._scheme.index(self.ground)]
        u = torch.as_tensor(u, dtype=M.dtype, device=M.device)
        if u.ndim == 0 or u.shape[-1] != len(M):
            raise InputError(
                f"The unreacted occupancies have shape {tuple(u.shape)}; expected (..., {len(M)}): {self.occupied}."
            )
        if (u < 0).any() or ((u.sum(-1) - 1).abs() > 1e-6).any():
            raise InputError(f"The unreacted occupancies {u.tolist()} must be at least zero and sum to one.")
        return u
