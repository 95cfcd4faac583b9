"""Reflections set aside for R-free, the same in every dataset of one lattice.

    flag(h) = floor(n u(h)),   n = 1/fraction,   u(h) in [0, 1) from a hash of (seed, {h R_j, -h R_j})       0 = free

R_j are the operators of the lattice's holohedry, the highest symmetry that its shape allows, so that reflections which
twinning or non-crystallographic symmetry along the axes relates are free together. u depends on the indices and on
`seed` alone: not on resolution, on completeness, or on what else was measured. The hash is SplitMix64 (Steele, Lea &
Flood, 2014, OOPSLA, figure 17).
"""

import gemmi
import numpy as np

from bayesref._checks import InputError
from bayesref.crystal.symmetry import as_hkl, pack

MAX_OBLIQUITY = 3.0  # degrees by which a lattice may miss a symmetry that still counts


def free_flags(
    hkl, cell: gemmi.UnitCell, spacegroup: gemmi.SpaceGroup, fraction: float = 0.05, seed: int = 0
):
    """Flags of reflections, (n,) int64: 0 is free, 1 .. n-1 are worked with.

    Parameters
    ----------
    hkl : (n, 3) int, in any asymmetric unit
    fraction : share that is free; the flags are the numbers below 1/fraction

    Raises
    ------
    InputError : a fraction that leaves none to work with, or none free
    """
    if not 0 < fraction <= 0.5:
        raise InputError(f"The free fraction is {fraction:g}; it must be above 0 and at most 0.5.")
    hkl = as_hkl(hkl)
    n = max(round(1 / fraction), 2)
    rotations = lattice_rotations(cell, spacegroup)
    images = np.einsum("hx,gxy->ghy", hkl.astype(np.int64), rotations)
    # Operators of an oblique setting may lengthen an index; the bound is fixed, so that u never depends on the data.
    keys = np.maximum(
        *(pack((sign * images).reshape(-1, 3), 10_000).reshape(len(rotations), -1) for sign in (1, -1))
    )
    return (_uniform(keys.max(0), seed) * n).astype(np.int64)


def lattice_rotations(cell: gemmi.UnitCell, spacegroup: gemmi.SpaceGroup) -> np.ndarray:
    """Rotations of the holohedry as integers, (op, 3, 3); indices transform as rows, h R."""
    operations = gemmi.find_lattice_symmetry(cell, spacegroup.centring_type(), MAX_OBLIQUITY)
    own = [op.rot for op in spacegroup.operations().sym_ops]
    rotations = {tuple(map(tuple, r)) for r in [*own, *(op.rot for op in operations.sym_ops)]}
    return np.array(sorted(rotations)) // gemmi.Op.DEN


def _uniform(key: np.ndarray, seed: int) -> np.ndarray:
    """A number in [0, 1) for each key."""
    with np.errstate(over="ignore"):
        x = key.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(2 * seed + 1)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(float) / 2**53
