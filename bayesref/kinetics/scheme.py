"""Reaction schemes: from text to the rate matrix.

    "A -> B, B <-> C"     states A, B, C; transitions A->B, B->C, C->B

    Q_ij = Σ k over the transitions j -> i,     Q_jj = -Σ_{i≠j} Q_ij         dp/dt = Q p

A transition may branch: the fraction η (its efficiency) arrives, the rest 1 - η goes to a named state,

    Q_target,source += η k,     Q_return,source += (1 - η) k,

so that k remains the total rate of leaving. This differs from a factor f that multiplies the rate (`factors`): there
only f k is determined by data.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from bayesref._checks import InputError
from bayesref.kinetics.units import per_second

_TOKEN = re.compile(r"(?P<space>[ \t\r]+)|(?P<arrow><->|->)|(?P<name>[A-Za-z_]\w*'*)|(?P<end>[,;\n])")
_REMEDY = {"<": "write '<->' for both directions, or turn the transition round", "-": "write '->' or '<->'"}


@dataclass(frozen=True)
class Transition:
    """One arrow: its rate's name, and the indices of the states it leaves and reaches."""

    name: str
    source: int
    target: int


@dataclass(frozen=True)
class Scheme:
    """A first-order reaction scheme.

    Parameters
    ----------
    text : transitions "A -> B" or "A <-> B", chains "A -> B -> C", single states "D"; separated by comma, semicolon
        or newline

    Attributes
    ----------
    states : names in the order of their first appearance
    transitions : in the order of the text; those of "A <-> B" are A->B, B->A

    Raises
    ------
    InputError, naming line and column
    """

    text: str
    states: tuple[str, ...] = ()
    transitions: tuple[Transition, ...] = ()

    def __post_init__(self):
        if not self.states:
            states, arrows = _parse(self.text)
            object.__setattr__(self, "states", states)
            object.__setattr__(
                self,
                "transitions",
                tuple(Transition(f"{a}->{b}", states.index(a), states.index(b)) for a, b in arrows),
            )

    @property
    def rates(self) -> tuple[str, ...]:
        """Names of the rates, "A->B"."""
        return tuple(t.name for t in self.transitions)

    def index(self, state: str) -> int:
        """Position of a state."""
        if state not in self.states:
            raise InputError(f"The scheme has no state {state!r}; its states are {', '.join(self.states)}.")
        return self.states.index(state)

    def light_activated(self, ground: str | None = None) -> "Scheme":
        """The scheme in which products that return to `ground` end in an inactive state "ground*".

        Light acts once: what comes back does not react again. Rates keep their names.
        """
        ground = ground or self.states[0]
        g, inactive = self.index(ground), len(self.states)
        if f"{ground}*" in self.states:
            raise InputError(
                f"The scheme has an inactive state {ground}* already; activate it by light once."
            )
        back = tuple(
            Transition(t.name, t.source, inactive if t.target == g else t.target) for t in self.transitions
        )
        return Scheme(self.text, (*self.states, f"{ground}*"), back)

    def rate_matrix(
        self,
        k: Mapping[str, torch.Tensor | float | str] | torch.Tensor,
        efficiencies: Mapping[str, torch.Tensor | float] | None = None,
        returns: Mapping[str, str] | None = None,
        factors: Mapping[str, torch.Tensor | float] | None = None,
    ) -> torch.Tensor:
        """Q, 1/s, (..., state, state); its columns sum to zero.

        Parameters
        ----------
        k : rates, 1/s, {name: (...)}, text with a unit allowed; or a tensor (..., transition)
        efficiencies : fraction in [0, 1] of a transition that arrives, {name: (...)}
        returns : state that the rest of such a transition goes to, {name: state}
        factors : numbers that multiply rates, {name: (...)}
        """
        rates = self._rates(k)
        for name, f in self._known("factor", factors).items():
            rates[name] = rates[name] * f
        eta, returns = self._known("efficiency", efficiencies), returns or {}
        for name, e in eta.items():
            if (e < 0).any() or (e > 1).any():
                raise InputError(
                    f"The efficiency of {name} is {e.tolist()}; expected a fraction from 0 to 1."
                )
            if name not in returns:
                raise InputError(f"The efficiency of {name} needs the state that the rest returns to.")
        flow = []  # (target, source, rate)
        for t in self.transitions:
            flow.append((t.target, t.source, rates[t.name] * eta.get(t.name, 1.0)))
            if t.name in eta:
                flow.append((self._return(t, returns[t.name]), t.source, rates[t.name] * (1 - eta[t.name])))
        return self._assemble(flow)

    def _return(self, t: Transition, state: str) -> int:
        i = self.index(state)
        if i == t.source:
            raise InputError(
                f"What {t.name} loses would return to {state}, where it came from, which only multiplies the rate; "
                "name another state, or use factors."
            )
        return i

    def _assemble(self, flow) -> torch.Tensor:
        n = len(self.states)
        if not flow:
            return torch.zeros(n, n, dtype=torch.float64)
        # Plain numbers are on the CPU; they follow the tensors that are not.
        device = next((r.device for _, _, r in flow if r.device.type != "cpu"), torch.device("cpu"))
        rates = torch.stack(torch.broadcast_tensors(*[r.to(device) for _, _, r in flow]), -1)  # (..., flow)
        place = torch.zeros(len(flow), n * n, dtype=rates.dtype, device=rates.device)
        for f, (i, j, _) in enumerate(flow):
            place[f, i * n + j] += 1
            place[f, j * n + j] -= 1
        return (rates @ place).unflatten(-1, (n, n))

    def _rates(self, k) -> dict[str, torch.Tensor]:
        if isinstance(k, torch.Tensor):
            if k.ndim == 0 or k.shape[-1] != len(self.transitions):
                raise InputError(
                    f"The rates have shape {tuple(k.shape)}; expected (..., {len(self.transitions)}), one for each of "
                    f"{', '.join(self.rates)}."
                )
            k = dict(zip(self.rates, k.unbind(-1), strict=True))
        found = self._known("rate", k)
        missing = [name for name in self.rates if name not in found]
        if missing:
            raise InputError(
                f"There is no rate for {', '.join(missing)}; give one, 1/s, for every transition."
            )
        for name, value in found.items():
            if (value < 0).any():
                raise InputError(f"The rate of {name} is {value.tolist()}; rates are at least zero, 1/s.")
        return found

    def _known(self, what: str, values) -> dict[str, torch.Tensor]:
        """Values as float64 tensors of one device; unknown names are refused."""
        values = values or {}
        unknown = [name for name in values if name not in self.rates]
        if unknown:
            raise InputError(
                f"The scheme has no transition {unknown[0]!r} to give this {what} to; its transitions are "
                f"{', '.join(self.rates) or 'none'}."
            )
        device = next((v.device for v in values.values() if isinstance(v, torch.Tensor)), None)
        return {
            name: torch.as_tensor(
                per_second(v) if isinstance(v, str) else v, dtype=torch.float64, device=device
            )
            for name, v in values.items()
        }


