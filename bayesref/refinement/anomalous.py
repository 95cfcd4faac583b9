"""Anomalous scatterers: what makes |F(+h)| and |F(-h)| differ.

    F(±h) = A ± i B,  conj for -h            A: atoms with f', and solvent;  B = Σ_e f''_e Σ_j q_j T_j e^{2πi h·x_j}
    (|F₊|² + |F₋|²) / 2 = |A|² + |B|²        F₊ - F₋ = |A + iB| - |A - iB|  (small against |A|: -2 |B| sin(φ_B - φ_A))
    E δ = m δ_calc                           m = I₁(X)/I₀(X), X = 2 F G / (V + 2σ²): the phase of A is known so well

f'' of each element is a latent, about the value of Cromer and Liberman (1981) at the wavelength. Elements whose f'' is
below LEAST keep that of the table: they are many. Sim (1959), Acta Cryst. 12, 813, for m.
"""

from dataclasses import dataclass, field, replace

import torch

from bayesref._checks import InputError
from bayesref.crystal.asu import ReciprocalASU
from bayesref.crystal.atoms import Crystal
from bayesref.crystal.form_factors import FormFactors, anomalous
from bayesref.data.anomalous_pairs import AnomalousPairs
from bayesref.structure_factors.calculate import structure_factors
from bayesref.structure_factors.plan import Plan, make_plan

LEAST = 0.1  # electrons
LIGHT = "light"  # stands for all elements below


@dataclass(frozen=True, eq=False)
class AnomalousScatterers:
    """Scatterers of a crystal, and the differences that they explain.

    Attributes
    ----------
    asu : ReciprocalASU, the reflections
    pairs : AnomalousPairs
    f2 : {element: f'' in electrons, by table}, of those to be refined
    rows : {element: rows of its atoms}; of all light ones together by LIGHT
    units : {element: form factors}: one electron; of light atoms, their f''
    plans : {element: Plan}
    mean2 : (hkl,), ε Σ_j (f'' q T)² over the cell, what |B|² of those elements is on average
    """

    asu: ReciprocalASU
    pairs: AnomalousPairs
    f2: dict[str, float]
    rows: dict[str, torch.Tensor]
    units: dict[str, FormFactors]
    plans: dict[str, Plan]
    mean2: torch.Tensor
    _kept: dict = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls, crystal: Crystal, asu, pairs, wavelength: float, rel_error: float = 1e-3
    ) -> "AnomalousScatterers":
        """Of a crystal at a wavelength, Å.

        Raises
        ------
        InputError : no element scatters anomalously at this wavelength
        """
        names = [s.rstrip("+-0123456789") for s in crystal.scatterer]
        elements = list(dict.fromkeys(names))
        f2 = dict(zip(elements, anomalous(elements, wavelength)[1].tolist(), strict=True))
        table, f2 = f2, {e: x for e, x in f2.items() if x >= LEAST}
        if not f2:
            raise InputError(
                f"No element of the model has f'' of {LEAST} electrons or more at {wavelength:g} Å; "
                "leave --anomalous out."
            )
        rows = {e: torch.tensor([i for i, n in enumerate(names) if n == e]) for e in f2}
        units = {e: _units([1.0] * len(r)) for e, r in rows.items()}
        light = [i for i, n in enumerate(names) if n not in f2]
        if light:
            rows[LIGHT], units[LIGHT] = torch.tensor(light), _units([table[names[i]] for i in light])
        return cls(asu, pairs, f2, rows, units, {}, asu.stol2).moved(crystal, rel_error)

    def moved(self, crystal: Crystal, rel_error: float) -> "AnomalousScatterers":
        """The same for atoms that have moved: plans and mean made again."""
        asu, plans = self.asu, {}
        mean2 = torch.zeros(len(asu), dtype=torch.float64)
        n = len(crystal.spacegroup.operations())
        for e, rows in self.rows.items():
            some = crystal.select(rows)
            plans[e] = make_plan(some, asu.hkl, self.units[e], rel_error)
            if e != LIGHT:
                own = some.occupancy[:, None] * torch.exp(-some.B[:, None] * asu.stol2)
                mean2 = mean2 + n * self.f2[e] ** 2 * own.square().sum(0)
        return replace(self, plans=plans, mean2=asu.epsilon * mean2, _kept={})

    def transform(self, crystal: Crystal) -> dict[str, torch.Tensor]:
        """F per f'' of the atoms of each element, and F of the light ones, (hkl,) complex128; remembered."""
        parameters = [crystal.xyz, crystal.B, crystal.occupancy, *([] if crystal.U is None else [crystal.U])]
        if any(x.requires_grad for x in parameters):
            return self._of(crystal)
        last = self._kept.get("at")
        if last is None or not all(torch.equal(a, b) for a, b in zip(last, parameters, strict=True)):
            with torch.no_grad():
                self._kept.update(at=[x.clone() for x in parameters], F=self._of(crystal))
        return self._kept["F"]

    def _of(self, crystal):
        return {
            e: structure_factors(crystal.select(rows), plan=self.plans[e]).to(torch.complex128)
            for e, rows in self.rows.items()
        }


def _units(electrons: list[float]) -> FormFactors:
    """Of points with these numbers of electrons."""
    kinds = sorted(set(electrons))
    a = torch.tensor(kinds, dtype=torch.float64)[:, None]
    index = torch.tensor([kinds.index(x) for x in electrons])
    return FormFactors(a, 0 * a, 0 * a[:, 0], index)


def mean_and_difference(A: torch.Tensor, B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """√((|F₊|² + |F₋|²)/2) and |F₊| - |F₋| of A and B, (hkl,) complex; with finite slopes everywhere."""
    mean = (A.abs() ** 2 + B.abs() ** 2).clamp(min=1e-12).sqrt()
    cross = (A.conj() * (1j * B)).real  # |A ± iB|² = |A|² + |B|² ± 2 of it
    plus, minus = ((mean**2 + s * 2 * cross).clamp(min=1e-12).sqrt() for s in (1, -1))
    return mean, 4 * cross / (plus + minus)


def phase_confidence(F: torch.Tensor, sigma: torch.Tensor, G: torch.Tensor, V: torch.Tensor) -> torch.Tensor:
    """m of acentric amplitudes F ± sigma around G, (hkl,)."""
    X = 2 * F * G / (V + 2 * sigma**2)
    return torch.special.i1e(X) / torch.special.i0e(X)
