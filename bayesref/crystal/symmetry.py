"""Equivalent indices: from the observed (h, k, l) to the asymmetric unit and back.

    h' = h R_j      or      h' = -h R_j          j-th operator of the space group, h a row vector
    ISYM = 2 j + 1          ISYM = 2 j + 2       (j from 0), as in an MTZ file

ISYM is that of the first operator that brings h inside. Odd: h belongs to the (+) mate of its Friedel pair;
even: to the (-) mate. The parity is unambiguous for acentric reflections; for centric ones both mates are
one. The asymmetric unit is CCP4's, which gemmi and reciprocalspaceship share. Symmetry elements are gemmi's.
"""

import gemmi
import numpy as np
import reciprocalspaceship as rs

from bayesref._checks import InputError

# gemmi evaluates symmetry flags for indices of this type only.
INDEX = np.int32


def as_hkl(hkl) -> np.ndarray:
    """(n, 3) int32 array from anything array-like, tensors included."""
    hkl = np.ascontiguousarray(np.asarray(hkl), dtype=INDEX)
    if hkl.ndim != 2 or hkl.shape[1] != 3:
        raise InputError(f"Miller indices have shape {hkl.shape}; expected (n, 3).")
    return hkl


def pack(hkl: np.ndarray, bound: int, dataset_id: np.ndarray | int = 0) -> np.ndarray:
    """One int64 per row that sorts as (dataset_id, h, k, l) for |h|, |k|, |l| <= bound."""
    base = 2 * bound + 1
    h, k, l = (hkl[:, i].astype(np.int64) + bound for i in range(3))
    return ((dataset_id * base + h) * base + k) * base + l


def unpack(key: np.ndarray, bound: int) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of `pack`: hkl (n, 3) and dataset_id (n,)."""
    base = 2 * bound + 1
    key, l = np.divmod(key, base)
    key, k = np.divmod(key, base)
    dataset_id, h = np.divmod(key, base)
    return np.stack([h, k, l], axis=1).astype(INDEX) - INDEX(bound), dataset_id


def to_asu(hkl, spacegroup: gemmi.SpaceGroup) -> tuple[np.ndarray, np.ndarray]:
    """Equivalent indices inside the asymmetric unit, and ISYM.

    Parameters
    ----------
    hkl : (n, 3) int, as observed; cheapest where each index occurs once
    spacegroup : gemmi.SpaceGroup

    Returns
    -------
    asu : (n, 3) int32
    isym : (n,) int64, odd for the (+) mate, even for the (-) mate
    """
    hkl = as_hkl(hkl)
    asu, isym = hkl.copy(), np.zeros(len(hkl), dtype=np.int64)
    rest = np.arange(len(hkl))
    for j, op in enumerate(spacegroup.operations()):
        image = rs.utils.apply_to_hkl(hkl[rest], op)
        for sign in (1, -1):
            inside = rs.utils.in_asu(sign * image, spacegroup)
            found = rest[inside]
            asu[found] = sign * image[inside]
            isym[found] = 2 * j + (1 if sign == 1 else 2)
            rest, image = rest[~inside], image[~inside]
        if not rest.size:
            break
    return asu, isym


def is_absent(hkl, spacegroup: gemmi.SpaceGroup) -> np.ndarray:
    """(n,) bool: systematically absent, or (0, 0, 0), which the beam stop hides."""
    hkl = as_hkl(hkl)
    return spacegroup.operations().systematic_absences(hkl) | ~hkl.any(axis=1)


def epsilon(hkl, spacegroup: gemmi.SpaceGroup) -> np.ndarray:
    """(n,) int: number of operators that map h to itself, centring left out."""
    return spacegroup.operations().epsilon_factor_without_centering_array(as_hkl(hkl))


def is_centric(hkl, spacegroup: gemmi.SpaceGroup) -> np.ndarray:
    """(n,) bool: an operator maps h to -h."""
    return spacegroup.operations().centric_flag_array(as_hkl(hkl))