def _parse(text: str) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """States in order of appearance, and transitions (source, target)."""
    states: list[str] = []
    arrows: list[tuple[str, str]] = []
    last = arrow = None  # state before the arrow, arrow that waits for its target
    for kind, word, at in _tokens(text):
        if kind == "arrow":
            if arrow:
                raise _error(text, at, f"an arrow {word!r} follows another; name a state between them")
            if last is None:
                raise _error(text, at, f"an arrow {word!r} without a state before it; write 'A {word} B'")
            arrow = word
        elif kind == "name":
            if last and not arrow:
                raise _error(
                    text, at, f"{word!r} follows {last!r} without an arrow; write '->' or a comma between"
                )
            if arrow:
                for pair in [(last, word), (word, last)][: 2 if arrow == "<->" else 1]:
                    _add(text, at, arrows, pair)
            if word not in states:
                states.append(word)
            last, arrow = word, None
        else:
            if arrow:
                raise _error(text, at, f"the arrow after {last!r} has no target; name the state it leads to")
            last = None
    if not states:
        raise InputError("The reaction scheme is empty; write transitions such as 'A -> B, B -> C'.")
    return tuple(states), arrows


def _add(text, at, arrows, pair):
    a, b = pair
    if a == b:
        raise _error(text, at, f"{a!r} leads to itself; name another state, or drop the transition")
    if pair in arrows:
        raise _error(text, at, f"{a} -> {b} is given twice; keep one")
    arrows.append(pair)


def _tokens(text):
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if not found:
            remedy = _REMEDY.get(
                text[at], "names are letters, digits and '_', arrows '->' or '<->', separators ','"
            )
            raise _error(text, at, f"{text[at]!r} is not understood; {remedy}")
        if found.lastgroup != "space":
            yield found.lastgroup, found[0], at
        at = found.end()
    yield "end", "", at


def _error(text, at, what):
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    return InputError(f"Reaction scheme, line {line}, column {column}: {what}.")
