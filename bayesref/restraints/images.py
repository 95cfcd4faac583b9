"""Which symmetry copies of the atoms lie near the atoms themselves.

    x' = R x + t,   R = O R_f O⁻¹,   t = O (t_f + shift)

R_f, t_f are an operator of the space group in fractional coordinates, O orthogonalises, shift is a lattice vector.
"""

import numpy as np
import torch
from scipy.spatial import cKDTree

from bayesref.restraints.terms import Images

SPECIAL = 0.8  # Å; an atom this close to its own image is the same atom on a special position


def cartesian(cell, spacegroup, operators) -> Images:
    """Cartesian maps of (operator of the cell, shift of the lattice) pairs; operator 0 is the identity."""
    O, F = np.array(cell.orth.mat.tolist()), np.array(cell.frac.mat.tolist())
    ops = list(spacegroup.operations())
    R, t = np.empty((len(operators), 3, 3)), np.empty((len(operators), 3))
    for k, (op, shift) in enumerate(operators):
        rotation, translation = np.array(ops[op].rot) / 24, np.array(ops[op].tran) / 24
        R[k] = np.eye(3) if op == 0 else O @ rotation @ F
        t[k] = O @ (translation + shift)
    return Images(torch.from_numpy(R), torch.from_numpy(t))


def near_operators(
    xyz: np.ndarray, cell, spacegroup, radius: float
) -> list[tuple[int, tuple[int, int, int]]]:
    """Operators and shifts that may bring a copy of the atoms (n, 3) within `radius` Å of them; not the identity."""
    F = np.array(cell.frac.mat.tolist())
    frac = xyz @ F.T
    margin = radius * np.linalg.norm(F, axis=1)  # reach of `radius` Å along each fractional axis
    low, high = frac.min(0) - margin, frac.max(0) + margin
    found = []
    for k, op in enumerate(spacegroup.operations()):
        copy = frac @ (np.array(op.rot) / 24).T + np.array(op.tran) / 24
        first = np.ceil(low - copy.max(0)).astype(int)
        last = np.floor(high - copy.min(0)).astype(int)
        ranges = [range(a, b + 1) for a, b in zip(first, last, strict=True)]
        found += [(k, (a, b, c)) for a in ranges[0] for b in ranges[1] for c in ranges[2]]
    return [f for f in found if f != (0, (0, 0, 0))]


def neighbours(xyz: np.ndarray, cell, spacegroup, radius: float):
    """Pairs closer than `radius`, each contact once: atoms (pair, 2), image (pair,), distance (pair,), operators.

    Row 0 of `operators` is the identity; the image belongs to the second atom.
    """
    tree = cKDTree(xyz)
    pairs = tree.query_pairs(radius, output_type="ndarray").astype(np.int64).reshape(-1, 2)
    length = np.linalg.norm(xyz[pairs[:, 0]] - xyz[pairs[:, 1]], axis=1)
    atoms, image, distance = [pairs], [np.zeros(len(pairs), dtype=np.int64)], [length]
    operators = [(0, (0, 0, 0))]
    low, high = xyz.min(0) - radius, xyz.max(0) + radius
    candidates = near_operators(xyz, cell, spacegroup, radius)
    maps = cartesian(cell, spacegroup, candidates)
    for op, R, t in zip(candidates, maps.R.numpy(), maps.t.numpy(), strict=True):
        copy = xyz @ R.T + t
        near = np.flatnonzero(((copy > low) & (copy < high)).all(1))
        if len(near) == 0:
            continue
        found = tree.sparse_distance_matrix(cKDTree(copy[near]), radius, output_type="ndarray")
        i, j, d = found["i"].astype(np.int64), near[found["j"]], found["v"]
        # The contact of i with the copy of j is that of j with another copy of i. Those of an atom with its
        # own copies come in pairs too; they are sorted out below.
        keep = (i < j) | ((i == j) & (d > SPECIAL))
        if keep.any():
            atoms.append(np.stack([i[keep], j[keep]], 1))
            image.append(np.full(int(keep.sum()), len(operators)))
            distance.append(d[keep])
            operators.append(op)
    pair, which, length = (np.concatenate(c) for c in (atoms, image, distance))
    keep = _once(pair, which, operators, spacegroup)
    return pair[keep], which[keep], length[keep], operators


def _once(atoms, image, operators, spacegroup) -> np.ndarray:
    """(pair,) bool: drop one of the two images, by an operator and by its inverse, that touch their own atom."""
    keep = np.ones(len(atoms), dtype=bool)
    own = np.flatnonzero(atoms[:, 0] == atoms[:, 1])
    if len(own) == 0:
        return keep
    ops = list(spacegroup.operations())
    number = {op.triplet(): k for k, op in enumerate(ops)}
    for p in own:
        k, shift = operators[image[p]]
        keep[p] = (k, shift) >= _inverse(ops, number, k, shift)
    return keep


def _inverse(ops, number, k: int, shift) -> tuple[int, tuple[int, int, int]]:
    """The operator and shift that undo operator k followed by a shift."""
    inverse = ops[k].inverse()
    rotation = np.array(inverse.rot) / 24
    translation = np.array(inverse.tran) / 24 - rotation @ np.array(shift)
    m = number[inverse.wrap().triplet()]
    back = np.rint(translation - np.array(ops[m].tran) / 24).astype(int)
    return m, (int(back[0]), int(back[1]), int(back[2]))
