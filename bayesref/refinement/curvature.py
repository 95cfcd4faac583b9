"""What the data say about each atom, and about pairs of neighbours: Gauss-Newton blocks from resolution shells.

    H_ij = Σ_h W_h Re[(∂F/∂p_i)* (∂F/∂p_j)],     p_i = (x, y, z, log B) of atom i,     F_i = q_i f_i exp(-B_i s²)

With phases at random, symmetry mates add up incoherently, and directions within a shell average over the sphere;
q = 2π|S| r, |S| = 1/d, r = x_i - x_j, r̂ its direction, j_n spherical Bessel functions:

    xyz, xyz      Σ_b W_b n F_i F_j (2π|S|)² [j₁(q)/q 1 - j₂(q) r̂ r̂ᵀ]           → (2π|S|)²/3 for i = j
    xyz, log B    Σ_b W_b n F_i F_j 2π|S| s² B_j j₁(q) r̂
    log B, log B  Σ_b W_b n F_i F_j s⁴ B_i B_j j₀(q)
    a, a          Σ_b W_b n F_i² s⁴ (8π² U)² 2/15           five elements of a shape, of one atom only
    W_h = -½ c² (∂²/∂G² + 1/G ∂/∂G) log p(y_h), centric -c² ∂²/∂G² log p(y_h),  c = ∂G/∂|F_atoms|,  n operators

Radial form after Agarwal (1978), Acta Cryst. A34, 791, and Steiner, Lebedev & Murshudov (2003), Acta Cryst. D59, 2114.
"""

import numpy as np
import scipy.sparse as sparse
import torch
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from bayesref.crystal.cell import hkl_stol2
from bayesref.refinement.atomic_model import of_atoms
from bayesref.refinement.priors import LOOSE, spread_of_B

N_SHELL = 24
FLOOR = 1e-6  # of the largest weight: a shell of noise must not subtract information


