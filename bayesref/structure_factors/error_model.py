"""Error of the FFT method, predicted: what grid, blur and radius a requested accuracy needs.

An atom on a grid, its B raised by a blur β and its density cut at R, gives f(s) with two errors. At S = 2s = 1/d:

    alias(S)²      = Σ_G ‹ f_β(|S - G|)² ›  e^{βS²/2}      G = nearest vectors of the grid's reciprocal lattice
    truncation(S)  = e^{βS²/4} ∫ 4πr² ρ(r) (1 - w(r²/R²)) sin(2πSr)/(2πSr) dr

f_β(S) = Σ_i a_i exp(-(b_i+B+β) S²/4), ‹› = mean over directions. Blur makes f_β fall before it is folded back, so
the grid may be coarse, and widens ρ. Atoms are taken at random places, so squares add; means are over the sphere of
reflections, relative to the mean square of f without error, for F and for its derivative by B.
"""

from dataclasses import dataclass

import numpy as np

TAPER = 0.7  # of fourier.density: w(u) falls from 1 to 0 between u = TAPER and 1
GRADIENT = 3.0  # relative error allowed to gradients of B, in units of that of F
_LEGENDRE = {n: np.polynomial.legendre.leggauss(n) for n in (12, 40)}


@dataclass(frozen=True)
class AtomClasses:
    """Atoms grouped by scatterer and B.

    Attributes
    ----------
    a, b : (class, gauss) form factors, electrons and Å²
    B : (class,) Å²
    share : (class,) fraction of the atoms
    scatterer : (class,) int
    """

    a: np.ndarray
    b: np.ndarray
    B: np.ndarray
    share: np.ndarray
    scatterer: np.ndarray


def _nodes(n: int, low: float, high: float):
    x, w = _LEGENDRE[n]
    return low + (high - low) * (x + 1) / 2, w * (high - low) / 2


def _shells(S_max: float):
    """Nodes S and weights of the mean over the sphere of reflections."""
    S, w = _nodes(12, 0.0, S_max)
    return S, w * 3 * S**2 / S_max**3


def _f(atoms: AtomClasses, S2: np.ndarray, blur: float) -> np.ndarray:
    """f_β at S² and its derivative by -B, (2, class, ...)."""
    beta = (atoms.b + (atoms.B + blur)[:, None]).reshape(atoms.b.shape + (1,) * S2.ndim)
    f = (atoms.a.reshape(beta.shape) * np.exp(-beta * S2 / 4)).sum(1)
    return np.stack([f, f * S2 / 4])


def signal(atoms: AtomClasses, S_max: float) -> np.ndarray:
    """Mean squares of f and ∂f/∂B over the sphere, (2, class)."""
    S, w = _shells(S_max)
    return _f(atoms, S**2, 0.0) ** 2 @ w


def alias(atoms: AtomClasses, S_max: float, G: np.ndarray, blur: float) -> float:
    """Relative error from the grid; G (3,) lengths of the grid's reciprocal axes, Å⁻¹."""
    S, w = _shells(S_max)
    c, wc = _nodes(
        12, 0.0, 1.0
    )  # cosine; the far half sphere adds nothing, and both signs of each G are counted
    total = 0.0
    for g in G:
        folded = S[:, None] ** 2 + g**2 - 2 * S[:, None] * g * c
        f2 = _f(atoms, folded, blur) ** 2 * np.exp(blur * S**2 / 2)[:, None]
        total = total + (f2 @ wc) @ w  # half of the directions, two signs
    return _worst(total @ atoms.share, atoms, S_max)


def truncation(atoms: AtomClasses, S_max: float, blur: float, radius: np.ndarray) -> np.ndarray:
    """Mean square errors of f and ∂f/∂B from the cut at `radius` (class,), (2, class)."""
    S, w = _shells(S_max)
    x, wx = _nodes(
        40, np.sqrt(TAPER), 2.2
    )  # in units of R; a density still large at 2.2 R is far off any target
    r = radius[:, None] * x  # (class, node)
    beta = (atoms.b + (atoms.B + blur)[:, None])[:, :, None]
    u = 4 * np.pi**2 * r[:, None] ** 2 / beta
    rho = atoms.a[:, :, None] * (4 * np.pi / beta) ** 1.5 * np.exp(-u)
    rho = np.stack([rho.sum(1), (rho * (u - 1.5) / beta).sum(1)])
    t = np.clip((x**2 - TAPER) / (1 - TAPER), 0, 1)
    lost = 4 * np.pi * r**2 * rho * (1 - (1 - t) ** 2 * (1 + 2 * t)) * wx * radius[:, None]
    wave = np.sinc(2 * S[:, None] * r[:, None]) * np.exp(blur * S**2 / 4)[:, None]  # (class, S, node)
    return np.einsum("qcr,csr->qcs", lost, wave) ** 2 @ w


def total(atoms: AtomClasses, S_max: float, G: np.ndarray, blur: float, radius: np.ndarray) -> float:
    """Relative error of F or, where larger, that of ∂F/∂B over GRADIENT."""
    cut = _worst(truncation(atoms, S_max, blur, radius) @ atoms.share, atoms, S_max)
    return float(np.hypot(alias(atoms, S_max, G, blur), cut))


def _worst(square: np.ndarray, atoms: AtomClasses, S_max: float) -> float:
    f, slope = np.sqrt(square / (signal(atoms, S_max) @ atoms.share))
    return float(max(f, slope / GRADIENT))


def find_blur(atoms: AtomClasses, S_max: float, G: np.ndarray, target: float) -> float:
    """The smallest blur, Å², with an alias error of `target`; not below what keeps every Gaussian 1 Å² wide."""
    low, high = max(0.0, 1.0 - float(atoms.B.min())), 64.0
    if alias(atoms, S_max, G, low) <= target:
        return low
    while alias(atoms, S_max, G, high) > target and high < 1e4:
        low, high = high, 2 * high
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if alias(atoms, S_max, G, middle) > target else (low, middle)
    return high


def find_radius(atoms: AtomClasses, S_max: float, blur: float, target: float) -> np.ndarray:
    """The smallest radius of each class with a truncation error of `target`, (class,) Å.

    The error is relative to the geometric mean of this class and the mean atom: a weak scatterer matters less for F,
    but its own gradients should still be right.
    """
    own = signal(atoms, S_max)
    allowed = target**2 * np.sqrt(own * (own @ atoms.share)[:, None]) * np.array([[1.0], [GRADIENT**2]])
    low, high = np.full(len(atoms.B), 0.3), np.full(len(atoms.B), 20.0)
    for _ in range(14):
        middle = (low + high) / 2
        wide = (truncation(atoms, S_max, blur, middle) > allowed).any(0)
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    return high
