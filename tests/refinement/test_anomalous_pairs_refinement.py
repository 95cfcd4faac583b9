"""Friedel mates: their mean and difference, f'' that comes back, a map of the scatterers."""

from dataclasses import replace

import gemmi
import numpy as np
import pytest
import torch
from bayesref.models import refine_anomalous as page

from bayesref._checks import InputError
from bayesref.crystal.asu import reciprocal_asu
from bayesref.crystal.form_factors import anomalous
from bayesref.data.anomalous_pairs import AnomalousPairs, mean_of_mates, pairs_of
from bayesref.data.merged import MergedData
from bayesref.distributions.shared_error import SharedError
from bayesref.io.anomalous_pairs import read_pairs
from bayesref.io.merged import read_merged
from bayesref.refinement.anomalous import mean_and_difference, phase_confidence
from bayesref.refinement.atomic_model import AtomicModel
from bayesref.refinement.point_estimate import fit_globals, start
from bayesref.refinement.refine import mean_intensity, refine
from bayesref.refinement.simulate import smooth_mean
from bayesref.refinement.target import Target
from bayesref.restraints.restraints import build_restraints
from bayesref.results.refined_mtz import write_maps
from bayesref.structure_factors.calculate import structure_factors
from bayesref.structure_factors.solvent import SolventMask

WAVELENGTH, F2 = 1.9, 1.25  # f'' of the simulated crystal, in units of the table


@pytest.fixture(scope="module")
def crystal(molecules):
    """The molecules with sulfur in place of CB."""
    c = molecules[0]
    return replace(
        c, scatterer=tuple("S" if "/CB" in n else s for n, s in zip(c.name, c.scatterer, strict=True))
    )


def sulfur(crystal):
    return torch.tensor([s == "S" for s in crystal.scatterer])


def simulate(crystal, seed=0, dmin=1.9, error=0.03, noise=0.006):
    """Mates with one error of the model in common: (data, mates), intensities."""
    g = torch.Generator().manual_seed(seed)
    hkl = torch.tensor(gemmi.make_miller_array(crystal.cell, crystal.spacegroup, dmin), dtype=torch.int64)
    asu, _ = reciprocal_asu(hkl, crystal.cell, crystal.spacegroup)
    plus = structure_factors(crystal, asu.hkl, method="direct", wavelength=WAVELENGTH)
    minus = structure_factors(crystal, -asu.hkl, method="direct", wavelength=WAVELENGTH).conj()
    light = replace(crystal, occupancy=torch.where(sulfur(crystal), 0.0, crystal.occupancy))
    table = [structure_factors(light, s * asu.hkl, method="direct", wavelength=WAVELENGTH) for s in (1, -1)]
    weak = 0.5 * (table[0] - table[1].conj())
    A, B = 0.5 * (plus + minus), F2 * (0.5 * (plus - minus) - weak) + weak
    A = A + 0.35 * torch.exp(-46 * asu.stol2) * SolventMask(asu.hkl)(crystal)
    Sigma = smooth_mean(A.abs() ** 2 / asu.epsilon, asu.stol2)
    e = torch.randn(2, len(asu), generator=g, dtype=torch.float64)
    delta = torch.where(asu.centric, e[0] * A / A.abs(), torch.complex(e[0], e[1]) * 0.5**0.5)
    A = A + (asu.epsilon * error * Sigma).sqrt() * delta
    J = torch.stack([(A + s * B).abs() ** 2 for s in (1, -1)])
    sigma = ((noise * asu.epsilon * Sigma) ** 2 + (0.01 * J) ** 2).sqrt()
    y = J + sigma * torch.randn(J.shape, generator=g, dtype=torch.float64)
    value, total = mean_of_mates(y[0], sigma[0], y[1], sigma[1])
    free = torch.rand(len(asu), generator=g) < 0.1
    data = MergedData(asu, "I", value, total, free, {"value": "I", "sigma": "SIGI"})
    return data, (y[0], sigma[0], y[1], sigma[1])


