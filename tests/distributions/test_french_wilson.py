"""French & Wilson (1978), Table 1, and the amplitudes that Phenix makes of the same intensities.

The table: posterior moments for I = -3 .. 50, SIGI = 1 and Σ = 20, printed to 0.001. Exact integration
(checked here with mpmath) shows which of its digits are right:

- acentric E(J): all, within 0.0006;
- acentric E(F), σ(F) at I ≥ 4 are √E(J) and σ(J)/2F, a first-order expansion that is 0.017 off at I = 4;
- centric E(J) at I = 4 is printed 3.910; the exact 3.832 agrees with E(F)² + σ(F)² of the same row, 3.831;
- the rest carries the error of the numerical integration of 1978: up to 0.004, and 0.008 in centric σ(J).
"""

import mpmath as mp
import numpy as np
import pandas as pd
import pytest
import torch

from bayesref._checks import InputError
from bayesref.distributions import french_wilson, wilson_sigma

D = {"dtype": torch.float64}
SIGMA = 20.0


@pytest.fixture(scope="module")
def table(data_dir):
    path = data_dir / "readers" / "french_wilson_1978_table1.csv"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return pd.read_csv(path)


def _rows(table, centric):
    I = torch.tensor(table.I.to_numpy(), **D)
    return french_wilson(I, torch.ones_like(I), SIGMA, torch.full(I.shape, centric), torch.ones_like(I))


@pytest.mark.data
def test_table_1_acentric(table):
    ours, I = _rows(table, False), table.I.to_numpy()
    np.testing.assert_allclose(ours.I, table["Acentric E(J|I)"], rtol=0, atol=6e-4)
    np.testing.assert_allclose(ours.SIGI, table["Acentric sigma(J|I)"], rtol=0, atol=3e-3)
    low = I <= 3
    np.testing.assert_allclose(ours.F[low], table["Acentric E(F|I)"][low], rtol=0, atol=8e-4)
    np.testing.assert_allclose(ours.SIGF[low], table["Acentric sigma(F|I)"][low], rtol=0, atol=9e-4)
    first_order = ours.I.sqrt()
    np.testing.assert_allclose(first_order[~low], table["Acentric E(F|I)"][~low], rtol=0, atol=8e-4)
    np.testing.assert_allclose(
        (0.5 * ours.SIGI / first_order)[~low], table["Acentric sigma(F|I)"][~low], rtol=0, atol=8e-4
    )


@pytest.mark.data
def test_table_1_centric(table):
    ours, sound = _rows(table, True), table.I.to_numpy() != 4
    np.testing.assert_allclose(ours.I[sound], table["Centric E(J|I)"][sound], rtol=0, atol=3e-3)
    np.testing.assert_allclose(ours.SIGI, table["Centric sigma(J|I)"], rtol=0, atol=8e-3)
    np.testing.assert_allclose(ours.F, table["Centric E(F|I)"], rtol=0, atol=4e-3)
    np.testing.assert_allclose(ours.SIGF, table["Centric sigma(F|I)"], rtol=0, atol=2e-3)
    misprint = table[~sound].iloc[0]
    consistent = misprint["Centric E(F|I)"] ** 2 + misprint["Centric sigma(F|I)"] ** 2
    assert abs(float(ours.I[torch.tensor(~sound)]) - consistent) < 2e-3


@pytest.mark.parametrize("I", [-10.0, -3.0, 0.0, 4.0, 20.0])
@pytest.mark.parametrize("centric", [True, False])
def test_exact_moments(I, centric):
    one = torch.ones(1, **D)
    ours = french_wilson(I * one, one, SIGMA, one > (0 if centric else 2), one)
    c = mp.mpf(I) - (mp.mpf(1) / 2 if centric else 1) / mp.mpf(SIGMA)

    def moment(k):
        def integrand(F):
            return F ** (k + (0 if centric else 1)) * mp.exp(
                -((F * F - c) ** 2) / 2 + (c * c / 2 if c < 0 else 0)
            )

        return mp.quad(integrand, mp.linspace(0, mp.sqrt(max(c, 0) + 12), 12))

    m = [moment(k) for k in range(5)]
    F, J = m[1] / m[0], m[2] / m[0]
    want = [F, mp.sqrt(J - F * F), J, mp.sqrt(m[4] / m[0] - J * J)]
    got = [float(x) for x in (ours.F, ours.SIGF, ours.I, ours.SIGI)]
    np.testing.assert_allclose(got, [float(x) for x in want], rtol=1e-9)


