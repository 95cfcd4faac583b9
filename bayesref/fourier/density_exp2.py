"""2^x in numba, in a form that compilers vectorise.

    2^x = 2^i p(f)        i = the integer nearest x, f = x - i in [-1/2, 1/2]

p is the Chebyshev interpolant of 2^f: degree 6 in float32 (relative error 2e-7), 12 in float64 (1e-15).
2^i is written into the exponent bits. Arguments below the smallest exponent give that power of two, about zero.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

# arguments of a Gaussian are never above 0, and reassociation is what lets sums run in vector lanes
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}

# Chebyshev interpolation of 2^f on [-1/2, 1/2], highest power first
_P32 = tuple(
    np.float32(c)
    for c in np.polynomial.Chebyshev.interpolate(np.exp2, 6, [-0.5, 0.5])
    .convert(kind=np.polynomial.Polynomial)
    .coef[::-1]
)
_P64 = tuple(
    float(c)
    for c in np.polynomial.Chebyshev.interpolate(np.exp2, 12, [-0.5, 0.5])
    .convert(kind=np.polynomial.Polynomial)
    .coef[::-1]
)


@intrinsic
def _power_of_two(typingctx, i):
    """2^i for an int32 or int64 `i` in the range of exponents, as the float of the same width."""
    single = i == types.int32
    signature = (types.float32 if single else types.float64)(i)

    def codegen(context, builder, signature, args):
        bias, bits = (127, 23) if single else (1023, 52)
        exponent = builder.add(args[0], args[0].type(bias))
        return builder.bitcast(
            builder.shl(exponent, args[0].type(bits)), ir.FloatType() if single else ir.DoubleType()
        )

    return signature, codegen


def exp2(x):
    """2^x for x <= 0; inside numba only."""
    return np.exp2(x)


@njit(inline="always", fastmath=FASTMATH)
def _exp2_single(x):
    x = max(x, np.float32(-126))
    i = np.int32(x - np.float32(0.5))
    f = x - np.float32(i)
    p = _P32[0]
    p = p * f + _P32[1]
    p = p * f + _P32[2]
    p = p * f + _P32[3]
    p = p * f + _P32[4]
    p = p * f + _P32[5]
    p = p * f + _P32[6]
    return p * _power_of_two(i)  # type: ignore[call-arg]


@njit(inline="always", fastmath=FASTMATH)
def _exp2_double(x):
    x = max(x, -1022.0)
    i = np.int64(x - 0.5)
    f = x - np.float64(i)
    p = ((_P64[0] * f + _P64[1]) * f + _P64[2]) * f + _P64[3]
    p = (((p * f + _P64[4]) * f + _P64[5]) * f + _P64[6]) * f + _P64[7]
    p = (((p * f + _P64[8]) * f + _P64[9]) * f + _P64[10]) * f + _P64[11]
    return (p * f + _P64[12]) * _power_of_two(i)  # type: ignore[call-arg]


@overload(exp2, inline="always")
def _exp2_overload(x):
    return (lambda x: _exp2_single(x)) if x == types.float32 else (lambda x: _exp2_double(x))
