"""Serial stills with known amplitudes: many crystals, each in one orientation, each cut by the Ewald sphere.

    q = U_j B h,   x = |s₀ + q| - 1/λ                               U_j: a random rotation of image j
    p = exp(-x² / 2 w_j²)                                           partiality; spots are predicted where |x| < X
    I ~ Normal(k_j exp(-2 B_j s²) p F_h², sd²),   sd² = sig0² + gain k_j exp(..) p F_h²
    log k_j, log w_j, B_j ~ normal                                  one of each per image

What is written down of an image is not quite what it is: its orientation is off by a small rotation, its cell by a
fraction; where the lattice has more symmetry than the crystal, each image is indexed in one of the ways that agree with
the lattice; and some images are bad: their intensities are those of other reflections, as of a crystal that was
indexed wrongly. Amplitudes follow Wilson's distribution, ⟨F²⟩ = ε.
"""

from dataclasses import dataclass, fields, replace

import gemmi
import numpy as np
import reciprocalspaceship as rs
from scipy.spatial.transform import Rotation

from bayesref._checks import InputError
from bayesref.crystal import symmetry
from bayesref.crystal.lattice import as_cell, as_spacegroup, check_compatible, check_resolution

MOSAIC = 2.5  # X / (mean w): predictions reach to where p is 4 %


@dataclass(frozen=True)
class SerialOptions:
    """Settings of `simulate_serial`.

    Attributes
    ----------
    images : number of stills
    cell, spacegroup, dmin : of the crystal, Å and degrees
    wavelength : Å
    width, width_sd : mean of w (Å⁻¹), standard deviation of its logarithm
    misorientation : standard deviation of the rotation error about each axis, degrees
    G, scale_sd : median scale, standard deviation of its logarithm
    B, B_sd : fall-off of the images, Å²
    sig0, gain : error model
    ambiguous : whether images are indexed at random among the ways that the lattice allows
    bad : fraction of images whose intensities have nothing to do with their indices
    cell_sd : relative error of cell axes
    foreign : fraction of images of another crystal form, whose axes differ by 4 %
    seed : of the random numbers
    """

    images: int = 1000
    cell: tuple[float, ...] = (66.9, 66.9, 40.96, 90.0, 90.0, 120.0)
    spacegroup: str | int = "P 63"
    dmin: float = 2.5
    wavelength: float = 1.3
    width: float = 2.0e-4
    width_sd: float = 0.2
    misorientation: float = 0.01
    G: float = 300.0
    scale_sd: float = 0.6
    B: float = 20.0
    B_sd: float = 5.0
    sig0: float = 20.0
    gain: float = 4.0
    ambiguous: bool = True
    bad: float = 0.05
    cell_sd: float = 0.002
    foreign: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("images", "dmin", "wavelength", "width", "G", "sig0"):
            if not getattr(self, name) > 0:
                raise InputError(f"Option {name} is {getattr(self, name)}; it must be above zero.")
        for name in ("width_sd", "misorientation", "scale_sd", "B_sd", "gain", "cell_sd"):
            if not getattr(self, name) >= 0:
                raise InputError(f"Option {name} is {getattr(self, name)}; it must not be negative.")
        for name in ("bad", "foreign"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"Option {name} is {getattr(self, name)}; it must lie between 0 and 1.")


@dataclass(frozen=True, eq=False)
class Still:
    """One image as it is written down.

    Attributes
    ----------
    hkl : (spot, 3) int32, as indexed
    I, SIGI : (spot,)
    xy : (spot, 2) pixels
    axes : (3, 3) a*, b*, c* in rows, Å⁻¹, as indexed
    cell : (6,) Å, degrees
    """

    hkl: np.ndarray
    I: np.ndarray
    SIGI: np.ndarray
    xy: np.ndarray
    axes: np.ndarray
    cell: np.ndarray


@dataclass(frozen=True, eq=False)
class SerialSimulation:
    """Simulated stills.

    Attributes
    ----------
    stills : one each
    hkl, F : (hkl, 3) and (hkl,), the unique reflections and their amplitudes
    operator : (image,) int, which of `operators` turned the true indices into those written down
    operators : (op, 3, 3) int, h' = h R, the identity first
    bad, foreign : (image,) bool
    scale, B, width : (image,) k_j, B_j, w_j
    options : what was asked for
    """

    stills: tuple[Still, ...]
    hkl: np.ndarray
    F: np.ndarray
    operator: np.ndarray
    operators: np.ndarray
    bad: np.ndarray
    foreign: np.ndarray
    scale: np.ndarray
    B: np.ndarray
    width: np.ndarray
    options: SerialOptions

    def __str__(self) -> str:
        n = sum(len(s.I) for s in self.stills)
        return (
            f"{len(self.stills):,} stills with {n:,} spots of {len(self.hkl):,} reflections, "
            f"{len(self.operators)} ways of indexing, {int(self.bad.sum()):,} bad images, "
            f"{int(self.foreign.sum()):,} of another cell"
        )


