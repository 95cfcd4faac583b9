"""The Triton kernels beside the CPU kernels: on a GPU where there is one, through Triton's interpreter elsewhere."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when the kernels are defined
pytest.importorskip("triton")

from bayesref._checks import InputError
from bayesref.fourier import cpu, cuda
from bayesref.fourier.kernels import get_kernel

REAL = torch.float64
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# of the interpreter, which runs kernels on numpy
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")


def problem(d, N, kernel, per_volume=False, dtype=REAL):
    """Arguments of the operators: 2 volumes, 2 poses, 40 points, some columns left out."""
    shape = (1, N, N) if d == 2 else (N, N - 1, N)
    V = torch.fft.rfftn(torch.randn(2, *shape, dtype=dtype), dim=(1, 2, 3))
    n_b = 2 if per_volume else 1
    x, M = (torch.rand(40, 3, dtype=dtype) - 0.5) * 2 * N, torch.randn(n_b, 2, 3, 3, dtype=dtype)
    if kernel == "nearest":
        x, M = x.round(), torch.randint(-1, 2, M.shape).to(dtype)
    if d == 2:
        x[:, 0], M[..., 0, :], M[..., 0] = 0, 0, 0
    t = torch.randn(n_b, 2, 3, dtype=dtype)
    columns = torch.arange(40) * 2 + 1
    return V, x, M, t, columns, torch.tensor(get_kernel(kernel).table, dtype=dtype), shape


def on_device(*args):
    return [a.to(DEVICE) if isinstance(a, torch.Tensor) else a for a in args]


def compare(ours, truth, tolerance=1e-12):
    assert ours.shape == truth.shape
    assert (ours.cpu() - truth).abs().max() <= tolerance * truth.abs().max() + 1e-300


CASES = [  # axes, side, kernel, poses per volume, coherent, shifts
    (3, 8, "nearest", False, False, True),
    (3, 9, "linear", False, True, True),
    (3, 8, "linear", True, False, False),
    (3, 9, "cubic", True, False, True),
    (2, 8, "cubic", False, True, True),
    (2, 9, "kb6", False, False, True),
    (2, 8, "kb8", True, True, True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sample_and_insert_equal_the_cpu(case):
    d, N, kernel, per_volume, coherent, shifted = case
    V, x, M, t, columns, table, shape = problem(d, N, kernel, per_volume)
    t = t if shifted else None
    args = (V, x, M, t, columns, table, N, 81, coherent)
    truth = cpu.sample(*args)
    compare(cuda.sample(*on_device(*args)), truth)
    g = torch.randn_like(truth)
    args = (g, x, M, t, columns, table, list(shape), coherent)
    compare(cuda.insert(*on_device(*args)), cpu.insert(*args))


@pytest.mark.parametrize("case", [c for c in CASES if c[2] in ("linear", "cubic")], ids=str)
def test_pose_gradients_equal_the_cpu(case):
    d, N, kernel, per_volume, coherent, shifted = case
    V, x, M, t, columns, table, _ = problem(d, N, kernel, per_volume)
    g = torch.randn(2, 1 if coherent else 2, 81, dtype=V.dtype)
    args = (V, g, x, M, t if shifted else None, columns, table, N, coherent, True)
    for ours, truth in zip(cuda.pose_gradient(*on_device(*args)), cpu.pose_gradient(*args), strict=True):
        compare(ours, truth, 1e-11)


def test_single_precision():
    V, x, M, t, columns, table, shape = problem(3, 8, "linear", dtype=torch.float32)
    args = (V, x, M, t, columns, table, 8, 81, False)
    truth = cpu.sample(*args)
    compare(cuda.sample(*on_device(*args)), truth, 1e-4)
    args = (truth, x, M, t, columns, table, list(shape), False)
    compare(cuda.insert(*on_device(*args)), cpu.insert(*args), 1e-4)


def test_inserting_twice_gives_the_same_bits():
    V, x, M, t, columns, table, shape = problem(3, 8, "linear", dtype=torch.float32)
    g = torch.randn(2, 2, 81, dtype=V.dtype)
    args = on_device(g, x, M, t, columns, table, list(shape), False)
    assert torch.equal(cuda.insert(*args), cuda.insert(*args))


def test_out_of_range_is_refused():
    V, x, M, t, columns, table, _ = problem(3, 8, "linear")
    for bad_x, bad_columns in ((x * 1e9, columns), (x * float("nan"), columns), (x, columns + 1000)):
        with pytest.raises(InputError):
            cuda.sample(*on_device(V, bad_x, M, t, bad_columns, table, 8, 81, False))
