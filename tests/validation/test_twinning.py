"""Tests of twinning on intensities of Wilson's distribution, twinned by known fractions and measured with errors."""

import gemmi
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bayesref.cli.validate import app
from bayesref.crystal.asu import reciprocal_asu
from bayesref.crystal.twin_laws import twin_law
from bayesref.data.merged import MergedData
from bayesref.distributions.amplitude_posterior import AmplitudePosterior
from bayesref.distributions.wilson import Wilson
from bayesref.refinement.twin_data import twinned
from bayesref.validation.twin_fraction import mates
from bayesref.validation.twin_report import (
    as_figures,
    measured_intensities,
    twin_lines,
    twinning_of_merge,
    verdict,
)
from bayesref.validation.twinning import l_test, neighbours, twinning

CELL, GROUP, LAW = gemmi.UnitCell(56, 56, 80, 90, 90, 90), "P 43", "k,h,-l"


def crystal(alpha, noise=0.05, seed=0, dmin=3.0, translation=0.0):
    """asu, I, SIGI: errors of `noise` ⟨I⟩ and 4 %; B 25 Å². `translation`: of the intensity, odd h + k + l lack it."""
    spacegroup = gemmi.SpaceGroup(GROUP)
    asu, _ = reciprocal_asu(gemmi.make_miller_array(CELL, spacegroup, dmin), CELL, spacegroup)
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2, len(asu), generator=g, dtype=torch.float64)
    E2 = torch.where(asu.centric, x[0] ** 2, 0.5 * x.square().sum(0))
    odd = asu.hkl.sum(1) % 2 == 1
    E2 = torch.where(odd, (1 - translation) * E2, (1 + translation) * E2)
    J = 1000 * asu.epsilon * E2 * torch.exp(-2 * 25 * asu.stol2)
    data = MergedData(asu, "I", J, torch.ones(len(J)).double(), torch.zeros(len(J), dtype=torch.bool), {})
    pairs = twinned(data, twin_law(LAW, CELL, GROUP))
    I = pairs.total(pairs.value.sqrt(), alpha)[pairs.present] ** 2
    mean = 1000 * asu.epsilon * torch.exp(-2 * 25 * asu.stol2)
    SIGI = torch.hypot(noise * mean, 0.04 * I)
    return asu, I + SIGI * torch.randn(len(I), generator=g, dtype=torch.float64), SIGI


@pytest.mark.parametrize(("alpha", "noise"), [(0.06, 0.2), (0.25, 0.2), (0.42, 0.03)])
def test_fraction_is_recovered(alpha, noise):
    t = twinning(*crystal(alpha, noise))
    (law,) = t.laws
    assert abs(law.fraction - alpha) < 4 * law.sd + 0.002
    assert law.sd < 0.03
    assert law.log_odds > 10
    assert t.L.expected - t.L.mean > 3 * t.L.error
    assert abs(t.L.fraction - alpha) < 4 * t.L.sd + 0.01
    expected = 1 + alpha**2 + (1 - alpha) ** 2  # ⟨e²⟩ of (1 - α) e + α e'
    assert abs(t.acentric.value - expected) < 4 * t.acentric.error
    assert ("twinned by" if alpha > 0.1 else "small twin") in verdict(as_figures(t))


@pytest.mark.parametrize("noise", [0.03, 0.2])
def test_untwinned_data_are_called_so(noise):
    t = twinning(*crystal(0.0, noise, seed=5))
    assert abs(t.acentric.value - 2) < 4 * t.acentric.error
    assert abs(t.centric.value - 3) < 4 * t.centric.error
    assert abs(t.L.mean - t.L.expected) < 4 * t.L.error
    assert t.laws[0].log_odds < 3
    assert verdict(as_figures(t)) == "no twinning"
    lines = twin_lines({"twinning_0": as_figures(t), "spots": {}})
    assert len(lines) == 2
    assert "no twinning" in lines[0]


def test_without_errors_the_statistics_are_the_textbook_ones():
    for alpha, L, L2 in ((0.0, 0.5, 1 / 3), (0.45, 0.377, 0.2)):
        t = twinning(*crystal(alpha, 1e-3, seed=2))
        assert t.L.mean == pytest.approx(L, abs=5 * t.L.error)
        assert t.L.mean2 == pytest.approx(L2, abs=0.015)
        x = np.linspace(0, 1, 51)
        truth = x if alpha == 0 else 0.5 * x * (3 - x**2)
        np.testing.assert_allclose(t.L.cumulative, truth, atol=0.035)
    t = twinning(*crystal(0.2, 1e-3, seed=3))
    assert pytest.approx(0.3, abs=0.015) == t.laws[0].H
    assert pytest.approx(0.36 / 3, abs=0.015) == t.laws[0].H2


def test_pseudo_centring_does_not_hide_a_twin():
    """Neighbours two apart are of one parity: those one apart look untwinned whatever they are."""
    asu, I, SIGI = crystal(0.4, 0.02, translation=0.85)
    rows = ~asu.centric
    one, e, sigma = asu.subset(rows), (I / I.mean())[rows].numpy(), (SIGI / I.mean())[rows].numpy()
    falloff = torch.exp(-50 * one.stol2).numpy()
    safe, naive = (l_test(one, e / falloff, sigma / falloff, step).mean for step in ((2, 2, 2), (1, 1, 1)))
    assert safe < 0.42
    assert naive > safe + 0.05