def reindexing_matrices(cell: gemmi.UnitCell, group: gemmi.SpaceGroup) -> np.ndarray:
    """Ways of indexing that the lattice allows and the crystal does not have, (op, 3, 3) int; the identity first."""
    laws = gemmi.find_twin_laws(cell, group, 1.0, False)
    return np.array([np.eye(3, dtype=int), *(np.array(op.rot) // op.DEN for op in laws)])


def simulate_serial(options: SerialOptions | None = None, **changes) -> SerialSimulation:
    """Simulate stills.

    Parameters
    ----------
    options : settings, default `SerialOptions()`
    changes : settings to change, by name

    Raises
    ------
    InputError : a setting that is unknown or out of range
    """
    unknown = set(changes) - {f.name for f in fields(SerialOptions)}
    if unknown:
        known = ", ".join(f.name for f in fields(SerialOptions))
        raise InputError(f"Option '{min(unknown)}' is unknown; options are {known}.")
    o = replace(options or SerialOptions(), **changes)
    rng, cell, group = np.random.default_rng(o.seed), as_cell(o.cell), as_spacegroup(o.spacegroup)
    check_compatible(cell, group)
    check_resolution(cell, group, o.dmin)
    hkl = rs.utils.generate_reciprocal_asu(cell, group, o.dmin, anomalous=False)
    hkl = hkl[~symmetry.is_absent(hkl, group)]
    F = _wilson(hkl, group, rng)
    crystal = _Crystal.of(cell, group, hkl, o)
    n = o.images
    matrices = reindexing_matrices(cell, group)
    operator = rng.integers(0, len(matrices), n) if o.ambiguous else np.zeros(n, dtype=int)
    bad, foreign = rng.uniform(size=n) < o.bad, rng.uniform(size=n) < o.foreign
    scale, B = o.G * np.exp(o.scale_sd * rng.normal(size=n)), rng.normal(o.B, o.B_sd, n)
    width = o.width * np.exp(o.width_sd * rng.normal(size=n))
    stills = tuple(
        _still(crystal, F, matrices[operator[j]], (bad[j], foreign[j], scale[j], B[j], width[j]), o, rng)
        for j in range(n)
    )
    return SerialSimulation(stills, hkl, F, operator, matrices, bad, foreign, scale, B, width, o)


def _wilson(hkl, group, rng) -> np.ndarray:
    real, imaginary = rng.normal(size=(2, len(hkl)))
    E = np.where(symmetry.is_centric(hkl, group), real, (real + 1j * imaginary) / np.sqrt(2))
    return np.sqrt(symmetry.epsilon(hkl, group)) * np.abs(E)


@dataclass(frozen=True, eq=False)
class _Crystal:
    """Every reflection of the sphere: indices (full, 3), unique one (full,), and B with a*, b*, c* in rows."""

    hkl: np.ndarray
    unique: np.ndarray
    stol2: np.ndarray
    axes: np.ndarray

    @classmethod
    def of(cls, cell, group, hkl, o):
        ops = group.operations().sym_ops
        images = np.concatenate([rs.utils.apply_to_hkl(hkl, op) for op in ops])
        unique = np.tile(np.arange(len(hkl)), 2 * len(ops))
        full, first = np.unique(np.concatenate([images, -images]), axis=0, return_index=True)
        axes = np.array(cell.frac.mat.tolist())
        return cls(full.astype(np.int32), unique[first], 0.25 / cell.calculate_d_array(full) ** 2, axes)


def _still(crystal, F, matrix, truth, o: SerialOptions, rng) -> Still:
    """One image: which reflections are near the sphere, what they give, how they are written down."""
    bad, foreign, k, B, w = truth
    U = Rotation.random(random_state=rng).as_matrix()
    strain = 1 + o.cell_sd * rng.normal() + (0.04 if foreign else 0.0)
    true = crystal.axes @ U.T / strain  # rows a*, b*, c*
    error = Rotation.from_rotvec(np.radians(o.misorientation) * rng.normal(size=3)).as_matrix()
    written = true @ error.T
    k0 = 1 / o.wavelength
    near = np.flatnonzero(np.abs(_offset(crystal.hkl @ written, k0)) < MOSAIC * o.width)
    h = crystal.hkl[near]
    p = np.exp(-0.5 * (_offset(h @ true, k0) / w) ** 2)
    J = F[crystal.unique[near]] ** 2
    if bad:
        J = J[rng.permutation(len(J))]
    mean = k * np.exp(-2 * B * crystal.stol2[near]) * p * J
    sd = np.sqrt(o.sig0**2 + o.gain * mean)
    s1 = h @ written + np.array([0, 0, k0])
    xy = 1000 + 1500 * s1[:, :2] / s1[:, 2:]
    # h' = h R is measured where h is, so that the rows of axes become R⁻¹ of themselves.
    inverse = np.rint(np.linalg.inv(matrix))
    a = np.linalg.inv(crystal.axes / strain).T
    cell = np.concatenate([np.linalg.norm(a, axis=1), o.cell[3:]])
    indexed = (h @ matrix).astype(np.int32)
    return Still(indexed, mean + sd * rng.normal(size=len(h)), sd, xy, inverse @ written, cell)


def _offset(q, k0) -> np.ndarray:
    s2 = 2 * k0 * q[:, 2] + (q**2).sum(axis=1)
    return s2 / (np.sqrt(np.maximum(k0**2 + s2, 0)) + k0)
