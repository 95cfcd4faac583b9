"""Differences of amplitudes and their maps, against a truth drawn from the model they assume."""

from types import SimpleNamespace

import gemmi
import numpy as np
import pytest
import torch

from bayesref._checks import InputError
from bayesref.crystal.asu import reciprocal_asu
from bayesref.refinement.difference import amplitude_difference, extrapolated, joint_difference
from bayesref.refinement.toy_crystal import toy_crystal
from bayesref.refinement.voxels import difference_voxels, figure_of_merit, peaks, synthesis
from bayesref.structure_factors.calculate import structure_factors

D = {"dtype": torch.float64}


@pytest.fixture(scope="module")
def case():
    """A dark crystal, changes of known size, and both measured; light data on a scale of their own."""
    crystal = toy_crystal(100, cell=(20.0, 23.0, 26.0))
    hkl = torch.tensor(gemmi.make_miller_array(crystal.cell, crystal.spacegroup, 1.7), dtype=torch.int64)
    asu, _ = reciprocal_asu(hkl, crystal.cell, crystal.spacegroup)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model = structure_factors(crystal, asu.hkl, rel_error=1e-4).to(torch.complex128)
    Sigma = float((model.abs() ** 2 / asu.epsilon).mean())
    along = model / model.abs()

    def normal(variance):
        e = torch.randn(2, len(asu), generator=g, **D)
        complex_e = torch.complex(e[0], e[1]) * 0.5**0.5
        return (variance * asu.epsilon).sqrt() * torch.where(asu.centric, e[0] * along, complex_e)

    V = torch.full((len(asu),), 0.05 * Sigma, **D)
    dark = model + normal(V)
    tau2 = 0.004 * Sigma * torch.exp(-4 * asu.stol2)
    change = normal(tau2)
    light = dark + change
    K = 1.3 * torch.exp(-1.5 * asu.stol2)
    sigma = torch.full((len(asu),), 0.03 * Sigma**0.5, **D)
    F = torch.stack([dark.abs(), K * light.abs()], 1)
    SIGF = torch.stack([sigma, K * sigma], 1)
    F = F + SIGF * torch.randn(F.shape, generator=g, **D)
    SIGF[::50, 1] = torch.inf
    F[7, 1] *= 3  # an outlier
    return SimpleNamespace(
        crystal=crystal, asu=asu, model=model, V=V * asu.epsilon, dark=dark, light=light, change=change, tau2=tau2,
        F=F, SIGF=SIGF, K=K, none=torch.zeros(len(asu), 0, **D),
    )  # fmt: skip


@pytest.fixture(scope="module")
def difference(case):
    return amplitude_difference(case.asu, case.F, case.SIGF, case.none)


def test_scale_and_size_of_differences_are_found(case, difference):
    torch.testing.assert_close(difference.scale, case.K, rtol=0.01, atol=0)
    share = torch.where(case.asu.centric, 1.0, 0.5) * case.asu.epsilon
    ratio = (difference.v / share / case.tau2).log()
    assert float(ratio.abs().mean()) < 0.2
    assert bool(difference.far[7])
    assert int(difference.far.sum()) < 4


def test_intervals_hold_the_true_difference(case, difference):
    truth = case.light.abs() - case.dark.abs()
    z = ((truth - difference.mean) / difference.sd)[case.dark.abs() > 3 * case.tau2.sqrt()]
    inside = float((z.abs() < 1.645).double().mean())
    assert 0.87 < inside < 0.93
    plain = torch.where(torch.isfinite(difference.sigma), difference.d, 0.0)
    good = ~difference.far
    assert float((difference.mean - truth)[good].square().mean()) < 0.75 * float(
        (plain - truth)[good].square().mean()
    )


def test_nothing_measured_leaves_the_prior(case, difference):
    rows = torch.isinf(difference.sigma)
    assert int(rows.sum()) == len(range(0, len(case.asu), 50))
    assert float(difference.mean[rows].abs().max()) == 0
    torch.testing.assert_close(difference.sd[rows], difference.v[rows].sqrt())


