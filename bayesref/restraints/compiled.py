"""Values and slopes of restraints, compiled: what `geometry` says in torch, for one model on a CPU.

Each function returns q (n,) and its slopes J (n, atoms, 3), dq_r = Σ_k J_rk · dx_k. The slope of log p is then
dlog p/dq times J, gathered by `add_slopes`; the Gauss-Newton Hessian is built of the blocks J_rk J_rlᵀ.
Slopes of torsions: Blondel and Karplus (1996), J. Comput. Chem. 17, 1132.
"""

import math

import numpy as np
from numba import njit

TINY = 1e-6  # Å, or Å² for cross products: shorter vectors have no direction, and the slope is zero


@njit(inline="always")
def cross(a, b, out):
    """out = a × b."""
    out[0] = a[1] * b[2] - a[2] * b[1]
    out[1] = a[2] * b[0] - a[0] * b[2]
    out[2] = a[0] * b[1] - a[1] * b[0]


@njit(inline="always")
def dot(a, b):
    """a · b."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(cache=True, nogil=True, error_model="numpy")
def distances(xyz, atoms, image, R, t):
    """Å from the first atom to the image of the second."""
    n = len(atoms)
    q, J = np.empty(n), np.zeros((n, 2, 3))
    v = np.empty(3)
    for r in range(n):
        a, b, m = xyz[atoms[r, 0]], xyz[atoms[r, 1]], image[r]
        for k in range(3):
            v[k] = -a[k] + (
                b[k] if m == 0 else t[m, k] + R[m, k, 0] * b[0] + R[m, k, 1] * b[1] + R[m, k, 2] * b[2]
            )
        d = math.sqrt(dot(v, v))
        q[r] = d
        if d < TINY:
            continue
        for k in range(3):
            v[k] /= d
            J[r, 0, k] = -v[k]
        for k in range(3):
            J[r, 1, k] = v[k] if m == 0 else R[m, 0, k] * v[0] + R[m, 1, k] * v[1] + R[m, 2, k] * v[2]
    return q, J


@njit(cache=True, nogil=True, error_model="numpy")
def angles(xyz, atoms):
    """Radians at the middle atom."""
    n = len(atoms)
    q, J = np.empty(n), np.zeros((n, 3, 3))
    u, v, w = np.empty(3), np.empty(3), np.empty(3)
    for r in range(n):
        a, b, c = xyz[atoms[r, 0]], xyz[atoms[r, 1]], xyz[atoms[r, 2]]
        for k in range(3):
            u[k], v[k] = a[k] - b[k], c[k] - b[k]
        cross(u, v, w)
        s, uu, vv, uv = math.sqrt(dot(w, w)), dot(u, u), dot(v, v), dot(u, v)
        q[r] = math.atan2(s, uv)
        if s < TINY:
            continue
        for k in range(3):
            J[r, 0, k] = (u[k] * uv / uu - v[k]) / s
            J[r, 2, k] = (v[k] * uv / vv - u[k]) / s
            J[r, 1, k] = -J[r, 0, k] - J[r, 2, k]
    return q, J


@njit(cache=True, nogil=True, error_model="numpy")
def torsions(xyz, atoms):
    """Radians about the middle bond."""
    n = len(atoms)
    q, J = np.zeros(n), np.zeros((n, 4, 3))
    f, g, h = np.empty(3), np.empty(3), np.empty(3)
    m, p = np.empty(3), np.empty(3)
    for r in range(n):
        i, j, k, l = xyz[atoms[r, 0]], xyz[atoms[r, 1]], xyz[atoms[r, 2]], xyz[atoms[r, 3]]
        for c in range(3):
            f[c], g[c], h[c] = j[c] - i[c], k[c] - j[c], l[c] - k[c]
        cross(f, g, m)
        cross(g, h, p)
        mm, pp, gg = dot(m, m), dot(p, p), math.sqrt(dot(g, g))
        if mm < TINY * TINY or pp < TINY * TINY or gg < TINY:
            continue
        q[r] = math.atan2(gg * dot(f, p), dot(m, p))
        fg, hg = dot(f, g) / (gg * gg), dot(h, g) / (gg * gg)
        for c in range(3):
            first, last = -gg * m[c] / mm, gg * p[c] / pp
            J[r, 0, c], J[r, 3, c] = first, last
            J[r, 1, c] = -(1 + fg) * first + hg * last
            J[r, 2, c] = fg * first - (1 + hg) * last
    return q, J


@njit(cache=True, nogil=True, error_model="numpy")
def volumes(xyz, atoms):
    """Å³, the triple product of the bonds of the first atom."""
    n = len(atoms)
    q, J = np.empty(n), np.empty((n, 4, 3))
    a, b, c = np.empty(3), np.empty(3), np.empty(3)
    for r in range(n):
        for k in range(3):
            o = xyz[atoms[r, 0], k]
            a[k], b[k], c[k] = xyz[atoms[r, 1], k] - o, xyz[atoms[r, 2], k] - o, xyz[atoms[r, 3], k] - o
        cross(b, c, J[r, 1])
        cross(c, a, J[r, 2])
        cross(a, b, J[r, 3])
        q[r] = dot(a, J[r, 1])
        for k in range(3):
            J[r, 0, k] = -J[r, 1, k] - J[r, 2, k] - J[r, 3, k]
    return q, J


@njit(cache=True, nogil=True, error_model="numpy")
def planes(xyz, atoms):
    """Σ of squared distances from the best plane (n,) Å², distances (n, most), axes (n, 3, 3) of the group.

    The first axis is the normal.
    """
    n, most = atoms.shape
    q, rest, axes = np.empty(n), np.zeros((n, most)), np.empty((n, 3, 3))
    centre, S = np.empty(3), np.empty((3, 3))
    for r in range(n):
        centre[:] = 0
        S[:] = 0
        size = 0
        for a in atoms[r]:
            if a >= 0:
                size += 1
                centre += xyz[a]
        centre /= size
        for a in atoms[r]:
            if a >= 0:
                for k in range(3):
                    for l in range(3):
                        S[k, l] += (xyz[a, k] - centre[k]) * (xyz[a, l] - centre[l])
        axes[r] = np.linalg.eigh(S)[1].T
        normal = axes[r, 0]
        q[r] = 0
        for k, a in enumerate(atoms[r]):
            if a >= 0:
                rest[r, k] = dot(normal, xyz[a]) - dot(normal, centre)
                q[r] += rest[r, k] ** 2
    return q, rest, axes


@njit(cache=True, nogil=True)
def add_slopes(out, atoms, J, weight):
    """out (atom, 3) += Σ over restraints weight (n,) · J (n, k, 3)."""
    n, width = atoms.shape
    for r in range(n):
        for k in range(width):
            for c in range(3):
                out[atoms[r, k], c] += weight[r] * J[r, k, c]


@njit(cache=True, nogil=True)
def add_plane_slopes(out, atoms, rest, axes, weight):
    """out (atom, 3) += Σ over planes weight (n,) · distance · normal."""
    n, width = atoms.shape
    for r in range(n):
        for k in range(width):
            a = atoms[r, k]
            if a >= 0:
                for c in range(3):
                    out[a, c] += weight[r] * rest[r, k] * axes[r, 0, c]
