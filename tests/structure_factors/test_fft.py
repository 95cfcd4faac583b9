"""The FFT method keeps the error that was asked for, in F and in every gradient."""

from dataclasses import replace

import gemmi
import pytest
import torch
from sf_crystals import random_crystal, reflections

from bayesref._checks import InputError
from bayesref.io.structure import read_structure
from bayesref.structure_factors.calculate import prepare, self_check, structure_factors

MADE = {
    "P1": lambda: (random_crystal(), 2.0),
    "cubic": lambda: (random_crystal("P 2 3", (28, 28, 28, 90, 90, 90)), 2.0),
    "face-centred": lambda: (random_crystal("F 4 3 2", (40, 40, 40, 90, 90, 90), n=3), 2.5),
    "anisotropic": lambda: (random_crystal("C 1 2 1", (30, 22, 26, 90, 104, 90), anisotropic=True), 1.8),
    "rhombohedral": lambda: (random_crystal("R 3:R", (24, 24, 24, 75, 75, 75), n=20), 2.0),
    "sharp": lambda: (random_crystal(B=(0.5, 3.0), elements=("C", "Fe", "H")), 1.2),
    "blurred": lambda: (random_crystal(B=(60.0, 200.0), n=60), 3.5),
}
REAL = {
    "1dur 2.0": ("1dur/1dur.pdb", 2.0),
    "1dur 1.5": ("1dur/1dur.pdb", 1.5),
    "pyp": ("pyp/off.pdb", 1.6),
    "hewl": ("hewl/RTSAD_HEWL_refine_25.pdb", 1.7),
    "5e5z": ("5e5z/5e5z.pdb", 1.66),
}
ERRORS = [1e-2, 1e-3, 1e-4]


@pytest.mark.parametrize("rel_error", ERRORS)
@pytest.mark.parametrize("name", list(MADE))
def test_made_crystals(name, rel_error):
    crystal, d_min = MADE[name]()
    check = self_check(crystal, prepare(crystal, reflections(crystal, d_min), rel_error))
    assert check.ok, str(check)


@pytest.mark.parametrize("rel_error", ERRORS)
@pytest.mark.parametrize("name", list(REAL))
def test_real_models(name, rel_error, data_dir):
    file, d_min = REAL[name]
    crystal = read_structure(data_dir / file)
    check = self_check(crystal, prepare(crystal, reflections(crystal, d_min), rel_error))
    assert check.ok, str(check)


@pytest.mark.parametrize("rel_error", ERRORS)
def test_anomalous(rel_error):
    crystal = random_crystal("P 31 2 1", (24, 24, 30, 90, 90, 120), elements=("C", "Se", "S"))
    hkl = reflections(crystal, 2.0)
    check = self_check(crystal, prepare(crystal, torch.cat([hkl, -hkl]), rel_error, wavelength=0.97))
    assert check.ok, str(check)


@pytest.mark.parametrize("table", ["wk95", "electron"])
def test_other_tables(table):
    crystal = random_crystal()
    check = self_check(crystal, prepare(crystal, reflections(crystal, 2.0), 1e-3, table=table))
    assert check.ok, str(check)


def test_double_precision_reaches_one_in_a_million():
    crystal = random_crystal(anisotropic=True)
    plan = prepare(crystal, reflections(crystal, 2.0), 1e-6)
    assert plan.dtype == torch.float64
    assert self_check(crystal, plan).ok


def test_gradients_are_those_of_the_function_computed():
    """Differences of F itself, grid and cut-off included: a line search sees the slope that it was told."""
    crystal = random_crystal(n=10, anisotropic=True)
    plan = prepare(crystal, reflections(crystal, 3.0), 1e-2, dtype=torch.float64)
    start = [crystal.xyz, crystal.B, crystal.occupancy, crystal.U]
    direction = [torch.randn_like(x) * s for x, s in zip(start, (1.0, 10.0, 0.3, 0.01), strict=True)]
    direction[3] = direction[3] * crystal.anisotropic[:, None]

    def loss(step):
        xyz, B, occupancy, U = (x + step * d for x, d in zip(start, direction, strict=True))
        return (
            structure_factors(replace(crystal, xyz=xyz, B=B, occupancy=occupancy, U=U), plan=plan)
            .abs()
            .square()
            .sum()
        )

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    slope = float(torch.autograd.grad(loss(step), step)[0])
    difference = float(loss(1e-5) - loss(-1e-5)) / 2e-5
    assert slope == pytest.approx(difference, rel=1e-7)


