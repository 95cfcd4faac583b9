"""The gather at symmetry-equivalent indices and its transpose."""

import gemmi
import pytest
import torch

from bayesref._checks import InputError
from bayesref.crystal.operators import operators
from bayesref.structure_factors import transform
from bayesref.structure_factors.transform import Gather, cell_transform

SHAPE = (9, 10, 12)


def gather(spacegroup: str) -> Gather:
    hkl = torch.cartesian_prod(*[torch.arange(-2, 3)] * 3)  # both Friedel mates, l = 0 and 0 0 0 too
    return Gather.of(
        hkl, operators(gemmi.SpaceGroup(spacegroup)), torch.rand(len(hkl), dtype=torch.float64), SHAPE
    )


@pytest.mark.parametrize("spacegroup", ["P 1", "P 63", "F 4 3 2", "R 3 2:R"])
def test_it_is_the_sum_over_operators(spacegroup):
    at, ops = gather(spacegroup), operators(gemmi.SpaceGroup(spacegroup))
    density = torch.randn(SHAPE, dtype=torch.float64)
    x = torch.cartesian_prod(*[torch.arange(n, dtype=torch.float64) / n for n in SHAPE])
    truth = 0
    for h, shift in zip(ops.hkl(at.hkl), ops.phase(at.hkl), strict=True):
        wave = torch.exp(2j * torch.pi * (h.double() @ x.T))
        truth = truth + shift * (wave @ density.flatten().to(wave.dtype))
    assert torch.allclose(cell_transform(density, at), truth * at.weight, atol=1e-9)


@pytest.mark.parametrize("spacegroup", ["P 1", "P 63", "F 4 3 2"])
@pytest.mark.parametrize("path", ["compiled", "torch"])
def test_the_gradient_is_the_transpose(spacegroup, path):
    at = gather(spacegroup)
    forward, adjoint = (
        (transform._forward_cpu, transform._adjoint_cpu)
        if path == "compiled"
        else (transform._forward_torch, transform._adjoint_torch)
    )
    indices = (at.hkl, at.rot, at.tran, at.weight)
    density = torch.randn(2, *SHAPE, dtype=torch.float64)
    F = torch.randn(2, len(at.hkl), dtype=torch.complex128)
    left = (F.conj() * forward(density, *indices)).real.sum()
    assert torch.isclose(left, (density * adjoint(F, *indices, SHAPE)).sum(), rtol=1e-11)


def test_it_is_linear_with_all_derivatives():
    at = gather("P 2")
    density = torch.randn(1, *SHAPE, dtype=torch.float64)

    def power(x):
        return cell_transform(x, at).abs().square().sum()

    product = torch.autograd.functional.hvp(power, density, density)[1]
    assert torch.allclose(product, torch.func.grad(power)(density))  # quadratic: H x = gradient at x
    many = torch.vmap(lambda x: cell_transform(x, at))(torch.stack([density, 2 * density]))
    assert torch.allclose(many[1], 2 * cell_transform(density, at))


def test_a_coarse_grid_is_refused():
    with pytest.raises(InputError, match="does not reach reflection"):
        Gather.of(torch.tensor([[1, 0, 6]]), operators(gemmi.SpaceGroup("P 1")), torch.ones(1), (12, 12, 12))