@pytest.fixture(scope="module")
def problem(crystal, molecules):
    data, mates = simulate(crystal)
    pairs = pairs_of(data, mates, mean_intensity(data))
    atoms = AtomicModel.of(
        crystal, build_restraints(crystal, molecules[1]), [], data, mean_intensity(data), wavelength=WAVELENGTH,
        pairs=pairs,
    )  # fmt: skip
    return Target.of(page.model, data, atoms), mates


def test_mean_and_difference_hold_what_the_mates_hold():
    """p(y₊) p(y₋) = p(ȳ) p(Δ), so nothing counts twice."""
    x = torch.tensor([100.0, 2.0, 90.0, 4.0], dtype=torch.float64)
    mean, sd = mean_of_mates(*(v[None] for v in x))
    w = x[[1, 3]] ** -2
    truth = torch.tensor([97.0, 94.0], dtype=torch.float64)
    normal = torch.distributions.Normal
    both = normal(truth[0], x[1]).log_prob(x[0]) + normal(truth[1], x[3]).log_prob(x[2])
    apart = normal((w * truth).sum() / w.sum(), sd).log_prob(mean)
    apart = apart + normal(truth[0] - truth[1], x[1::2].norm()).log_prob(x[0] - x[2])
    assert float(both) == pytest.approx(float(apart))
    nan = torch.full((1,), torch.nan, dtype=torch.float64)
    alone = mean_of_mates(nan, nan, x[2:3], x[3:4])
    assert (float(alone[0]), float(alone[1])) == (90.0, 4.0)


def test_mates_are_those_of_direct_summation(crystal):
    hkl = torch.tensor(gemmi.make_miller_array(crystal.cell, crystal.spacegroup, 4.0), dtype=torch.int64)
    plus, minus = (structure_factors(crystal, s * hkl, method="direct", wavelength=0.9) for s in (1, -1))
    A, iB = 0.5 * (plus + minus.conj()), 0.5 * (plus - minus.conj())
    mean, difference = mean_and_difference(A, iB / 1j)
    torch.testing.assert_close(mean**2, 0.5 * (plus.abs() ** 2 + minus.abs() ** 2))
    torch.testing.assert_close(difference, plus.abs() - minus.abs(), atol=1e-6, rtol=1e-6)


def test_the_model_has_the_mates_of_direct_summation(problem, crystal):
    target, _ = problem
    hkl, atoms = target.data.asu.hkl, target.atoms
    plus, minus = (
        structure_factors(crystal, s * hkl, method="direct", wavelength=WAVELENGTH) for s in (1, -1)
    )
    sites = crystal.xyz, crystal.B, torch.zeros(0, dtype=torch.float64)
    f2 = {e: torch.tensor(x, dtype=torch.float64) for e, x in atoms.anomalous.f2.items()}
    assert set(f2) == {"S"}
    B = atoms.F_anomalous(f2, *sites)
    truth = 0.5 * (plus - minus.conj()) / 1j
    assert float((B - truth).norm() / truth.norm()) < 2e-3
    A = 0.5 * (plus + minus.conj())
    assert float((atoms.F_atoms(*sites) - A).norm() / A.norm()) < 1e-3
    strong = B - atoms.F_anomalous({"S": torch.tensor(0.0)}, *sites)
    rms = (strong.abs() ** 2).mean() / atoms.anomalous.mean2.mean()
    assert float(rms) == pytest.approx(1, abs=0.25)


def test_slopes(problem):
    target, _ = problem
    g = torch.Generator().manual_seed(0)
    z = start(target)
    z = z + 0.02 * torch.randn(len(z), generator=g, dtype=z.dtype)
    _, grad = target.value_and_grad(z)
    for name in ("xyz", "B", "k", "f2_S", "difference_error", "error"):
        site = target.latents.sites[name]
        v = torch.zeros_like(z)
        v[site.where] = torch.randn(site.where.stop - site.where.start, generator=g, dtype=z.dtype)
        h = 1e-4 / float(v.norm())
        up, down = (target.value_and_grad(z + s * h * v)[0] for s in (1, -1))
        size = float(grad[site.where].norm() * v.norm())
        assert float(grad @ v) == pytest.approx((up - down) / (2 * h), abs=2e-2 * size + 2e-2), name


