"""Direct summation against gemmi, over all space groups, and its second derivatives."""

from dataclasses import replace

import gemmi
import pytest
import torch
from sf_crystals import cell_for, random_crystal, reflections

from bayesref.crystal.form_factors import form_factors
from bayesref.io.structure import read_structure
from bayesref.structure_factors import direct as direct_module
from bayesref.structure_factors.direct import direct


def gemmi_small(crystal, hkl):
    """The same sum by gemmi's calculator for small structures: anisotropic too, any setting."""
    small = gemmi.SmallStructure()
    small.cell, small.spacegroup = crystal.cell, crystal.spacegroup
    small.setup_cell_images()
    frac = crystal.xyz @ torch.tensor(crystal.cell.frac.mat.tolist(), dtype=torch.float64).T
    for i, (x, B, o, s) in enumerate(
        zip(frac.tolist(), crystal.B.tolist(), crystal.occupancy.tolist(), crystal.scatterer, strict=True)
    ):
        site = gemmi.SmallStructure.Site()
        site.element, site.occ, site.u_iso, site.fract = (
            gemmi.Element(s),
            o,
            B / (8 * torch.pi**2),
            gemmi.Fractional(*x),
        )
        site.label = str(i)
        small.add_site(site)
    calculator = gemmi.StructureFactorCalculatorX(small.cell)
    return torch.tensor(
        [calculator.calculate_sf_from_small_structure(small, h) for h in hkl.tolist()], dtype=torch.complex128
    )


@pytest.mark.parametrize("part", range(4))
def test_every_space_group_agrees_with_gemmi(part):
    groups = [g for i, g in enumerate(gemmi.spacegroup_table()) if i % 4 == part]
    for spacegroup in groups:
        crystal = random_crystal(spacegroup.xhm(), cell_for(spacegroup), n=3, seed=spacegroup.number)
        hkl = torch.tensor([[1, 2, 3], [0, 2, 0], [-3, 1, 2], [2, -1, -4]])
        F = direct(crystal, hkl, form_factors(crystal.scatterer))
        assert torch.allclose(F, gemmi_small(crystal, hkl), rtol=1e-5, atol=2e-4), spacegroup.xhm()


def test_real_models_agree_with_gemmi(data_dir):
    for file in ("1dur/1dur.pdb", "hewl/RTSAD_HEWL_refine_25.pdb"):  # isotropic; anisotropic with hydrogens
        crystal = read_structure(data_dir / file)
        hkl = reflections(crystal, 2.0)[::200]
        calculator = gemmi.StructureFactorCalculatorX(crystal.cell)
        truth = torch.tensor(
            [calculator.calculate_sf_from_model(crystal.structure[0], h) for h in hkl.tolist()],
            dtype=torch.complex128,
        )
        F = direct(crystal, hkl, form_factors(crystal.scatterer))
        assert torch.linalg.norm(F - truth) < 1e-6 * torch.linalg.norm(truth)


def test_chunks_change_nothing(monkeypatch):
    crystal = random_crystal("P 21 21 21", (20, 24, 28, 90, 90, 90), anisotropic=True)
    hkl, factors = reflections(crystal, 4.0), form_factors(crystal.scatterer, wavelength=1.2)

    def value_and_gradient():
        xyz = crystal.xyz.clone().requires_grad_()
        F = direct(replace(crystal, xyz=xyz), hkl, factors)
        return F.detach(), torch.autograd.grad((F.abs() ** 2).sum(), xyz)[0]

    whole = value_and_gradient()
    monkeypatch.setattr(direct_module, "CHUNK", 7 * len(crystal))
    for x, y in zip(whole, value_and_gradient(), strict=True):
        assert torch.allclose(x, y, rtol=1e-12, atol=1e-9)


def test_friedel_mates_differ_by_the_anomalous_part_only():
    crystal = random_crystal("P 2", (20, 24, 28, 90, 100, 90))
    hkl = reflections(crystal, 5.0)
    plain, anomalous = (form_factors(crystal.scatterer, wavelength=w) for w in (None, 1.5))
    assert torch.allclose(direct(crystal, -hkl, plain), direct(crystal, hkl, plain).conj())
    gap = direct(crystal, -hkl, anomalous).abs() - direct(crystal, hkl, anomalous).abs()
    assert gap.abs().max() > 0.01


def test_hessian_vector_product_matches_differences_of_gradients():
    crystal = random_crystal(n=6)
    hkl, factors = reflections(crystal, 4.0), form_factors(crystal.scatterer)

    def intensity(xyz):
        return (direct(replace(crystal, xyz=xyz), hkl, factors).abs() ** 2).sum()

    v = torch.randn_like(crystal.xyz)
    _, product = torch.autograd.functional.hvp(intensity, crystal.xyz, v)
    gradient = torch.func.grad(intensity)
    difference = (gradient(crystal.xyz + 1e-5 * v) - gradient(crystal.xyz - 1e-5 * v)) / 2e-5
    assert torch.allclose(product, difference, rtol=1e-6, atol=1e-4 * float(product.abs().max()))


def test_states_are_a_leading_dimension():
    crystal = random_crystal(n=5)
    hkl, factors = reflections(crystal, 6.0), form_factors(crystal.scatterer)
    xyz = crystal.xyz + torch.randn(3, 2, 5, 3, dtype=torch.float64)
    F = direct(replace(crystal, xyz=xyz), hkl, factors)
    assert F.shape == (3, 2, len(hkl))
    assert torch.allclose(F[2, 1], direct(replace(crystal, xyz=xyz[2, 1]), hkl, factors))