def shell_weights(target, z) -> tuple[np.ndarray, np.ndarray]:
    """s² and Σ_h W_h n of resolution shells, (shell,) each, from the work set at z."""
    atoms, data = target.atoms, target.data
    values = target.latents.unpack(z)
    with torch.no_grad():
        G, _ = target.expected(values)
        m = target.measured(z)
        size = _size_of_model(atoms, values, G)
    c = G / size.clamp(min=1e-6)
    bend = torch.where(
        data.asu.centric, -m.curvature_G, -0.5 * (m.curvature_G + m.slope_G / G.clamp(min=1e-12))
    )
    ops = atoms.crystal.spacegroup.operations()
    n = len(ops.sym_ops) * len(ops.cen_ops) ** 2  # centring adds coherently
    W = torch.where(data.free, torch.zeros_like(c), c**2 * bend) * n
    order = atoms.stol2.argsort()
    s2, total = [], []
    for rows in order.tensor_split(min(N_SHELL, max(1, len(order) // 30))):
        s2.append(float(atoms.stol2[rows].mean()))
        total.append(float(W[rows].sum()))
    sums = np.array(total)
    return np.array(s2), np.maximum(sums, FLOOR * np.abs(sums).max())


def _size_of_model(atoms, values, G):
    """|F_atoms + solvent| on the scale of the atoms: what G is proportional to."""
    F = atoms.F_atoms(*of_atoms(values))
    if "k_sol" in values:
        F = F + values["k_sol"] * torch.exp(-values["B_sol"] * atoms.stol2) * atoms.F_mask
    return F.abs()


def _amplitudes(crystal, factors, s2):
    """F_j at each shell, (atom, shell)."""
    f = factors.f0(torch.from_numpy(s2)).T[factors.index]  # (atom, shell)
    B, q = crystal.B.detach(), crystal.occupancy.detach()
    return (q[:, None] * f * torch.exp(-B[:, None] * torch.from_numpy(s2))).numpy()


def data_blocks(target, z, cutoff: float):
    """Information about (x, y, z, log B) of the atoms: diagonal (atom, 4, 4), pairs (pair, 2), blocks (pair, 4, 4).

    Where atoms are ellipsoids their shapes follow, and 4 is 9.
    `cutoff` is the distance, Å, up to which pairs count; 0 = no pairs.
    """
    s2, W = shell_weights(target, z)
    values = target.latents.unpack(z)
    crystal = target.atoms.with_parameters(*(None if v is None else v.detach() for v in of_atoms(values)))
    size = width(values)
    A = _amplitudes(crystal, target.atoms.factors, s2)
    k = 4 * np.pi * np.sqrt(s2)  # 2π|S|
    B = values["B"].detach().numpy()  # an atom's own, which is not all that it has in a rigid group
    diagonal = np.zeros((len(A), size, size))
    xx = (A**2 @ (W * k**2)) / 3
    diagonal[:, range(3), range(3)] = xx[:, None]
    diagonal[:, 3, 3] = (A**2 @ (W * s2**2)) * B**2
    diagonal[:, range(4, size), range(4, size)] = (2 / 15 * diagonal[:, 3, 3])[:, None]
    if cutoff <= 0:
        return diagonal, np.zeros((0, 2), dtype=np.int64), np.zeros((0, size, size))
    xyz = crystal.xyz.numpy()
    pairs = cKDTree(xyz).query_pairs(cutoff, output_type="ndarray")
    i, j = pairs.T
    r = xyz[i] - xyz[j]
    length = np.linalg.norm(r, axis=1).clip(1e-3)
    unit = r / length[:, None]
    j0, j1, j1q, j2 = _bessel(length[:, None] * k)
    P = A[i] * A[j] * W  # (pair, shell)
    blocks = np.zeros((len(pairs), size, size))
    same, along = (P * j1q) @ k**2, (P * j2) @ k**2
    blocks[:, :3, :3] = (
        same[:, None, None] * np.eye(3) - along[:, None, None] * unit[:, :, None] * unit[:, None, :]
    )
    mixed = (P * j1) @ (k * s2)
    blocks[:, :3, 3] = (mixed * B[j])[:, None] * unit
    blocks[:, 3, :3] = -(mixed * B[i])[:, None] * unit
    blocks[:, 3, 3] = ((P * j0) @ s2**2) * B[i] * B[j]
    return diagonal, pairs, blocks


def _bessel(q):
    """j₀, j₁, j₁/q, j₂ of q > 0."""
    small = q < 0.02
    safe = np.where(small, 1.0, q)
    sin, cos = np.sin(safe), np.cos(safe)
    j0 = np.where(small, 1 - q**2 / 6, sin / safe)
    j1q = np.where(small, 1 / 3 - q**2 / 30, (sin / safe - cos) / safe**2)
    j2 = np.where(small, q**2 / 15, 3 * j1q - j0)
    return j0, j1q * q, j1q, j2


def precision(target, z, cutoff: float) -> sparse.csc_matrix:
    """Posterior precision of (x, y, z, log B) of all atoms, (4 atom, 4 atom): data and restraints; 9 with shapes."""
    diagonal, pairs, blocks = data_blocks(target, z, cutoff)
    n, size = diagonal.shape[:2]
    here = np.arange(n)
    rows = np.concatenate([here, pairs[:, 0], pairs[:, 1]])
    columns = np.concatenate([here, pairs[:, 1], pairs[:, 0]])
    values = np.concatenate([diagonal, blocks, blocks.transpose(0, 2, 1)])
    a = np.arange(size)
    shape = (len(rows), size, size)
    row = np.broadcast_to((size * rows)[:, None, None] + a[:, None], shape).ravel()
    column = np.broadcast_to((size * columns)[:, None, None] + a, shape).ravel()
    data = sparse.csc_matrix((values.ravel(), (row, column)), (size * n, size * n))
    data.eliminate_zeros()
    return (data + prior_precision(target, z)).tocsc()


def prior_precision(target, z) -> sparse.csc_matrix:
    """Of the restraints of coordinates and of B factors, in the order of `precision`."""
    values = target.latents.unpack(z)
    xyz, B = values["xyz"].detach(), values["B"].detach()
    restraints, hydrogens = target.atoms.restraints, target.atoms.hydrogens
    n, size = len(xyz), width(values)
    X = restraints.hessian(xyz.numpy())
    if hydrogens is not None:
        X = X + hydrogens.hessian(xyz.numpy())

    def place(m, index):
        m = m.tocoo()
        return sparse.coo_matrix((m.data, (index[m.row], index[m.col])), (size * n, size * n))

    flat = np.arange(size * n).reshape(n, size)
    loose = flat[target.atoms.loose.numpy(), :3].ravel()
    held = sparse.coo_matrix((np.full(len(loose), LOOSE**-2), (loose, loose)), (size * n, size * n))
    if size > 4:
        own = place(ellipsoid_precision(target.atoms, B, values["A"].detach()), flat[:, 3:].ravel())
    else:
        sizes = restraints.hessian_B(B.numpy()) / target.atoms.temperature[1]
        own = place(sizes + sparse.diags(spread_of_B(restraints, n).numpy() ** -2), flat[:, 3])
    return (place(X / target.atoms.temperature[0], flat[:, :3].ravel()) + own + held).tocsc()


def ellipsoid_precision(atoms, B, A) -> sparse.csc_matrix:
    """Of the prior of (log B, A), (6 atom, 6 atom): sizes, shapes, rigid bonds."""
    n, shapes = len(B), atoms.shape_restraints
    first, rest = sparse.diags([1.0] + [0.0] * 5), sparse.diags([0.0] + [1.0] * 5)
    width2 = atoms.displacements.width2
    level = sparse.diags(spread_of_B(atoms.restraints, n).numpy() ** -2)
    sizes = atoms.restraints.hessian_B() / atoms.temperature[1] + level
    total = sparse.kron(sizes, first) + sparse.kron(shapes.hessian_shape(n), rest) / width2[0]
    return (total + shapes.hessian_rigid(B, A) / width2[1]).tocsc()


def width(values) -> int:
    """Parameters of one atom: x, y, z, log B, and five of its shape where there are any."""
    return 9 if "A" in values and values["A"].numel() else 4


class Factor:
    """P = L Lᵀ up to a permutation, of a sparse positive definite matrix.

    Attributes
    ----------
    solve : P⁻¹ times a vector
    log_det : log det P
    """

    def __init__(self, P: sparse.csc_matrix):
        self.lu = splu(P, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        self.pivots = self.lu.U.diagonal()
        if (self.pivots <= 0).any():
            raise np.linalg.LinAlgError("The precision is not positive definite.")
        self.solve = self.lu.solve
        self.log_det = float(np.log(self.pivots).sum())

    def draw(self, n: int, generator: np.random.Generator) -> np.ndarray:
        """Draws of Normal(0, P⁻¹), (n, size): P = Πᵀ L D Lᵀ Π, so x = Πᵀ L⁻ᵀ D^-½ e."""
        e = generator.standard_normal((len(self.pivots), n)) / np.sqrt(self.pivots)[:, None]
        x = sparse.linalg.spsolve_triangular(self.lu.L.T.tocsr(), e, lower=False, unit_diagonal=True)
        return x[self.lu.perm_c].T


def resolution_cutoff(atoms) -> float:
    """Å: beyond about 1.5 d_min the data see two atoms apart."""
    dmin = 0.5 / float(hkl_stol2(atoms.plan.hkl, atoms.crystal.cell).max()) ** 0.5
    return min(6.0, max(3.0, 1.5 * dmin))
