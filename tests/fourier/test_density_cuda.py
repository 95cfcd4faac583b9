"""The Triton kernels of the density: on a GPU where there is one, through Triton's interpreter elsewhere."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when the kernels are defined
pytest.importorskip("triton")

from bayesref.fourier import density_cpu, density_cuda

ORTH = torch.tensor([[6.0, -1.0, 0.5], [0, 7.0, -1.0], [0, 0, 5.0]], dtype=torch.float64)
SHAPE = (10, 12, 9)  # no multiple of a brick
A = torch.tensor([[2.3, 1.0, 1.6, 0.9, 0.2], [12.2, 3.1, 2.0, 1.2, -11.5]], dtype=torch.float64)
B = torch.tensor([[20.8, 10.2, 0.6, 51.7, 0.0], [0.01, 9.9, 28.9, 0.6, 0.0]], dtype=torch.float64)


def atoms(tensor, radius2, n=3, states=2):
    uniform = lambda *shape: torch.rand(*shape, dtype=torch.float64)  # noqa: E731
    adp = uniform(states, n) * 20 + 8
    if tensor:
        L = torch.randn(states, n, 3, 3, dtype=torch.float64) * 2
        M = L @ L.mT + 8 * torch.eye(3, dtype=torch.float64)
        adp = torch.stack([M[..., i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))], -1)
    return (
        uniform(states, n, 3) * 3 - 1,
        uniform(states, n),
        adp,
        uniform(states, n) + radius2,
        A,
        B,
        torch.arange(n) % 2,
        ORTH,
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")  # of the interpreter
@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize(
    ("radius2", "dtype", "tolerance"),
    [
        (2.0, torch.float64, 1e-12),
        (2.0, torch.float32, 3e-6),
        (12.0, torch.float64, 1e-12),
    ],  # wider than the cell
)
def test_kernels_agree_with_the_cpu(tensor, radius2, dtype, tolerance):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    inputs = atoms(tensor, radius2, states=2 if radius2 < 10 else 1)
    there = [x.to(device) for x in inputs[:-1]] + [ORTH]
    grid = density_cuda.splat(*there, SHAPE, dtype).cpu()
    truth = density_cpu.splat(*inputs, SHAPE, torch.float64)
    assert (grid - truth).abs().max() < tolerance * truth.abs().max()
    grad = torch.randn(len(grid), *SHAPE, dtype=torch.float64)
    found = density_cuda.gather(grad.to(device, dtype), *there)
    for x, y in zip(found, density_cpu.gather(grad, *inputs), strict=True):
        assert (x.cpu() - y).abs().max() < tolerance * y.abs().max()


@pytest.mark.gpu
def test_whole_calculation_on_the_gpu():
    from bayesref.fourier.density import density

    inputs = atoms(False, 4.0, n=500)
    leaves = [x.cuda().requires_grad_() for x in inputs[:4]]
    grids = [density(*leaves, *(x.cuda() for x in inputs[4:7]), ORTH, SHAPE) for _ in range(2)]
    assert torch.equal(*grids)
    truth = density(*inputs, SHAPE, torch.float64)
    assert (grids[0].cpu() - truth).abs().max() < 1e-5 * truth.abs().max()
    grids[0].square().sum().backward()
    assert all(x.grad.isfinite().all() for x in leaves)