def test_voxels_are_as_uncertain_as_they_say(case, difference):
    voxels = difference_voxels(
        difference, case.F[:, 0], case.model.abs(), case.V, case.model.angle(), n_draws=60, seed=3
    )
    truth = np.array(synthesis(case.asu, case.change).array)
    z = (truth - voxels.mean) / voxels.sd
    assert 0.85 < z.std() < 1.15
    assert np.corrcoef(truth.ravel(), voxels.mean.ravel())[0, 1] > 0.45
    p = voxels.probability(0.0)
    assert p.min() >= -1
    assert p.max() <= 1
    np.testing.assert_allclose(np.sign(p), np.sign(voxels.mean))


def test_peaks_are_told_once_with_their_atom(case, difference):
    """A density with one blob 0.5 Å from an atom."""
    blob = torch.zeros(len(case.asu), dtype=torch.complex128)
    place = case.crystal.xyz[40] + torch.tensor([0.3, 0.4, 0.0], **D)
    frac = np.array(case.crystal.cell.fractionalize(gemmi.Position(*place.tolist())).tolist())
    for op in case.crystal.spacegroup.operations():
        x = np.array(op.rot) / 24 @ frac + np.array(op.tran) / 24
        turn = 2 * torch.pi * case.asu.hkl.double() @ torch.from_numpy(x)
        blob += torch.polar(torch.exp(-10 * case.asu.stol2), turn)
    grid = synthesis(case.asu, blob)
    from bayesref.refinement.voxels import Voxels

    mean = np.array(grid.array)
    found = peaks(Voxels(grid, mean, np.ones_like(mean)), case.crystal, 5, lowest=8.0)
    assert len(found) == 1
    assert found[0].distance < 1.0
    assert found[0].height == pytest.approx(mean.max(), rel=1e-6)


def test_figure_of_merit_is_the_mean_cosine(case):
    F, G, V = torch.tensor([2.0], **D), torch.tensor([3.0], **D), torch.tensor([5.0], **D)
    phi = torch.linspace(-torch.pi, torch.pi, 20001, **D)
    w = torch.exp(2 * F * G / V * phi.cos())
    m = figure_of_merit(F, G, V, torch.tensor([False]))
    assert float(m) == pytest.approx(float((w * phi.cos()).sum() / w.sum()), abs=1e-3)


def test_extrapolated_amplitudes_undo_the_share(case, difference):
    """Noise-free, F_dark + (F_light - F_dark)/α is the amplitude of what the light makes; its σ grows as 1/α."""
    alpha = torch.full((10,), 0.5, **D)
    FEXT, SIGFEXT = extrapolated(difference, case.F, case.SIGF, alpha)
    expected = case.F[:, 0] + 2 * difference.d
    good = torch.isfinite(SIGFEXT) & (expected > 10 * case.SIGF[:, 0])
    torch.testing.assert_close(FEXT[good], expected[good], rtol=0.05, atol=0.01 * float(expected.mean()))
    sigma = (case.SIGF[:, 0] ** 2 + 4 * (case.SIGF[:, 1] / difference.scale) ** 2).sqrt()
    assert float((SIGFEXT / sigma)[good].median()) == pytest.approx(1, abs=0.02)
    wide = extrapolated(difference, case.F, case.SIGF, torch.tensor([0.4, 0.5, 0.6], **D))[1]
    assert bool((wide[good] >= SIGFEXT[good] * 0.99).all())


def test_too_few_in_common(case):
    SIGF = case.SIGF.clone()
    SIGF[20:, 1] = torch.inf
    with pytest.raises(InputError, match="reflections in common"):
        amplitude_difference(case.asu, case.F, SIGF, case.none)


def test_a_posterior_from_elsewhere_is_kept_as_it_is(case, difference):
    """Mean and sd of a joint prior come through; its size v is that of the differences."""
    DF, SIGDF = difference.mean.clone(), difference.sd.clone()
    SIGDF[::50] = torch.inf
    joint = joint_difference(case.asu, DF, SIGDF)
    there = torch.isfinite(joint.sigma)
    assert float(there.double().mean()) > 0.9
    torch.testing.assert_close(joint.mean[there], DF[there], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(joint.sd[there], SIGDF[there], rtol=1e-4, atol=1e-9)
    assert float((joint.v / difference.v).log().abs().median()) < 0.2
