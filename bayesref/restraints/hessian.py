"""Gauss-Newton Hessian of -log p of the coordinates.

    H = Σ_r J_rᵀ J_r / σ_r²          bonds, angles, torsions, chirals, and contacts that are too close
    H = Σ_plane (P ⊗ n nᵀ) / σ²      P = 1 - projection on (1, u, v): what a shift and two tilts of the plane
                                     cannot take up; u, v are the coordinates of its atoms in the plane

Positive semidefinite everywhere; rows in the order 3·atom + axis. The pattern of 3 x 3 blocks depends on the
tables alone, and is found once.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy import sparse

from bayesref.restraints import compiled


@dataclass(frozen=True)
class Pattern:
    """Where the blocks of each restraint go.

    Attributes
    ----------
    slots : kind -> (n, k, k) number of the block of two atoms of a restraint; -1 where there is no atom
    indices, indptr : columns and row ends of the blocks (block sparse rows)
    """

    slots: dict[str, np.ndarray]
    indices: np.ndarray
    indptr: np.ndarray


def pattern(tables: dict[str, np.ndarray], n_atom: int) -> Pattern:
    """The pattern of blocks of restraints on atoms (n, k) of each kind; every atom has a diagonal block."""
    keys = {}
    for kind, atoms in tables.items():
        key = atoms[:, :, None] * n_atom + atoms[:, None, :]
        keys[kind] = np.where((atoms[:, :, None] >= 0) & (atoms[:, None, :] >= 0), key, -1)
    diagonal = np.arange(n_atom) * (n_atom + 1)
    unique, number = np.unique(
        np.concatenate([[-1], diagonal, *(k.ravel() for k in keys.values())]), return_inverse=True
    )
    slots, start = {}, 1 + n_atom
    for kind, key in keys.items():
        slots[kind] = (number[start : start + key.size] - 1).reshape(key.shape)  # the key -1 came first
        start += key.size
    row, column = np.divmod(unique[1:], n_atom)
    return Pattern(slots, column, np.r_[0, np.cumsum(np.bincount(row, minlength=n_atom))])


def hessian(
    tables: dict[str, dict[str, np.ndarray]], where: Pattern, xyz: np.ndarray, more
) -> sparse.csc_matrix:
    """Sparse (3 atom, 3 atom) Hessian at the coordinates (atom, 3), 1/Å²; `more` is `optional.slopes`."""
    n = len(xyz)
    blocks = np.zeros((len(where.indices), 3, 3))
    for kind, (J, weight) in _slopes(tables, xyz).items():
        _add_blocks(blocks, where.slots[kind], J, weight)
    for kind, rows in more.items():
        for _, J, weight in rows:
            _add_blocks(blocks, where.slots[kind], J, weight)
    t = tables["planes"]
    if len(t["atoms"]):
        _, _, axes = compiled.planes(xyz, t["atoms"])
        _add_planes(blocks, where.slots["planes"], xyz, t["atoms"], axes, t["sigma"] ** -2.0)
    rows = sparse.bsr_matrix((blocks, where.indices, where.indptr), shape=(3 * n, 3 * n)).tocsr()
    # Symmetric: its compressed rows are its compressed columns.
    return sparse.csc_matrix((rows.data, rows.indices, rows.indptr), shape=(3 * n, 3 * n))


def _slopes(tables, xyz):
    """Slopes and weights 1/σ² of the restraints that measure one number."""
    images = tables["images"]
    t = tables["bonds"]
    found = {
        "bonds": (
            compiled.distances(xyz, t["atoms"], t["image"], images["R"], images["t"])[1],
            t["sigma"] ** -2.0,
        )
    }
    for kind in ("angles", "torsions"):
        t = tables[kind]
        found[kind] = (getattr(compiled, kind)(xyz, t["atoms"])[1], t["sigma"] ** -2.0)
    t = tables["chirals"]
    found["chirals"] = (compiled.volumes(xyz, t["atoms"])[1], t["sigma"] ** -2.0)
    t = tables["nonbonded"]
    d, J = compiled.distances(xyz, t["atoms"], t["image"], images["R"], images["t"])
    found["nonbonded"] = (J, np.where(d < t["minimum"], t["sigma"] ** -2.0, 0.0))
    return found


@njit(cache=True, nogil=True)
def _add_blocks(blocks, slots, J, weight):
    n, width, _ = slots.shape
    for r in range(n):
        if weight[r] == 0:
            continue
        for a in range(width):
            for b in range(width):
                block = blocks[slots[r, a, b]]
                for i in range(3):
                    for j in range(3):
                        block[i, j] += weight[r] * J[r, a, i] * J[r, b, j]


@njit(cache=True, nogil=True)
def _add_planes(blocks, slots, xyz, atoms, axes, weight):
    n, width = atoms.shape
    place = np.empty((width, 2))
    for r in range(n):
        size = 0
        for k in range(width):
            size += atoms[r, k] >= 0
        for c in range(2):
            mean, square = 0.0, 0.0
            for k in range(size):
                place[k, c] = compiled.dot(axes[r, c + 1], xyz[atoms[r, k]])
                mean += place[k, c] / size
            for k in range(size):
                place[k, c] -= mean
                square += place[k, c] ** 2
            for k in range(size):
                place[k, c] /= np.sqrt(max(square, 1e-12))  # Å², a group without extent
        for a in range(size):
            for b in range(size):
                P = (a == b) - 1 / size - place[a, 0] * place[b, 0] - place[a, 1] * place[b, 1]
                block = blocks[slots[r, a, b]]
                for i in range(3):
                    for j in range(3):
                        block[i, j] += weight[r] * P * axes[r, 0, i] * axes[r, 0, j]
