"""A Gaussian of many atoms and a few parameters that all of them feel, and of one mode whose width is its own.

    (a, g) ~ Normal(0, H⁻¹),   H = [[P, C], [Cᵀ, Q]]        a: of atoms, P sparse;  g: scale, solvent, conformers
    g ~ Normal(0, S⁻¹),  S = Q - Cᵀ P⁻¹ C,    a | g ~ Normal(-P⁻¹ C g, P⁻¹)
    x = x₀ + (v - 1) w (cᵀ x₀),   cᵀ H⁻¹ c = 1,  w = H⁻¹ c   the mode cᵀ x with standard deviation v in place of 1

so that Cov x = H⁻¹ + (v² - 1) w wᵀ and Cov⁻¹ x = H + (v⁻² - 1) c cᵀ.
"""

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sparse
import torch

from bayesref.inference.curvature import inverse_root
from bayesref.refinement.curvature import Factor


@dataclass(frozen=True, eq=False)
class StructuredGaussian:
    """Normal law of a vector x = (a, g), (row,), about zero.

    Attributes
    ----------
    P : sparse (atom row, atom row)
    C, Q : (atom row, global), (global, global)
    factor : of P
    coupling : (atom row, global), P⁻¹ C
    root : (global, global), L with L Lᵀ = S⁻¹
    read, along : (row,), c and w; zero where no mode is set apart
    width : v
    """

    P: sparse.csc_matrix
    C: np.ndarray
    Q: np.ndarray
    factor: Factor
    coupling: np.ndarray
    root: np.ndarray
    read: np.ndarray
    along: np.ndarray
    width: float = 1.0

    @classmethod
    def of(cls, P, C, Q, factor: Factor | None = None) -> "StructuredGaussian":
        """From the blocks of H."""
        factor = Factor(P) if factor is None else factor
        coupling = factor.solve(np.ascontiguousarray(C)) if C.any() else np.zeros_like(C)
        root, none = inverse_root(torch.from_numpy(Q - C.T @ coupling)), np.zeros(P.shape[0] + len(Q))
        return cls(P, C, Q, factor, coupling, np.asarray(root), none, none)

    @property
    def n_atom_rows(self) -> int:
        return self.P.shape[0]

    def with_mode(self, direction: np.ndarray) -> "StructuredGaussian":
        """The same law with the mode `direction`ᵀ x set apart, (row,); its length does not matter."""
        along = self._covariance(direction)
        size = float(direction @ along) ** 0.5
        return replace(self, read=direction / size, along=along / size, width=1.0)

    def scaled(self, factors: np.ndarray) -> "StructuredGaussian":
        """The law of Λ x, Λ the diagonal of `factors`, (atom row,); g as they are."""
        inverse = sparse.diags(1 / factors)
        P, C = (inverse @ self.P @ inverse).tocsc(), self.C / factors[:, None]
        both = np.concatenate([factors, np.ones(len(self.Q))])
        return replace(
            self, P=P, C=C, factor=Factor(P), coupling=self.coupling * factors[:, None],
            read=self.read / both, along=self.along * both,
        )  # fmt: skip

    def draw(self, n: int, seed: int = 0) -> np.ndarray:
        """Draws of x, (row, n)."""
        g = torch.Generator().manual_seed(seed)
        dg = self.root @ torch.randn(len(self.Q), n, generator=g, dtype=torch.float64).numpy()
        da = self.factor.draw(n, np.random.default_rng(seed)).T - self.coupling @ dg
        x = np.concatenate([da, dg])
        return x + (self.width - 1) * np.outer(self.along, self.read @ x)

    def covariance(self, x: np.ndarray) -> np.ndarray:
        """Cov x times vectors, (row,) or (row, n)."""
        out = self._covariance(x)
        return out + (self.width**2 - 1) * np.multiply.outer(self.along, self.along @ x)

    def precision(self, x: np.ndarray) -> np.ndarray:
        """Its inverse times vectors, (row,) or (row, n)."""
        a, g = x[: self.n_atom_rows], x[self.n_atom_rows :]
        out = np.concatenate([self.P @ a + self.C @ g, self.C.T @ a + self.Q @ g])
        return out + (self.width**-2 - 1) * np.multiply.outer(self.read, self.read @ x)

    def _covariance(self, x):
        """H⁻¹ x."""
        a, g = x[: self.n_atom_rows], x[self.n_atom_rows :]
        below = self.root @ (self.root.T @ (g - self.coupling.T @ a))
        return np.concatenate([self.factor.solve(np.ascontiguousarray(a)) - self.coupling @ below, below])

    def dense_root(self) -> np.ndarray:
        """L with L Lᵀ = Cov x, (row, row): for small structures."""
        n, m = self.n_atom_rows, len(self.Q)
        inverse = self.factor.solve(np.eye(n))
        L = np.zeros((n + m, n + m))
        L[:n, :n] = np.linalg.cholesky(0.5 * (inverse + inverse.T))
        L[:n, n:] = -self.coupling @ self.root
        L[n:, n:] = self.root
        return L + (self.width - 1) * np.outer(self.along, self.read @ L)
