"""Where the kernels run: operators known to torch, one implementation per device.

    fourier_sample         (V, x, M, t, columns, table, n2, n_columns, coherent) -> out
    fourier_insert         (g, x, M, t, columns, table, shape, coherent) -> V
    fourier_pose_gradient  (V, g, x, M, t, columns, table, n2, coherent, need_x) -> ∂M, ∂t, ∂x

Layouts: V (b, N₀, N₁, N₂/2+1) and g, out (b, p, column) complex; x (s, 3), M (b or 1, p, 3, 3),
t (b or 1, p, 3) of the matching real type; columns (s,) int64 or None where point s fills column s; table
(taps, degree+1) of the kernel; n2 = N₂. With `coherent`, g and out have a single p: the sum over all poses.
The operators have no derivative of their own: `autograd` gives it.
"""

import importlib

import torch

from bayesref._checks import InputError
from bayesref.fourier import cpu

BACKENDS = ("reference", "cpu", "cuda")

torch.library.define(
    "bayesref::fourier_sample",
    "(Tensor V, Tensor x, Tensor M, Tensor? t, Tensor? columns, Tensor table, int n2, int n_columns,"
    " bool coherent) -> Tensor",
)
torch.library.define(
    "bayesref::fourier_insert",
    "(Tensor g, Tensor x, Tensor M, Tensor? t, Tensor? columns, Tensor table, int[] shape, bool coherent)"
    " -> Tensor",
)
torch.library.define(
    "bayesref::fourier_pose_gradient",
    "(Tensor V, Tensor g, Tensor x, Tensor M, Tensor? t, Tensor? columns, Tensor table, int n2,"
    " bool coherent, bool need_x) -> (Tensor, Tensor, Tensor)",
)
torch.library.impl("bayesref::fourier_sample", "cpu", cpu.sample)
torch.library.impl("bayesref::fourier_insert", "cpu", cpu.insert)
torch.library.impl("bayesref::fourier_pose_gradient", "cpu", cpu.pose_gradient)


@torch.library.impl("bayesref::fourier_sample", "cuda")
def _sample_cuda(*args):
    return _cuda().sample(*args)


@torch.library.impl("bayesref::fourier_insert", "cuda")
def _insert_cuda(*args):
    return _cuda().insert(*args)


@torch.library.impl("bayesref::fourier_pose_gradient", "cuda")
def _pose_gradient_cuda(*args):
    return _cuda().pose_gradient(*args)


@torch.library.register_fake("bayesref::fourier_sample")
def _sample_shape(V, x, M, t, columns, table, n2, n_columns, coherent):
    return V.new_empty(V.shape[0], 1 if coherent else M.shape[1], n_columns)


@torch.library.register_fake("bayesref::fourier_insert")
def _insert_shape(g, x, M, t, columns, table, shape, coherent):
    return g.new_empty(g.shape[0], shape[0], shape[1], shape[2] // 2 + 1)


@torch.library.register_fake("bayesref::fourier_pose_gradient")
def _pose_gradient_shape(V, g, x, M, t, columns, table, n2, coherent, need_x):
    b, p = V.shape[0], M.shape[1]
    return M.new_empty(b, p, 3, 3), M.new_empty(b, p, 3), x.new_empty(x.shape[0] if need_x else 0, 3)


def _cuda():
    """The Triton kernels, imported when first used: torch for the CPU comes without Triton."""
    return importlib.import_module("bayesref.fourier.cuda")


def choose(backend: str | None, V: torch.Tensor) -> str:
    """The backend that runs this tensor; InputError where the one asked for cannot."""
    if backend == "reference":
        return backend
    if V.device.type not in ("cpu", "cuda"):
        raise InputError(
            f"No Fourier kernel runs on device {V.device.type!r}; move the tensors to cpu or cuda, "
            "or ask for backend='reference'."
        )
    if backend not in (None, *BACKENDS) or (backend is not None and backend != V.device.type):
        raise InputError(
            f"backend {backend!r} does not run tensors on {V.device.type!r}; leave it out or choose among "
            f"{', '.join(BACKENDS)}."
        )
    return V.device.type
