"""Form factors: electrons at s = 0, agreement of the tables, ions, anomalous terms."""

import gemmi
import pytest
import torch

from bayesref._checks import InputError
from bayesref.crystal.form_factors import anomalous, form_factors

ELEMENTS = ["H", "C", "N", "O", "Na", "P", "S", "Cl", "Ca", "Fe", "Zn", "Se", "Br", "I", "Hg", "U"]
ZERO = torch.zeros(1, dtype=torch.float64)


@pytest.mark.parametrize(("table", "tolerance"), [("it92", 0.02), ("wk95", 0.01)])
def test_forward_scattering_counts_electrons(table, tolerance):
    f = form_factors(ELEMENTS, table)
    Z = torch.tensor([gemmi.Element(e).atomic_number for e in ELEMENTS], dtype=torch.float64)
    assert (f.f0(ZERO)[0] - Z).abs().max() < tolerance * Z.max() ** 0.5


def test_two_tables_agree():
    stol2 = torch.linspace(0, 0.5, 20, dtype=torch.float64)
    heavier = ELEMENTS[1:]  # it92 has hydrogen as bonded in a molecule, wk95 as a free atom
    x, y = (form_factors(heavier, t).f0(stol2) for t in ("it92", "wk95"))
    assert ((x - y).abs() < 0.03 + 0.01 * y).all()


def test_ions_lose_or_gain_electrons_and_fall_back():
    f = form_factors(["Fe", "Fe3+", "O", "O1-", "S4+"]).f0(ZERO)[0]
    assert float(f[0] - f[1]) == pytest.approx(3, abs=0.05)
    assert float(f[3] - f[2]) == pytest.approx(1, abs=0.05)
    assert float(f[4]) == pytest.approx(16, abs=0.05)  # the table has no S4+
    assert float(form_factors(["Fe3+"], "wk95").f0(ZERO)) == pytest.approx(23, abs=0.05)
    assert gemmi.IT92_get_ignore_charge() is True  # gemmi's global setting is put back


def test_equal_scatterers_share_a_row():
    f = form_factors(["C", "N", "C", "D"])
    assert f.index.tolist() == [0, 1, 0, 2]
    assert len(f.a) == 3


def test_anomalous_terms_at_copper_wavelength():
    """f', f'' of Fe and S at Cu Kα, International Tables C, Table 4.2.6.8: -1.134, 3.197; 0.319, 0.557."""
    f1, f2 = anomalous(["Fe", "S"], 1.5418)
    assert f1.tolist() == pytest.approx([-1.134, 0.319], abs=0.05)
    assert f2.tolist() == pytest.approx([3.197, 0.557], abs=0.02)
    plain, with_f = form_factors(["Fe"]), form_factors(["Fe"], wavelength=1.5418)
    assert float(with_f.f0(ZERO) - plain.f0(ZERO)) == pytest.approx(float(f1[0]))
    assert float(plain.f2) == 0


def test_electron_form_factors_are_those_of_gemmi():
    f = form_factors(["C"], "electron").f0(torch.tensor([0.04], dtype=torch.float64))
    assert float(f) == pytest.approx(gemmi.Element("C").c4322.calculate_sf(0.04), rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["C"], "it1992"), "Unknown form-factor table"),
        ((["Qq"], "it92"), "no element"),
        ((["C 2"], "it92"), "no element"),
        ((["Es"], "electron"), "no entry for Es"),
        ((["C"], "electron", 1.0), "X-ray quantities"),
        ((["C"], "it92", -1.0), "must be above zero"),
    ],
)
def test_bad_requests_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        form_factors(*arguments)


def test_free_hydrogen_is_the_exact_one_of_wk95():
    """f = (1 + (2π a₀ s)²)⁻² of the ground state, a₀ = 0.529177 Å, s = sin θ / λ."""
    stol2 = torch.linspace(0, 1, 10, dtype=torch.float64)
    exact = (1 + (2 * torch.pi * 0.529177) ** 2 * stol2) ** -2
    assert torch.allclose(form_factors(["H"], "wk95").f0(stol2)[:, 0], exact, atol=2e-3)
