"""How the rates of several experiments hang together: shared, each its own, or by temperature.

    shared       k_j                                                 one rate in all experiments
    own          k_j,e                                               one in each
    arrhenius    k_j(T) = k_j exp[-(Ea_j/R) (1/T - 1/T_r)]
    eyring       k_j(T) = k_j (T/T_r) exp[-(ΔH‡_j/R) (1/T - 1/T_r)],      ΔS‡_j from k_j and ΔH‡_j

1/T_r is the mean of 1/T over the experiments: there data of several temperatures fix k_j best, and hardly tie it to
the slope. Numbers are named "k A->B" (at T_r, 1/s), "Ea A->B" or "dH A->B" (kJ/mol), "dS A->B" (J/(mol K)), and
"k A->B NAME" for the rate in experiment NAME. See `temperature` for the laws.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from bayesref._checks import InputError
from bayesref.kinetics.temperature import activation_entropy, arrhenius, eyring

SLOPES = {"arrhenius": "Ea", "eyring": "dH"}


@dataclass(frozen=True)
class RateLinks:
    """Links between the rates of experiments.

    Parameters
    ----------
    rates : names of the rates of the scheme
    experiments : their names
    law : "arrhenius", "eyring", or "" where temperature is not looked at: then rates are shared, or own
    temperatures : of each experiment, K, where there is a law
    own : rates that each experiment has for itself
    shared : rates that are the same at every temperature, where there is a law
    """

    rates: tuple[str, ...]
    experiments: tuple[str, ...]
    law: str = ""
    temperatures: tuple[float, ...] = ()
    own: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()

    def __post_init__(self):
        n = len(self.experiments)
        if n < 2 or len(set(self.experiments)) < n:
            raise InputError(
                f"The experiments are {', '.join(self.experiments) or 'none'}; expected two or more of different names."
            )
        for name in (*self.own, *self.shared):
            if name not in self.rates:
                raise InputError(f"There is no rate {name} to link; the scheme has {', '.join(self.rates)}.")
        twice = sorted(set(self.own) & set(self.shared))
        if twice:
            raise InputError(f"The rate of {twice[0]} is both shared and each experiment's own; choose one.")
        if not self.law:
            return
        if self.law not in SLOPES:
            raise InputError(f"There is no law {self.law!r} of temperature; expected {' or '.join(SLOPES)}.")
        if len(self.temperatures) != n or not all(T > 0 for T in self.temperatures):
            raise InputError(
                f"The temperatures of {n} experiments are {list(self.temperatures)}; expected one above 0 K for each."
            )
        if len(set(self.temperatures)) < 2:
            raise InputError(
                f"All experiments are at {self.temperatures[0]:g} K, which says nothing of how rates depend on "
                "temperature; leave the law out."
            )

    @property
    def T_ref(self) -> float:
        """T_r, K: the harmonic mean of the temperatures."""
        return len(self.temperatures) / sum(1 / T for T in self.temperatures)

    @property
    def common(self) -> tuple[str, ...]:
        """Rates of which there is one number "k A->B" for all experiments."""
        return tuple(r for r in self.rates if r not in self.own)

    @property
    def activated(self) -> tuple[str, ...]:
        """Rates that follow the law."""
        return tuple(r for r in self.common if self.law and r not in self.shared)

    @property
    def slope(self) -> str:
        """What the law's slope is called: "Ea", "dH", or "" without one."""
        return SLOPES.get(self.law, "")

    def at(self, name: str, values: Mapping[str, torch.Tensor], T) -> torch.Tensor:
        """The rate of an activated reaction, 1/s, at temperatures T, K, that broadcast with the numbers."""
        k, slope = values[f"k {name}"], values[f"{self.slope} {name}"]
        if self.law == "arrhenius":
            return arrhenius(k.log(), slope, T, self.T_ref)
        return eyring(slope, activation_entropy(k, slope, self.T_ref), T)

    def rates_of(self, values: Mapping[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        """{rate: k, 1/s, (...)} in each experiment, for numbers (...) named as above."""
        out = []
        for i, experiment in enumerate(self.experiments):
            k = {}
            for name in self.rates:
                if name in self.own:
                    k[name] = values[f"k {name} {experiment}"]
                elif name in self.activated:
                    k[name] = self.at(name, values, self.temperatures[i])
                else:
                    k[name] = values[f"k {name}"]
            out.append(k)
        return out
