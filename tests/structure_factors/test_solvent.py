"""Bulk solvent: gemmi's mask, another program's solvent, the smooth mask and the scales."""

from dataclasses import replace

import gemmi
import numpy as np
import pytest
import torch
from sf_crystals import random_crystal, reflections

from bayesref._checks import InputError
from bayesref.crystal.cell import hkl_stol2
from bayesref.io.structure import read_structure
from bayesref.structure_factors.scale import anisotropic_scale, babinet, model_factors, symmetrize
from bayesref.structure_factors.solvent import SolventMask
from bayesref.structure_factors.solvent_smooth import solvent_smooth


def correlation(x, y):
    return float((x * y.conj()).real.sum() / torch.linalg.norm(x) / torch.linalg.norm(y))


@pytest.fixture(scope="module")
def ferredoxin(data_dir):
    crystal = read_structure(data_dir / "1dur/1dur.pdb")
    return crystal, reflections(crystal, 3.0)


def test_flat_mask_is_that_of_gemmi(ferredoxin):
    crystal, hkl = ferredoxin
    mask = SolventMask(hkl, spacing=0.5)
    grid = gemmi.FloatGrid()
    grid.setup_from(crystal.structure, 0.5)
    gemmi.SolventMasker(gemmi.AtomicRadiiSet.Cctbx).put_mask_on_float_grid(grid, crystal.structure[0])
    ours = mask.mask(crystal, crystal.xyz, crystal.occupancy, 0.02).numpy()
    assert np.array_equal(ours, grid.array)
    theirs = gemmi.transform_map_to_f_phi(grid)
    F = mask(crystal)
    truth = torch.tensor([theirs.get_value(*h) for h in hkl.tolist()], dtype=F.dtype)
    assert torch.linalg.norm(F - truth) < 1e-5 * torch.linalg.norm(truth)


def test_another_program_agrees(ferredoxin, data_dir):
    """phenix.fmodel with k_sol = 1, B_sol = 0: its mask is calculated with its own grid, to 3 Å."""
    crystal, hkl = ferredoxin
    columns = {}
    for name in ("1dur_ksol1", "1dur_vanilla"):
        mtz = gemmi.read_mtz_file(str(data_dir / f"1dur/{name}.mtz"))
        amplitude, phase = (mtz.column_with_label(c).array for c in ("FMODEL", "PHIFMODEL"))
        values = amplitude * np.exp(1j * np.radians(phase))
        columns[name] = dict(zip(map(tuple, mtz.make_miller_array().tolist()), values, strict=True))
    rows = [
        h for h in map(tuple, hkl[hkl_stol2(hkl, crystal.cell) < 0.01].tolist()) if h in columns["1dur_ksol1"]
    ]
    theirs = torch.tensor(
        [columns["1dur_ksol1"][h] - columns["1dur_vanilla"][h] for h in rows], dtype=torch.complex128
    )
    ours = SolventMask(torch.tensor(rows))(crystal)
    assert correlation(ours, theirs) > 0.99
    assert torch.linalg.norm(ours - theirs) < 0.1 * torch.linalg.norm(theirs)


def test_mask_is_kept_until_atoms_move(ferredoxin):
    crystal, hkl = ferredoxin
    mask = SolventMask(hkl, tolerance=0.1)
    first = mask(crystal)
    assert mask(replace(crystal, xyz=crystal.xyz + 0.05)) is first
    assert mask(replace(crystal, xyz=crystal.xyz + 0.1)) is not first
    states = torch.stack([crystal.xyz, crystal.xyz + 0.3])
    both = mask(replace(crystal, xyz=states))
    assert both.shape == (2, len(hkl))
    assert torch.allclose(both[0], first)


def test_smooth_mask_resembles_the_flat_one_and_has_a_gradient(ferredoxin):
    crystal, hkl = ferredoxin
    low = hkl[hkl_stol2(hkl, crystal.cell) < 0.01]
    assert correlation(solvent_smooth(crystal, low), SolventMask(low)(crystal)) > 0.95

    def loss(step):
        return solvent_smooth(replace(crystal, xyz=crystal.xyz + step * move), low).abs().square().sum()

    move = torch.randn_like(crystal.xyz)
    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    slope = float(torch.autograd.grad(loss(step), step)[0])
    difference = float(loss(torch.tensor(2e-3)) - loss(torch.tensor(-2e-3))) / 4e-3
    assert slope == pytest.approx(difference, rel=2e-2)


def test_scale_of_a_symmetric_tensor():
    crystal = random_crystal("P 41 21 2", (20, 20, 30, 90, 90, 90))
    B = symmetrize(
        torch.tensor([1.0, 3.0, 5.0, 0.5, 0.2, 0.1], dtype=torch.float64), crystal.cell, crystal.spacegroup
    )
    assert torch.allclose(B, torch.tensor([2.0, 2.0, 5.0, 0.0, 0.0, 0.0], dtype=torch.float64), atol=1e-12)
    hkl = torch.tensor([[1, 2, 3], [2, -1, 3], [4, 0, 0]])
    k = anisotropic_scale(B, hkl, crystal.cell)
    assert torch.isclose(k[0], k[1])
    assert float(k[2]) == pytest.approx(np.exp(-2.0 / 4 * (4 / 20) ** 2))
    isotropic = torch.tensor([7.0, 7.0, 7.0, 0, 0, 0], dtype=torch.float64)
    assert torch.allclose(
        anisotropic_scale(isotropic, hkl, crystal.cell), torch.exp(-7.0 * hkl_stol2(hkl, crystal.cell))
    )


def test_model_factors_and_babinet():
    crystal = random_crystal()
    hkl = reflections(crystal, 6.0)
    stol2 = hkl_stol2(hkl, crystal.cell)
    F, mask = torch.randn(2, len(hkl), dtype=torch.complex128)
    whole = model_factors(F, mask, hkl, crystal.cell, k_sol=0.4, B_sol=50.0, k=2.0)
    assert torch.allclose(whole, 2 * (F + 0.4 * torch.exp(-50 * stol2) * mask))
    assert torch.allclose(babinet(F, stol2, 0.8, 200.0), F * (1 - 0.8 * torch.exp(-200 * stol2)))


def test_bad_radii_are_named():
    with pytest.raises(InputError, match="Unknown radii"):
        SolventMask(torch.zeros(1, 3), radii="bondi")
