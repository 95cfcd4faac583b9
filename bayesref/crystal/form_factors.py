"""X-ray and electron form factors as sums of Gaussians.

    f(s) = Σ_n a_n exp(-b_n s²) + c + f' + i f''          s² = 1/(4 d²), Å⁻²; a, c, f', f'' in electrons; b in Å²

The constant c is a Gaussian with b = 0. Tables:

    it92      International Tables C (1992), 6.1.1.4: 4 Gaussians and c, to s = 2 Å⁻¹ (from gemmi; bonded hydrogen)
    wk95      Waasmaier & Kirfel (1995), Acta Cryst. A51, 416: 5 Gaussians and c, to s = 6 Å⁻¹ (free hydrogen)
    electron  International Tables C, 4.3.2.2 (Peng et al.): electron diffraction, 5 Gaussians, in Å (from gemmi)

f' and f'' by wavelength are gemmi's (Cromer & Liberman, 1981, Acta Cryst. A37, 267).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import gemmi
import torch

from bayesref._checks import InputError
from bayesref.crystal import waasmaier_kirfel

Table = Literal["it92", "wk95", "electron"]
HC = 12398.41984  # eV Å: energy = HC / wavelength


@dataclass(frozen=True)
class FormFactors:
    """Gaussians of the distinct scatterers of a crystal.

    Attributes
    ----------
    a : (scatterer, gauss) float64, electrons (Å for electron diffraction); f' is added to the column of c
    b : (scatterer, gauss) float64, Å², 0 for the constant
    f2 : (scatterer,) float64, f'' in electrons, zeros where no wavelength is given
    index : (atom,) int64, row of each atom
    """

    a: torch.Tensor
    b: torch.Tensor
    f2: torch.Tensor
    index: torch.Tensor

    def f0(self, stol2: torch.Tensor) -> torch.Tensor:
        """f(s) without f'', (hkl, scatterer), at `stol2` (hkl,)."""
        return (self.a * torch.exp(-self.b * stol2[:, None, None])).sum(-1)

    def to(self, device: torch.device) -> "FormFactors":
        return FormFactors(*(x.to(device) for x in (self.a, self.b, self.f2, self.index)))


def form_factors(
    scatterers: Sequence[str], table: Table = "it92", wavelength: float | None = None
) -> FormFactors:
    """Form factors of a list of atoms.

    Parameters
    ----------
    scatterers : (atom,) element symbols with an optional charge: "C", "Fe3+", "O1-"; an ion that the table lacks
        falls back to its neutral atom
    table : "it92", "wk95" or "electron"
    wavelength : Å; gives f' and f'' to every atom. None leaves both out.

    Raises
    ------
    InputError
        For an unknown table, an unknown element, or a wavelength with `table="electron"`.
    """
    if table not in _ROWS:
        raise InputError(f"Unknown form-factor table {table!r}; choose from {', '.join(_ROWS)}.")
    if wavelength is not None and table == "electron":
        raise InputError(
            "f' and f'' are X-ray quantities; leave out the wavelength for electron form factors."
        )
    if wavelength is not None and not wavelength > 0:
        raise InputError(f"The wavelength must be above zero, in Å; it is {wavelength!r}.")
    names = list(dict.fromkeys(scatterers))
    rows = [_ROWS[table](*_split(name)) for name in names]
    a = torch.tensor([r[0] for r in rows], dtype=torch.float64).reshape(len(names), -1)
    b = torch.tensor([r[1] for r in rows], dtype=torch.float64).reshape(len(names), -1)
    f2 = torch.zeros(len(names), dtype=torch.float64)
    if wavelength is not None:
        f1, f2 = anomalous(names, wavelength)
        a[:, -1] += f1
    row = {name: i for i, name in enumerate(names)}
    return FormFactors(a, b, f2, torch.tensor([row[s] for s in scatterers], dtype=torch.int64))


def anomalous(scatterers: Sequence[str], wavelength: float) -> tuple[torch.Tensor, torch.Tensor]:
    """f' and f'' in electrons, each (scatterer,) float64, at `wavelength` in Å."""
    energy = HC / wavelength
    pairs = [gemmi.cromer_liberman(z=_split(s)[0].atomic_number, energy=energy) for s in scatterers]
    f1, f2 = torch.tensor(pairs, dtype=torch.float64).reshape(-1, 2).unbind(-1)
    return f1, f2


def _split(name: str) -> tuple[gemmi.Element, int]:
    match = re.fullmatch(r"([A-Za-z]{1,2})(?:(\d?)([+-]))?", name.strip())
    element = gemmi.Element(match[1]) if match else gemmi.Element("X")
    if match is None or element.atomic_number == 0:
        raise InputError(f"{name!r} is no element that scatters; give a symbol such as C, Se or Fe3+.")
    charge = int(match[2] or 1) * (1 if match[3] == "+" else -1) if match[3] else 0
    return element, charge


def _it92(element: gemmi.Element, charge: int):
    ignore = gemmi.IT92_get_ignore_charge()
    gemmi.IT92_set_ignore_charge(False)  # a global of gemmi, put back below
    try:
        row = gemmi.IT92_get_exact(element, charge) or element.it92
    finally:
        gemmi.IT92_set_ignore_charge(ignore)
    _known(row, element, "it92")
    return [*row.a, row.c], [*row.b, 0.0]


def _wk95(element: gemmi.Element, charge: int):
    symbol = "H" if element.name == "D" else element.name
    ion = f"{symbol}{abs(charge)}{'+' if charge > 0 else '-'}"
    table = waasmaier_kirfel.table()
    row = table.get(ion) if charge else None
    row = row or table.get(symbol)
    return _known(row, element, "wk95")


def _electron(element: gemmi.Element, charge: int):
    row = element.c4322 or (gemmi.Element("H").c4322 if element.name == "D" else None)
    row = _known(row, element, "electron")
    return [*row.a], [*row.b]


def _known(row, element: gemmi.Element, table: str):
    if row is None:
        raise InputError(f"The form-factor table {table} has no entry for {element.name}.")
    return row


_ROWS = {"it92": _it92, "wk95": _wk95, "electron": _electron}
