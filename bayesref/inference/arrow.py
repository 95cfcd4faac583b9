"""Precision matrices of many images: a small block for each, and one for all that they share.

        ⎡A₁        C₁⎤            A_j (k, k): weights of image j      C_j (k, m): with the shared weights
    H = ⎢   A₂     C₂⎥            G (m, m): shared weights, error model
        ⎣C₁ᵀ C₂ᵀ ..G ⎦

    H = L Lᵀ,   A_j = L_j L_jᵀ,   Y_j = L_j⁻¹ C_j,   L_s L_sᵀ = G - Σ_j Y_jᵀ Y_j

Images are coupled through the reflections they share as well; with thousands of images each shares its reflections
with a thousand others, and what one of them says about another is lost in the sum. Memory and time are linear in
the number of images, where a full matrix takes its square.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class ArrowRoot:
    """R with R Rᵀ = H⁻¹, applied without being formed.

    Attributes
    ----------
    local : (image, k) int64, places of the images' weights
    shared : (m,) int64, places of all others
    L, Y : (image, k, k) and (image, k, m)
    L_s : (m, m)
    transposed : whether this is Rᵀ
    """

    local: torch.Tensor
    shared: torch.Tensor
    L: torch.Tensor
    Y: torch.Tensor
    L_s: torch.Tensor
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        n = self.local.numel() + len(self.shared)
        return n, n

    @property
    def T(self) -> "ArrowRoot":
        """Rᵀ."""
        return ArrowRoot(self.local, self.shared, self.L, self.Y, self.L_s, not self.transposed)

    def __matmul__(self, x: torch.Tensor) -> torch.Tensor:
        """R x or Rᵀ x, for x (n,) or (n, d)."""
        flat = x[:, None] if x.ndim == 1 else x
        u, s = flat[self.local], flat[self.shared]  # (image, k, d), (m, d)
        if self.transposed:  # L y = x
            u = torch.linalg.solve_triangular(self.L, u, upper=False)
            s = s - torch.einsum("jkm,jkd->md", self.Y, u)
            s = torch.linalg.solve_triangular(self.L_s, s, upper=False)
        else:  # Lᵀ y = x
            s = torch.linalg.solve_triangular(self.L_s.T, s, upper=True)
            u = u - torch.einsum("jkm,md->jkd", self.Y, s)
            u = torch.linalg.solve_triangular(self.L.mT, u, upper=True)
        out = torch.empty_like(flat)
        out[self.local], out[self.shared] = u, s
        return out[:, 0] if x.ndim == 1 else out

    @property
    def log_det(self) -> torch.Tensor:
        """log |det R|."""
        return -(self.L.diagonal(dim1=1, dim2=2).log().sum() + self.L_s.diagonal().log().sum())


@dataclass(frozen=True, eq=False)
class Arrow:
    """H, see the module's text.

    Attributes
    ----------
    local : (image, k) int64, places of the images' weights
    shared : (m,) int64, places of all others
    A, C, G : (image, k, k), (image, k, m), (m, m)
    """

    local: torch.Tensor
    shared: torch.Tensor
    A: torch.Tensor
    C: torch.Tensor
    G: torch.Tensor

    def __matmul__(self, x: torch.Tensor) -> torch.Tensor:
        """H x, (n,)."""
        u, s = x[self.local], x[self.shared]
        out = torch.empty_like(x)
        out[self.local] = torch.einsum("jab,jb->ja", self.A, u) + self.C @ s
        out[self.shared] = self.G @ s + torch.einsum("jkm,jk->m", self.C, u)
        return out

    def scaled(self, f: torch.Tensor) -> "Arrow":
        """diag(f) H diag(f)."""
        u, s = f[self.local], f[self.shared]
        return Arrow(
            self.local, self.shared, self.A * u[:, :, None] * u[:, None], self.C * u[:, :, None] * s,
            self.G * s[:, None] * s,
        )  # fmt: skip

    def plus_identity(self) -> "Arrow":
        """H + 1: the unit prior of whitened weights."""
        k, m = self.local.shape[1], len(self.shared)
        eye = torch.eye(max(k, m), dtype=self.A.dtype)
        return Arrow(self.local, self.shared, self.A + eye[:k, :k], self.C, self.G + eye[:m, :m])

    def bordered(self, places: torch.Tensor, rows: torch.Tensor) -> "Arrow":
        """H with the rows (r, n) of further shared latents at `places` (r,); `rows` has a column for every latent."""
        columns = rows[:, self.local].movedim(0, 2)  # (image, k, r)
        with_shared = rows[:, self.shared]
        own = rows[:, places]
        G = torch.cat(
            [torch.cat([self.G, with_shared.T], 1), torch.cat([with_shared, 0.5 * (own + own.T)], 1)]
        )
        return Arrow(self.local, torch.cat([self.shared, places]), self.A, torch.cat([self.C, columns], 2), G)

    def root(self) -> ArrowRoot:
        """R with R Rᵀ = H⁻¹; blocks that are not positive definite have their eigenvalues made so."""
        L = torch.linalg.cholesky(_positive(self.A))
        Y = torch.linalg.solve_triangular(L, self.C, upper=False)
        S = self.G - torch.einsum("jkm,jkn->mn", Y, Y)
        return ArrowRoot(self.local, self.shared, L, Y, torch.linalg.cholesky(_positive(S)))

    def variance(self) -> torch.Tensor:
        """Diagonal of H⁻¹, (n,)."""
        R = self.root()
        eye = torch.eye(len(self.shared), dtype=self.A.dtype)
        to_shared = torch.linalg.solve_triangular(R.L_s, eye, upper=False)  # L_s⁻¹
        inverse = torch.linalg.solve_triangular(R.L, torch.eye(R.L.shape[1], dtype=eye.dtype), upper=False)
        through = inverse.mT @ R.Y @ to_shared.T  # L_j⁻ᵀ Y_j L_s⁻ᵀ
        out = torch.empty(R.shape[0], dtype=self.A.dtype)
        out[self.local] = inverse.square().sum(1) + through.square().sum(2)
        out[self.shared] = to_shared.square().sum(0)
        return out


def _positive(H: torch.Tensor) -> torch.Tensor:
    """The matrices (..., n, n); where one is not positive definite, all with positive eigenvalues instead."""
    H = 0.5 * (H + H.mT)
    if not bool(torch.linalg.cholesky_ex(H)[1].any()):
        return H
    values, vectors = torch.linalg.eigh(H)
    values = values.abs()
    values = values.maximum(1e-8 * values.amax(-1, keepdim=True))
    return (vectors * values[..., None, :]) @ vectors.mT