def test_free_differences_teach_nothing(problem):
    target, _ = problem
    pairs = target.atoms.anomalous.pairs
    free = target.data.free[pairs.row]
    assert bool(free.any())
    other = replace(pairs, difference=torch.where(free, 5 * pairs.difference, pairs.difference))
    scatterers = replace(target.atoms.anomalous, pairs=other)
    changed = replace(target, atoms=replace(target.atoms, anomalous=scatterers))
    z = start(target)
    assert target.value_and_grad(z)[0] == changed.value_and_grad(z)[0]
    rows = target.data.free
    assert target.value_and_grad(z, rows=rows)[0] != changed.value_and_grad(z, rows=rows)[0]


def test_it_agrees_with_the_integral_over_the_shared_error(problem):
    """The best f'' by mean and difference against that of the exact integral over amplitude and phase."""
    target, mates = problem
    z = fit_globals(target, start(target))
    values = target.latents.unpack(z)
    data, atoms = target.data, target.atoms
    h = atoms.anomalous.pairs.row[:1200]
    with torch.no_grad():
        law = target.trace(values).nodes["F"]["fn"]
        K = values["k"] * atoms.anisotropy(values["anisotropy"])
        sites = values["xyz"], values["B"], values["w"]
        solvent = values["k_sol"] * torch.exp(-values["B_sol"] * atoms.stol2) * atoms.F_mask
        A = atoms.F_atoms(*sites) + solvent
        rest, one = (atoms.F_anomalous({"S": torch.tensor(x)}, *sites) for x in (0.0, 1.0))
    spread = (values["difference_error"] * K) ** 2 * atoms.anomalous.mean2
    F = torch.stack([m.clamp(min=0).sqrt() for m in (mates[0], mates[2])], 1)[h]
    sigma = torch.stack([mates[1], mates[3]], 1)[h] / (2 * F)
    strong = (5 * sigma < F).all(1)
    vague = torch.full((len(h), 1), 1e4, dtype=torch.float64)  # the common amplitude is not measured itself
    trials = float(values["f2_S"]) * torch.linspace(0.7, 1.3, 13).double()
    exact, ours = [], []
    pairs = atoms.anomalous.pairs
    for f2 in trials:
        B = K * (rest + f2 * (one - rest))
        turned = (1j * B * torch.exp(-1j * A.angle()))[h]
        d = torch.stack([turned, -turned], 1)
        # the error of a difference is that of two mates
        V = (0.5 * spread[h])[:, None].expand(-1, 2)
        shared = SharedError(
            law.loc[h], law.scatter[h], d, V, torch.cat([vague, sigma], 1), data.asu.centric[h]
        )
        exact.append(shared.log_prob(torch.cat([F.mean(1, keepdim=True), F], 1))[strong].sum())
        _, change = mean_and_difference(K * A, B)
        m = phase_confidence(pairs.F[:1200], pairs.sigma[:1200], law.loc[h], law.scatter[h])
        normal = torch.distributions.Normal(m * change[h], (pairs.sigma[:1200] ** 2 + spread[h]).sqrt())
        ours.append(normal.log_prob(pairs.difference[:1200])[strong].sum())
    best = []
    for curve in (exact, ours):
        a, b, _ = np.polyfit(trials.numpy(), torch.stack(curve).numpy(), 2)
        best.append(-b / (2 * a))
        assert a < 0
    assert best[1] == pytest.approx(best[0], rel=0.08)


@pytest.fixture(scope="module")
def fits(crystal, molecules):
    out = []
    for seed in (3,):
        data, mates = simulate(crystal, seed)
        pairs = pairs_of(data, mates, mean_intensity(data))
        out.append(
            refine(
                crystal, data, molecules[1], wavelength=WAVELENGTH, pairs=pairs, hydrogens="none", cycles=3
            )
        )
    return out


def test_f2_comes_back_within_its_interval(fits):
    truth = F2 * float(anomalous(["S"], WAVELENGTH)[1])
    for fit in fits:
        draws = fit.sites(300)["f2_S"]
        assert float(draws.std() / truth) < 0.1
        assert abs(float(draws.mean()) - truth) < 3 * float(draws.std()) + 0.03 * truth