def test_states_and_vmap_agree_with_a_loop():
    crystal = random_crystal(n=8)
    plan = prepare(crystal, reflections(crystal, 3.0))
    xyz = crystal.xyz + 0.3 * torch.randn(3, 8, 3, dtype=torch.float64)
    one = lambda x: structure_factors(replace(crystal, xyz=x), plan=plan)  # noqa: E731
    loop = torch.stack([one(x) for x in xyz])
    assert torch.equal(one(xyz), loop)
    assert torch.equal(torch.vmap(one)(xyz), loop)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # torch.compile's own
def test_whole_calculation_compiles():
    crystal = random_crystal(n=8, anisotropic=True)
    plan = prepare(crystal, reflections(crystal, 3.0), wavelength=1.0)

    def loss(xyz):
        return structure_factors(replace(crystal, xyz=xyz), plan=plan).abs().square().sum()

    xyz = crystal.xyz.clone().requires_grad_()
    torch.compile(loss, fullgraph=True, backend="aot_eager")(xyz).backward()
    assert torch.allclose(xyz.grad, torch.func.grad(loss)(crystal.xyz))


def test_gemmi_fft_agrees(data_dir):
    crystal = read_structure(data_dir / "1dur/1dur.pdb")
    hkl = reflections(crystal, 2.0)
    calculator = gemmi.DensityCalculatorX()
    calculator.d_min, calculator.rate, calculator.cutoff = 2.0, 2.5, 1e-7
    calculator.set_refmac_compatible_blur(crystal.structure[0])
    calculator.grid.setup_from(crystal.structure)
    calculator.put_model_density_on_grid(crystal.structure[0])
    grid = gemmi.transform_map_to_f_phi(calculator.grid)
    data = grid.prepare_asu_data(dmin=1.99, unblur=calculator.blur)
    found = {tuple(h): v for h, v in zip(data.miller_array.tolist(), data.value_array.tolist(), strict=True)}
    theirs = torch.tensor([found[tuple(h)] for h in hkl.tolist()], dtype=torch.complex128)
    ours = structure_factors(crystal, hkl, rel_error=1e-5)
    assert torch.linalg.norm(ours - theirs) < 3e-4 * torch.linalg.norm(theirs)


def test_another_program_agrees(data_dir):
    """phenix.fmodel (as distributed with SFcalculator): its own form factors and FFT leave 0.8 %."""
    crystal = read_structure(data_dir / "1dur/1dur.pdb")
    mtz = gemmi.read_mtz_file(str(data_dir / "1dur/1dur_vanilla.mtz"))
    amplitude, phase = (
        torch.tensor(mtz.column_with_label(c).array.copy()).double() for c in ("FMODEL", "PHIFMODEL")
    )
    theirs = torch.polar(amplitude, torch.deg2rad(phase))
    ours = structure_factors(crystal, torch.tensor(mtz.make_miller_array(), dtype=torch.int64))
    assert torch.linalg.norm(ours - theirs) < 0.01 * torch.linalg.norm(theirs)


def test_bad_input_is_named():
    crystal = random_crystal(n=4)
    hkl = reflections(crystal, 5.0)
    with pytest.raises(InputError, match="Give either"):
        structure_factors(crystal)
    with pytest.raises(InputError, match="expected integers"):
        structure_factors(crystal, hkl.double())
    with pytest.raises(InputError, match="ask for 1e-6"):
        prepare(crystal, hkl, 1e-9)
    with pytest.raises(InputError, match="at least one reflection"):
        prepare(crystal, hkl[:0])
    with pytest.raises(InputError, match="Unknown method"):
        structure_factors(crystal, hkl, method="exact")
    with pytest.raises(InputError, match="the crystal has 2"):
        structure_factors(crystal.select(torch.tensor([0, 1])), plan=prepare(crystal, hkl))
    with pytest.raises(InputError, match="B factor of A/UNK 0/X is below zero"):
        prepare(replace(crystal, B=-crystal.B), hkl)
