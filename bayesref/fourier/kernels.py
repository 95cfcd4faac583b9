"""Interpolation kernels: every one is a table of polynomials.

    K(u - n) = Σ_j table[k, j] (f - ½)^j      n = base + k,  k = 0 .. taps-1
    even taps: base = ⌊u⌋ - taps/2 + 1,        f = u - ⌊u⌋
    odd taps:  base = ⌊u + ½⌋ - (taps-1)/2,    f = u + ½ - ⌊u + ½⌋

u is a coordinate in grid units, n a grid index. The polynomials *are* the kernel: values, derivatives and
transposes on every backend come from the same numbers and agree to rounding.

Interpolating the transform of an object multiplies the object by the kernel's own transform

    A(r) = ∫ K(u) cos(2π u r) du               r: distance from the centre / box length, |r| ≤ ½

`Kernel.apodisation` is A; dividing by it before the FFT (de-apodisation) leaves only aliasing.
Kaiser-Bessel window and its shape β: Beatty, Nishimura & Pauly (2005), IEEE Trans. Med. Imaging 24, 799.
Cubic convolution, a = -½: Keys (1981), IEEE Trans. ASSP 29, 1153.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from scipy.special import i0

from bayesref._checks import InputError

# Truncating the window at this degree leaves 3e-12 of its peak, far below any aliasing.
KAISER_BESSEL_DEGREE = 12

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


@dataclass(frozen=True)
class Kernel:
    """A separable interpolation kernel.

    Attributes
    ----------
    name : str
    table : tuple of `taps` tuples, coefficients of (f - ½)^j in rising order j
    deapodise : bool, whether an object is to be divided by `apodisation` before its transform is taken;
        Kaiser-Bessel kernels need it, interpolating kernels would lose their exact grid points, DC among them
    """

    name: str
    table: tuple[tuple[float, ...], ...]
    deapodise: bool

    @property
    def taps(self) -> int:
        return len(self.table)

    def apodisation(self, r: np.ndarray) -> np.ndarray:
        """A(r) for distances `r` in units of the grid's real-space period."""
        f, weight = _NODES / 2, _WEIGHTS / 2  # f - ½ on (-½, ½)
        offset = f[None] + (self.taps - 1) / 2 - np.arange(self.taps)[:, None]  # (tap, node): u - n
        K = np.stack([Polynomial(c)(f) for c in self.table])
        phase = 2 * np.pi * np.asarray(r)[..., None, None] * offset
        return (np.cos(phase) * K * weight).sum((-2, -1))


def _even(name: str, taps: int, K: Callable, degree: int, deapodise: bool) -> Kernel:
    """Table of the even-tap kernel whose values are K(distance)."""
    pieces = []
    for k in range(taps):
        fit = Chebyshev.interpolate(partial(_shifted, K, (taps - 1) / 2 - k), degree, domain=[-0.5, 0.5])
        coef = fit.convert(kind=Polynomial, domain=[-1, 1], window=[-1, 1]).coef
        pieces.append(tuple(float(c) for c in np.pad(coef, (0, degree + 1 - len(coef)))))
    return Kernel(name, tuple(pieces), deapodise)


def _shifted(K, offset, c):
    return K(c + offset)


@lru_cache(maxsize=64)
def kaiser_bessel(taps: int, oversampling: float = 2.0) -> Kernel:
    """The Kaiser-Bessel window of an even number of taps, shaped for a box padded by `oversampling`.

    K(d) = (I₀(β √(1 - (2d/taps)²)) - 1) / (I₀(β) - 1),   β = 1.1 π √((taps/o)² (o - ½)² - 0.8)

    The -1 makes K continuous at its ends: no jumps for line searches. The published β (without 1.1) suits
    objects that fill the box; up to radius 0.4 box this one halves the error.
    """
    if taps not in (4, 6, 8) or not 1.0 < oversampling <= 4.0:
        raise InputError(
            f"A Kaiser-Bessel kernel of {taps} taps at oversampling {oversampling:g} is not offered; "
            "ask for 4, 6 or 8 taps and an oversampling above 1 and up to 4."
        )
    o = oversampling
    beta = 1.1 * np.pi * np.sqrt((taps / o) ** 2 * (o - 0.5) ** 2 - 0.8)

    def K(d):
        return (i0(beta * np.sqrt(np.clip(1 - (2 * d / taps) ** 2, 0, None))) - 1) / (i0(beta) - 1)

    return _even(f"kb{taps}", taps, K, KAISER_BESSEL_DEGREE, deapodise=True)


NEAREST = Kernel("nearest", ((1.0,),), deapodise=False)
LINEAR = Kernel("linear", ((0.5, -1.0), (0.5, 1.0)), deapodise=False)
# Catmull-Rom in powers of c = f - ½; all coefficients are exact in binary.
CUBIC = Kernel(
    "cubic",
    (
        (-0.0625, 0.125, 0.25, -0.5),
        (0.5625, -1.375, -0.25, 1.5),
        (0.5625, 1.375, -0.25, -1.5),
        (-0.0625, -0.125, 0.25, 0.5),
    ),
    deapodise=False,
)


def get_kernel(kernel: str | Kernel, oversampling: float = 2.0) -> Kernel:
    """The kernel of this name: nearest, linear, cubic, kb4, kb6, kb8; a `Kernel` passes through."""
    if isinstance(kernel, Kernel):
        return kernel
    fixed = {"nearest": NEAREST, "linear": LINEAR, "cubic": CUBIC}
    if kernel in fixed:
        return fixed[kernel]
    if kernel in ("kb4", "kb6", "kb8"):
        return kaiser_bessel(int(kernel[2:]), float(oversampling))
    raise InputError(f"kernel {kernel!r} is not known; choose nearest, linear, cubic, kb4, kb6 or kb8.")


def squared(kernel: Kernel) -> Kernel:
    """K²: inserting weights with it gives the exact diagonal of insert · weights · sample."""
    table = tuple(tuple(float(c) for c in (Polynomial(row) ** 2).coef) for row in kernel.table)
    degree = max(map(len, table))
    table = tuple(row + (0.0,) * (degree - len(row)) for row in table)
    return Kernel(kernel.name + "²", table, deapodise=False)