def test_the_map_of_differences_shows_the_scatterers(fits, tmp_path):
    fit = fits[0]
    write_maps(fit.target, fit.mean, tmp_path / "maps.mtz")
    mtz = gemmi.read_mtz_file(str(tmp_path / "maps.mtz"))
    grid = mtz.transform_f_phi_to_map("ANOM", "PHANOM", sample_rate=3)
    residual = mtz.transform_f_phi_to_map("DELANOM", "PHDELANOM", sample_rate=3)
    rms = np.std(np.array(grid.array))
    places = fit.crystal.xyz[torch.tensor([s == "S" for s in fit.crystal.scatterer])]
    heights = [grid.interpolate_value(gemmi.Position(*x)) / rms for x in places.tolist()]
    left = [residual.interpolate_value(gemmi.Position(*x)) / rms for x in places.tolist()]
    assert np.mean(heights) > 3.5
    assert min(heights) > 1.5
    assert np.abs(np.mean(left)) < 0.2 * np.mean(heights)
    others = fit.crystal.xyz[torch.tensor([s == "C" for s in fit.crystal.scatterer])]
    rest = [grid.interpolate_value(gemmi.Position(*x)) / rms for x in others.tolist()]
    assert max(rest) < 0.5 * np.mean(heights)  # nor are light atoms peaks
    dano = mtz.column_with_label("DANO").array
    assert np.isfinite(dano).sum() == len(fit.target.atoms.anomalous.pairs)


def test_mates_from_a_file(crystal, tmp_path):
    """Half of the rows carry the index of the other mate, and some mates are missing."""
    data, (yp, sp, ym, sm) = simulate(crystal, dmin=3.0)
    hkl, n = data.asu.hkl.numpy().copy(), len(data)
    turned = np.arange(n) % 2 == 1
    columns = np.stack([data.value, data.sigma, yp, sp, ym, sm], 1)
    columns[turned] = columns[turned][:, [0, 1, 4, 5, 2, 3]]
    hkl[turned] *= -1
    alone = (np.arange(n) % 7 == 0) & ~turned
    columns[alone, 4:] = np.nan
    path = tmp_path / "mates.mtz"
    mtz = gemmi.Mtz(with_base=True)
    mtz.spacegroup, mtz.cell = crystal.spacegroup, crystal.cell
    mtz.add_dataset("x")
    mtz.set_cell_for_all(crystal.cell)
    labels = [
        ("IMEAN", "J"),
        ("SIGIMEAN", "Q"),
        ("I(+)", "K"),
        ("SIGI(+)", "M"),
        ("I(-)", "K"),
        ("SIGI(-)", "M"),
    ]
    for label, kind in labels:
        mtz.add_column(label, kind)
    mtz.set_data(np.column_stack([hkl, columns]).astype(np.float32))
    mtz.write_to_file(str(path))
    read = read_merged(path)
    again, pairs = read_pairs(path, read, mean_intensity(read))
    expected = (~alone & ~data.asu.centric.numpy()).nonzero()[0]
    np.testing.assert_array_equal(pairs.row, expected)
    ours = pairs_of(data, (yp, sp, ym, sm), mean_intensity(data))
    pick = torch.isin(ours.row, pairs.row)
    torch.testing.assert_close(pairs.difference, ours.difference[pick], rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(again.value, read.value, rtol=1e-4, atol=1e-2)
    with pytest.raises(InputError, match=r"no columns F\(\+\)"):
        read_pairs(path, replace(read, kind="F", value=read.value.abs()), mean_intensity(read))


def test_what_is_refused(crystal, molecules):
    data, mates = simulate(crystal, dmin=4.0)
    pairs = pairs_of(data, mates, mean_intensity(data))
    with pytest.raises(InputError, match="wavelength"):
        refine(crystal, data, molecules[1], pairs=pairs)
    with pytest.raises(InputError, match="No element"):
        refine(crystal, data, molecules[1], pairs=pairs, wavelength=0.5)
    with pytest.raises(InputError, match="both Friedel mates"):
        AnomalousPairs(*(torch.zeros(0, dtype=torch.float64) for _ in range(4)))
