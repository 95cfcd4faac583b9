"""The density of atoms: the compiled kernels against plain torch, and torch against what a density must be."""

import math

import pytest
import torch

from bayesref._checks import InputError
from bayesref.fourier.density import density

ORTH = torch.tensor([[11.0, -2.0, 1.0], [0, 12.0, -1.5], [0, 0, 13.0]], dtype=torch.float64)
SHAPE = (20, 24, 27)
A = torch.tensor([[2.3, 1.0, 1.6, 0.9, 0.2], [12.2, 3.1, 2.0, 1.2, -11.5]], dtype=torch.float64)
B = torch.tensor([[20.8, 10.2, 0.6, 51.7, 0.0], [0.01, 9.9, 28.9, 0.6, 0.0]], dtype=torch.float64)


def atoms(tensor: bool, states: int = 2, n: int = 9, radius2: float = 5.0):
    """Coordinates, occupancy, B (isotropic or tensor), R² and scatterers."""
    uniform = lambda *shape: torch.rand(*shape, dtype=torch.float64)  # noqa: E731
    adp = uniform(states, n) * 20 + 8
    if tensor:
        L = torch.randn(states, n, 3, 3, dtype=torch.float64) * 2
        M = L @ L.mT + 8 * torch.eye(3, dtype=torch.float64)
        adp = torch.stack([M[..., i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))], -1)
    # outside the cell too: atoms repeat with it
    return [
        uniform(states, n, 3) * 3 - 1,
        uniform(states, n),
        adp,
        uniform(states, n) + radius2,
    ], torch.arange(n) % 2


def value_and_gradients(parts, index, backend, dtype, weight):
    leaves = [p.clone().requires_grad_() for p in parts]
    grid = density(*leaves, A, B, index, ORTH, SHAPE, dtype, backend)
    return grid.detach(), torch.autograd.grad((grid.double() * weight).sum(), leaves)


@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-6)])
@pytest.mark.parametrize("radius2", [5.0, 60.0])  # the larger sphere is wider than the cell
def test_compiled_kernels_agree_with_torch(tensor, dtype, tolerance, radius2):
    parts, index = atoms(tensor, radius2=radius2)
    weight = torch.randn(2, *SHAPE, dtype=torch.float64)
    grid, gradients = value_and_gradients(parts, index, "cpu", dtype, weight)
    truth, true_gradients = value_and_gradients(parts, index, "reference", torch.float64, weight)
    assert (grid - truth).abs().max() < tolerance * truth.abs().max()
    for g, t in zip(gradients, true_gradients, strict=True):
        assert (g - t).abs().max() < tolerance * t.abs().max()


@pytest.mark.parametrize("tensor", [False, True])
def test_a_wide_sphere_holds_all_electrons(tensor):
    parts, index = atoms(tensor, states=1, n=2, radius2=150.0)
    parts[2][..., :3] += 30.0  # wide enough for a sum over this grid to be an integral
    grid = density(*parts, A, B, index, ORTH, SHAPE, torch.float64)
    electrons = (parts[1][0] * A[index].sum(-1)).sum()
    volume = torch.linalg.det(ORTH) / math.prod(SHAPE)
    assert torch.isclose(grid.sum() * volume, electrons, rtol=1e-6)


@pytest.mark.parametrize("tensor", [False, True])
def test_no_jump_at_the_cut_off(tensor):
    """The density of one grid point, and its slope, as an atom passes: both continuous, and the slope is the slope."""
    parts, index = atoms(tensor, states=1, n=1, radius2=4.0)
    path = torch.linspace(0, 0.5, 2001, dtype=torch.float64)
    frac = torch.stack([path, 0.3 + 0 * path, 0.4 + 0 * path], -1)[:, None].requires_grad_()
    other = [p.expand(len(path), *p.shape[1:]) for p in parts[1:]]
    value = density(frac, *other, A, B, index[:1], ORTH, (6, 6, 6), torch.float64)[:, 2, 2, 2]
    slope = torch.autograd.grad(value.sum(), frac)[0][:, 0, 0]
    difference = (value[2:] - value[:-2]) / (path[2:] - path[:-2])
    assert value.max() > 100 * value.min() == 0
    assert (difference - slope[1:-1]).abs().max() < 5e-3 * slope.abs().max()  # slope itself has kinks
    assert slope.diff().abs().max() < 0.02 * slope.abs().max()


def test_same_bits_for_any_number_of_threads():
    parts, index = atoms(False, n=200)
    weight, results = torch.randn(2, *SHAPE), []
    before = torch.get_num_threads()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            results.append(value_and_gradients(parts, index, "cpu", torch.float32, weight))
    finally:
        torch.set_num_threads(before)
    for grid, gradients in results[1:]:
        assert torch.equal(grid, results[0][0])
        assert all(torch.equal(g, t) for g, t in zip(gradients, results[0][1], strict=True))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # torch.compile's own
def test_vmap_and_compile():
    parts, index = atoms(False)
    weight = torch.randn(SHAPE, dtype=torch.float64)

    def loss(frac, adp):
        grid = density(frac, parts[1][0], adp, parts[3][0], A, B, index, ORTH, SHAPE, torch.float64)
        return (grid * weight).sum()

    gradient = torch.func.grad(loss, argnums=(0, 1))
    many = torch.vmap(gradient)(parts[0], parts[2])
    for state in range(2):
        one = gradient(parts[0][state], parts[2][state])
        assert all(torch.equal(x, y[state]) for x, y in zip(one, many, strict=True))
    frac = parts[0][0].clone().requires_grad_()
    torch.compile(loss, fullgraph=True, backend="aot_eager")(frac, parts[2][0]).backward()
    assert torch.equal(frac.grad, many[0][0])


def test_second_derivatives_are_refused_or_right():
    parts, index = atoms(False, states=1, n=2)

    def loss(frac, backend):
        return density(frac, *parts[1:], A, B, index, ORTH, SHAPE, torch.float64, backend).square().sum()

    with pytest.raises(NotImplementedError, match="Second derivatives"):
        torch.autograd.functional.hvp(lambda x: loss(x, "cpu"), parts[0], parts[0])
    assert (
        torch.autograd.functional.hvp(lambda x: loss(x, "reference"), parts[0], parts[0])[1].abs().max() > 0
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[0].__setitem__((0, 1, 2), math.nan), "coordinates holds 1"),
        (lambda p: p[2].fill_(-30.0), "width b"),
        (lambda p: p[3].fill_(0.0), "radii must be above zero"),
    ],
)
def test_bad_numbers_are_named(change, message):
    parts, index = atoms(False)
    change(parts)
    with pytest.raises(InputError, match=message):
        density(*parts, A, B, index, ORTH, SHAPE)


def test_bad_arguments_are_named():
    parts, index = atoms(False)
    with pytest.raises(InputError, match="9 atoms, but frac"):
        density(parts[0][:, :5], *parts[1:], A, B, index, ORTH, SHAPE)
    with pytest.raises(InputError, match="three sizes"):
        density(*parts, A, B, index, ORTH, (4, 4))
    with pytest.raises(InputError, match="index must lie in"):
        density(*parts, A, B, index + 1, ORTH, SHAPE)
    with pytest.raises(InputError, match="Unknown backend"):
        density(*parts, A, B, index, ORTH, SHAPE, backend="gpu")


def test_no_atoms_give_an_empty_cell():
    none = [torch.zeros(0, 3), torch.zeros(0), torch.zeros(0), torch.zeros(0)]
    assert density(*none, A, B, torch.zeros(0, dtype=torch.int64), ORTH, SHAPE).abs().max() == 0