def test_scale_and_epsilon():
    """Intensities in other units, and ε Σ as one number, change nothing."""
    I = torch.tensor([-2.0, 0.5, 30.0, 4.0], **D)
    SIGI, epsilon = torch.tensor([1.0, 2, 3, 1], **D), torch.tensor([1.0, 2, 4, 12], **D)
    centric = torch.tensor([True, False, True, False])
    first = french_wilson(I, SIGI, SIGMA, centric, epsilon)
    other = french_wilson(1e6 * I, 1e6 * SIGI, 1e6 * SIGMA * epsilon, centric, torch.ones_like(I))
    torch.testing.assert_close(other.F, 1e3 * first.F, rtol=1e-11, atol=0)
    torch.testing.assert_close(other.SIGI, 1e6 * first.SIGI, rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"SIGI": torch.tensor([1.0, 0.0], **D)}, "SIGI must be above zero"),
        ({"I": torch.tensor([1.0, float("nan")], **D)}, "I holds 1 values that are not finite"),
        ({"Sigma": -1.0}, "Sigma must be above zero"),
        ({"epsilon": torch.ones(3, **D)}, "epsilon has shape"),
        ({"centric": torch.zeros(2, **D)}, "expected torch.bool"),
    ],
)
def test_bad_input(change, message):
    one = torch.ones(2, **D)
    good = {"I": one, "SIGI": one, "Sigma": one, "centric": one > 0, "epsilon": one}
    with pytest.raises(InputError, match=message):
        french_wilson(**{**good, **change})


@pytest.fixture(scope="module")
def phenix(data_dir):
    """Phenix's amplitudes of lysozyme with the intensities they came from, as tensors."""
    rs = pytest.importorskip("reciprocalspaceship")
    files = [data_dir / "hewl" / x for x in ("phenix_fw_ref.mtz", "HEWL_SSAD_24IDC.mtz")]
    if not all(x.is_file() for x in files):
        pytest.skip(f"no {files[0]} and {files[1]}")
    out, raw = (rs.read_mtz(str(x)) for x in files)
    raw = raw.loc[out.index]
    assert np.array_equal(out.I.to_numpy(), raw.IMEAN.to_numpy())
    assert np.array_equal(out.SIGI.to_numpy(), raw.SIGIMEAN.to_numpy())
    out = out.compute_dHKL().label_centrics().compute_multiplicity()
    columns = {c: torch.tensor(out[c].to_numpy(float)) for c in ("I", "SIGI", "F", "SIGF", "EPSILON", "dHKL")}
    return {**columns, "centric": torch.tensor(out.CENTRIC.to_numpy(bool))}


def _quantiles(x, *levels):
    return x.quantile(torch.tensor(levels, **D)).tolist()


@pytest.mark.data
def test_phenix(phenix):
    """Same intensities, our own Σ(s). What is left is Phenix's F ≈ √E(J) for strong acentric reflections."""
    p = phenix
    Sigma = wilson_sigma(p["I"], p["SIGI"], 0.25 / p["dHKL"] ** 2, p["EPSILON"], p["centric"])
    ours = french_wilson(p["I"], p["SIGI"], Sigma, p["centric"], p["EPSILON"])
    F, SIGF = (ours.F / p["F"] - 1).abs(), (ours.SIGF / p["SIGF"] - 1).abs()
    assert torch.corrcoef(torch.stack([ours.F, p["F"]]))[0, 1] > 0.9999998
    assert torch.corrcoef(torch.stack([ours.SIGF, p["SIGF"]]))[0, 1] > 0.9998
    for x, limits in ((F, (5e-5, 8e-3, 0.019)), (SIGF, (2e-4, 0.03, 0.056))):
        assert all(q < limit for q, limit in zip(_quantiles(x, 0.5, 0.99, 1.0), limits, strict=True))
    # with the expansion that Phenix uses above h = 3, what remains is the difference of the two Σ(s)
    h = p["I"] / p["SIGI"] - p["SIGI"] / (p["EPSILON"] * Sigma)
    strong = ~p["centric"] & (h > 3.2)
    root = ours.I.sqrt()
    q = _quantiles((root / p["F"] - 1).abs()[strong], 0.5, 0.99, 1.0)
    assert q[0] < 5e-5
    assert q[1] < 2e-3
