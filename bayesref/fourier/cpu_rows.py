"""Vector code for one sample: T₀ × T rows of T complex numbers, whole rows in registers.

    gather     c = Σ_{k₀ k₁ k₂} w₀ w₁ w₂ V[row(k₀, k₁) + k₂]
    slope      c and ∂c/∂u₀, ∂c/∂u₁, ∂c/∂u₂ (one w replaced by its derivative)
    scatter    V[row(k₀, k₁) + k₂] += w₀ w₁ w₂ g

numba lowers these intrinsics to LLVM vector instructions: a loop over taps written in Python reads each
complex number alone and runs four times slower with cubic taps. The tap counts are lengths of tuple *types*,
so one compiled function exists per kernel size and every tap loop is unrolled.

Arguments are flat arrays: `V` real view of the complex grid; `plane` (taps0,) and `line` (taps,) offsets into
V in real numbers; `w0` `w1` `w2` (taps, BLOCK) weights of a block of samples, sample j of the block. A plane
offset below zero says that another task owns that plane.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

BLOCK = 128  # samples whose weights are formed together; their arrays fit the first-level cache

# Untyped: callers leave out the first parameter, which numba fills in.
intrinsic: Any = _intrinsic

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_FUSE = ("contract",)  # multiply-add may fuse; sums are never reordered


class _Rows:
    """The LLVM builder with what every intrinsic here needs."""

    def __init__(self, context, builder, sig, args, real, taps):
        self.b, self.T = builder, taps
        self.scalar = context.get_value_type(real)
        self.vector = ir.VectorType(self.scalar, 2 * taps)
        self.align = 4 if real == types.float32 else 8
        self.zero = ir.Constant(self.vector, [0.0] * (2 * taps))
        self.ptr = {}
        for ty, arg, key in zip(sig.args, args, range(len(args)), strict=True):
            if isinstance(ty, types.Array):
                self.ptr[key] = cgutils.create_struct_proxy(ty)(context, builder, value=arg).data

    def at(self, key, index):
        """Element `index` of array argument `key`; an int or an LLVM value."""
        index = ir.Constant(_I64, index) if isinstance(index, int) else index
        return self.b.load(self.b.gep(self.ptr[key], [index]))

    def weight(self, key, k, j):
        """Weight of tap k for sample j."""
        return self.at(key, self.b.add(j, ir.Constant(_I64, BLOCK * k)))

    def splat(self, x):
        """x in every lane."""
        none = ir.Constant(self.vector, ir.Undefined)
        one = self.b.insert_element(none, x, _I32(0))
        everywhere = ir.Constant(ir.VectorType(_I32, 2 * self.T), [0] * 2 * self.T)
        return self.b.shuffle_vector(one, none, everywhere)

    def address(self, key, offset):
        return self.b.bitcast(self.b.gep(self.ptr[key], [offset]), self.vector.as_pointer())

    def row(self, key, offset):
        """T complex numbers of array `key` from `offset` on."""
        out = self.b.load(self.address(key, offset))
        out.align = self.align
        return out

    def fma(self, a, x, y):
        return self.b.fadd(self.b.fmul(a, x, flags=_FUSE), y, flags=_FUSE)

    def dot(self, key, row, j):
        """Σ_k w[k] row[k] as (real, imaginary)."""
        out = [ir.Constant(self.scalar, 0.0)] * 2
        for k in range(self.T):
            w = self.weight(key, k, j)
            for i in range(2):
                out[i] = self.fma(w, self.b.extract_element(row, _I32(2 * k + i)), out[i])
        return out


@intrinsic
def gather_rows(_, V, plane, line, w0, w1, w2, j, taps0, taps):
    """(real, imaginary) of Σ w₀ w₁ w₂ V."""
    sig = types.UniTuple(V.dtype, 2)(V, plane, line, w0, w1, w2, j, taps0, taps)

    def codegen(context, builder, sig, args):
        r = _Rows(context, builder, sig, args, V.dtype, len(taps))
        lines = [r.at(2, k) for k in range(len(taps))]
        weights = [r.splat(r.weight(4, k, args[6])) for k in range(len(taps))]
        total = r.zero
        for k0 in range(len(taps0)):
            here, part = r.at(1, k0), r.zero
            for offset, w in zip(lines, weights, strict=True):
                part = r.fma(w, r.row(0, builder.add(here, offset)), part)
            total = r.fma(r.splat(r.weight(3, k0, args[6])), part, total)
        return context.make_tuple(builder, sig.return_type, r.dot(5, total, args[6]))

    return sig, codegen


@intrinsic
def slope_rows(_, V, plane, line, w0, w1, w2, d0, d1, d2, j, taps0, taps):
    """(c, ∂c/∂u₀, ∂c/∂u₁, ∂c/∂u₂), each as real, imaginary; `d` are the derivatives of the weights `w`."""
    sig = types.UniTuple(V.dtype, 8)(V, plane, line, w0, w1, w2, d0, d1, d2, j, taps0, taps)

    def codegen(context, builder, sig, args):
        r, j = _Rows(context, builder, sig, args, V.dtype, len(taps)), args[9]
        lines = [r.at(2, k) for k in range(len(taps))]
        weights = [r.splat(r.weight(4, k, j)) for k in range(len(taps))]
        slopes = [r.splat(r.weight(7, k, j)) for k in range(len(taps))]
        value, along0, along1 = r.zero, r.zero, r.zero
        for k0 in range(len(taps0)):
            here, part, dpart = r.at(1, k0), r.zero, r.zero
            for offset, w, d in zip(lines, weights, slopes, strict=True):
                v = r.row(0, builder.add(here, offset))
                part, dpart = r.fma(w, v, part), r.fma(d, v, dpart)
            w = r.splat(r.weight(3, k0, j))
            value, along1 = r.fma(w, part, value), r.fma(w, dpart, along1)
            along0 = r.fma(r.splat(r.weight(6, k0, j)), part, along0)
        out = r.dot(5, value, j) + r.dot(5, along0, j) + r.dot(5, along1, j) + r.dot(8, value, j)
        return context.make_tuple(builder, sig.return_type, out)

    return sig, codegen


@intrinsic
def scatter_rows(_, V, plane, line, w0, w1, w2, j, re, im, taps0, taps):
    """V += w₀ w₁ w₂ (re + i im) on the planes that are owned."""
    sig = types.void(V, plane, line, w0, w1, w2, j, re, im, taps0, taps)

    def codegen(context, builder, sig, args):
        r, j = _Rows(context, builder, sig, args, V.dtype, len(taps)), args[6]
        spread = r.zero
        for k in range(len(taps)):
            w = r.weight(5, k, j)
            for i in range(2):
                spread = builder.insert_element(spread, builder.fmul(w, args[7 + i]), _I32(2 * k + i))
        lines = [r.at(2, k) for k in range(len(taps))]
        weights = [r.weight(4, k, j) for k in range(len(taps))]
        for k0 in range(len(taps0)):
            here, w = r.at(1, k0), r.weight(3, k0, j)
            with builder.if_then(builder.icmp_signed(">=", here, ir.Constant(_I64, 0)), likely=True):
                for offset, w1 in zip(lines, weights, strict=True):
                    at = builder.add(here, offset)
                    new = r.fma(r.splat(builder.fmul(w, w1)), spread, r.row(0, at))
                    builder.store(new, r.address(0, at)).align = r.align
        return context.get_dummy_value()

    return sig, codegen
