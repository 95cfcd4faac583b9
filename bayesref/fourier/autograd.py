"""Derivatives of the kernels: `sample` and `insert` are each other's transpose.

    dRe⟨g, sample(V)⟩ = Re⟨insert(g), dV⟩        exact, to rounding, for every stored element
    ∂M, ∂t, ∂x of Re⟨g, sample(V)⟩               one fused pass, `pose_gradient`

`V` and `g` may be differentiated any number of times, forward or backward, so Hessian-vector products in the
volume are exact. M, t and x are differentiated once and backward; what is beyond raises `NotOffered` and is
there with backend="reference".
"""

import torch

from bayesref.fourier.vmap import vmap_insert, vmap_pose_gradient, vmap_sample

ops = torch.ops.bayesref


class NotOffered(NotImplementedError):
    """A derivative that the compiled kernels do not have."""

    def __init__(self, what: str):
        super().__init__(f"{what} is not offered by the compiled kernels; use backend='reference' for it.")


class Sample(torch.autograd.Function):
    """Arguments and result of the operator `fourier_sample`."""

    @staticmethod
    def forward(V, x, M, t, columns, table, n2, n_columns, coherent):
        return ops.fourier_sample(V, x, M, t, columns, table, n2, n_columns, coherent)

    @staticmethod
    def setup_context(ctx, inputs, output):
        V, x, M, t, columns, table, ctx.n2, ctx.n_columns, ctx.coherent = inputs
        ctx.set_materialize_grads(False)  # or a fixed pose would come with a tangent of zeros
        ctx.save_for_backward(V, x, M, t, columns, table)
        ctx.save_for_forward(V, x, M, t, columns, table)

    @staticmethod
    def backward(ctx, g):
        V, x, M, t, columns, table = ctx.saved_tensors
        need_V, need_x, need_M, need_t = ctx.needs_input_grad[:4]
        grad_V = grad_x = grad_M = grad_t = None
        if need_V:
            shape = (V.shape[1], V.shape[2], ctx.n2)
            grad_V = apply_insert(g, x, M, t, columns, table, shape, ctx.coherent)
        if need_M or need_t or need_x:
            all_M, all_t, all_x = PoseGradient.apply(
                V, g, x, M, t, columns, table, ctx.n2, ctx.coherent, need_x
            )
            grad_M, grad_t, grad_x = _only(all_M, all_t, all_x, M, t, need_M, need_t, need_x)
        return grad_V, grad_x, grad_M, grad_t, None, None, None, None, None

    @staticmethod
    def vmap(info, in_dims, *args):
        return vmap_sample(apply_sample, info.batch_size, in_dims, args)


class Insert(torch.autograd.Function):
    """Arguments and result of the operator `fourier_insert`."""

    @staticmethod
    def forward(g, x, M, t, columns, table, shape, coherent):
        return ops.fourier_insert(g, x, M, t, columns, table, shape, coherent)

    @staticmethod
    def setup_context(ctx, inputs, output):
        g, x, M, t, columns, table, ctx.shape, ctx.coherent = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(g, x, M, t, columns, table)
        ctx.save_for_forward(g, x, M, t, columns, table)

    @staticmethod
    def backward(ctx, V):
        g, x, M, t, columns, table = ctx.saved_tensors
        need_g, need_x, need_M, need_t = ctx.needs_input_grad[:4]
        grad_g = grad_x = grad_M = grad_t = None
        n2 = ctx.shape[2]
        if need_g:
            grad_g = apply_sample(V, x, M, t, columns, table, n2, g.shape[2], ctx.coherent)
        if need_M or need_t or need_x:
            # Re⟨V, insert(g)⟩ = Re⟨g, sample(V)⟩: one function of the pose, so one gradient.
            all_M, all_t, all_x = PoseGradient.apply(V, g, x, M, t, columns, table, n2, ctx.coherent, need_x)
            grad_M, grad_t, grad_x = _only(all_M, all_t, all_x, M, t, need_M, need_t, need_x)
        return grad_g, grad_x, grad_M, grad_t, None, None, None, None

    @staticmethod
    def vmap(info, in_dims, *args):
        return vmap_insert(apply_insert, info.batch_size, in_dims, args)


class PoseGradient(torch.autograd.Function):
    """∂M (b, p, 3, 3), ∂t (b, p, 3), ∂x (s or 0, 3) of Re⟨g, sample(V)⟩. It has no derivative itself."""

    @staticmethod
    def forward(V, g, x, M, t, columns, table, n2, coherent, need_x):
        return ops.fourier_pose_gradient(V, g, x, M, t, columns, table, n2, coherent, need_x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *_):
        raise NotOffered("A second derivative through M, t or x")

    @staticmethod
    def vmap(info, in_dims, *args):
        return vmap_pose_gradient(PoseGradient.apply, info.batch_size, in_dims, args)


class SampleForward(Sample):
    """`Sample` with its forward derivative in V; apart, since torch.compile refuses functions with one."""

    @staticmethod
    def jvp(ctx, dV, dx, dM, dt, *_):
        _, x, M, t, columns, table = ctx.saved_tensors
        if any(d is not None for d in (dx, dM, dt)):
            raise NotOffered("The forward derivative of sample by M, t or x")
        return SampleForward.apply(dV, x, M, t, columns, table, ctx.n2, ctx.n_columns, ctx.coherent)


class InsertForward(Insert):
    """`Insert` with its forward derivative in g."""

    @staticmethod
    def jvp(ctx, dg, dx, dM, dt, *_):
        _, x, M, t, columns, table = ctx.saved_tensors
        if any(d is not None for d in (dx, dM, dt)):
            raise NotOffered("The forward derivative of insert by M, t or x")
        return InsertForward.apply(dg, x, M, t, columns, table, ctx.shape, ctx.coherent)


def apply_sample(*args) -> torch.Tensor:
    """`Sample`, with forward derivatives wherever torch allows them."""
    return (Sample if torch.compiler.is_compiling() else SampleForward).apply(*args)


def apply_insert(*args) -> torch.Tensor:
    """`Insert`, with forward derivatives wherever torch allows them."""
    return (Insert if torch.compiler.is_compiling() else InsertForward).apply(*args)


def _only(all_M, all_t, all_x, M, t, need_M, need_t, need_x):
    """The gradients that are needed, summed where one pose served every volume."""
    grad_M = all_M.sum(0, keepdim=True) if need_M and M.shape[0] == 1 else all_M if need_M else None
    grad_t = all_t.sum(0, keepdim=True) if need_t and t.shape[0] == 1 else all_t if need_t else None
    return grad_M, grad_t, all_x if need_x else None