def test_neighbours_are_two_apart():
    asu = crystal(0.0)[0]
    first, second = neighbours(asu, (2, 2, 2))
    assert (first < second).all()
    difference = (asu.hkl[first] - asu.hkl[second]).abs()
    assert float((difference <= 2).all(1).double().mean()) > 0.8  # others left the asymmetric unit
    assert bool((difference[:, 2] % 2 == 0).all())
    assert bool((difference[:, :2].sum(1) % 2 == 0).all())


def test_each_pair_of_mates_is_there_once():
    asu = crystal(0.0)[0]
    law = twin_law(LAW, CELL, GROUP)
    first, second = mates(asu, law)
    image, _ = law.mates(asu.hkl[first].numpy(), asu.spacegroup)
    np.testing.assert_array_equal(image, asu.hkl[second].numpy())
    assert len(set(first) | set(second)) == 2 * len(first)


def test_measurement_comes_back_from_its_posterior():
    centric = torch.zeros(9, dtype=torch.bool)
    raw, sigma = torch.linspace(-2, 12, 9).double(), torch.full((9,), 1.0).double()
    mean = torch.full((9,), 5.0).double()
    q = AmplitudePosterior(Wilson(mean, centric), 1 / sigma**2, raw / sigma**2)
    I = q.mean_intensity
    draws = torch.linspace(5e-5, 1 - 5e-5, 10_000).double()[:, None].expand(-1, 9)
    SIGI = (q.icdf(draws) ** 2).std(0)
    back, error = measured_intensities(I.numpy(), SIGI.numpy(), mean.numpy())
    np.testing.assert_allclose(back, raw.numpy(), atol=0.12)
    np.testing.assert_allclose(error, 1, rtol=0.05)


def test_merged_posteriors_keep_their_fraction():
    asu, I, SIGI = crystal(0.3, 0.15)
    Sigma = 1000 * torch.exp(-50 * asu.stol2)
    q = AmplitudePosterior(Wilson(asu.epsilon * Sigma, asu.centric), 1 / SIGI**2, I / SIGI**2)
    mean = q.mean_intensity
    u = torch.linspace(0.0025, 0.9975, 200).double()[:, None].expand(-1, len(I))
    t = twinning_of_merge(asu, mean, (q.icdf(u) ** 2).std(0))
    assert abs(t.laws[0].fraction - 0.3) < 4 * t.laws[0].sd + 0.005


def test_reflections_whose_spots_may_be_blanks_say_nothing_of_a_twin():
    asu, I, SIGI = crystal(0.0, 0.15)
    Sigma = 1000 * torch.exp(-50 * asu.stol2)
    q = AmplitudePosterior(Wilson(asu.epsilon * Sigma, asu.centric), 1 / SIGI**2, I / SIGI**2)
    u = torch.linspace(0.0025, 0.9975, 200).double()[:, None].expand(-1, len(I))
    mean, sd = q.mean_intensity, (q.icdf(u) ** 2).std(0)
    wide = torch.arange(len(I)) % 40 == 0  # E below sd: partly zero, partly Wilson's distribution
    mean, sd = torch.where(wide, 0.3 * Sigma, mean), torch.where(wide, 0.7 * Sigma, sd)
    t = twinning_of_merge(asu, mean, sd)
    assert abs(t.acentric.value - 2.0) < 4 * t.acentric.error
    assert t.acentric.error < 0.1


def test_too_few_reflections_say_nothing():
    asu, I, SIGI = crystal(0.2)
    assert twinning(asu.subset(slice(0, 150)), I[:150], SIGI[:150]) is None


def write(path, asu, I, SIGI):
    mtz = gemmi.Mtz(with_base=True)
    mtz.spacegroup = asu.spacegroup
    mtz.add_dataset("one")
    mtz.set_cell_for_all(asu.cell)
    mtz.add_column("IMEAN", "J")
    mtz.add_column("SIGIMEAN", "Q")
    mtz.set_data(np.column_stack([asu.hkl.numpy(), I.numpy(), SIGI.numpy()]).astype(np.float32))
    mtz.write_to_file(str(path))


def test_command_prints_writes_and_draws(tmp_path):
    write(tmp_path / "twin.mtz", *crystal(0.35))
    write(tmp_path / "one.mtz", *crystal(0.0))
    files = [str(tmp_path / x) for x in ("twin.mtz", "one.mtz")]
    extras = ["--csv", str(tmp_path / "t.csv"), "--png", str(tmp_path / "t.png")]
    result = CliRunner().invoke(app, ["twinning", *files, *extras])
    assert result.exit_code == 0, result.output
    assert "twinned by k,h,-l, fraction 0.3" in result.output
    assert "no twinning" in result.output
    assert "k,h,-l: fraction" in (tmp_path / "t.csv").read_text(encoding="utf-8")
    assert (tmp_path / "t.png").stat().st_size > 5000
    wrong = CliRunner().invoke(app, ["twinning", files[0], "--step", "2,x"])
    assert "three whole numbers" in str(wrong.exception)
