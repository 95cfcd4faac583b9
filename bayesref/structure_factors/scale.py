"""From atoms and mask to the amplitude that is compared with data.

    F_model = k(h) [F_atoms + k_sol exp(-B_sol s²) F_mask]                    flat or smooth mask
    F_model = k(h) F_atoms [1 - k_sol exp(-B_sol s²)]                         Babinet
    k(h)    = k exp(-sᵀ B s / 4)        s = h O⁻¹, B a symmetric tensor that obeys the point group, Å²

k_sol is the mean electron density of the solvent, electrons / Å³ (0.33 water, up to 0.45 with salt).
"""

import gemmi
import torch

from bayesref.crystal.atoms import symmetric
from bayesref.crystal.cell import fractionalization, hkl_stol2, orthogonalization, reciprocal_vectors
from bayesref.crystal.operators import operators


def add_solvent(
    F_atoms: torch.Tensor,
    F_mask: torch.Tensor,
    stol2: torch.Tensor,
    k_sol: torch.Tensor | float,
    B_sol: torch.Tensor | float,
) -> torch.Tensor:
    """F_atoms + k_sol exp(-B_sol s²) F_mask, (..., hkl)."""
    return F_atoms + k_sol * torch.exp(-torch.as_tensor(B_sol) * stol2) * F_mask


def babinet(
    F_atoms: torch.Tensor, stol2: torch.Tensor, k_sol: torch.Tensor | float, B_sol: torch.Tensor | float
) -> torch.Tensor:
    """F_atoms (1 - k_sol exp(-B_sol s²)), (..., hkl): the solvent as the complement of the molecule, blurred."""
    return F_atoms * (1 - k_sol * torch.exp(-torch.as_tensor(B_sol) * stol2))


def anisotropic_scale(B: torch.Tensor, hkl: torch.Tensor, cell: gemmi.UnitCell) -> torch.Tensor:
    """exp(-sᵀ B s / 4), (..., hkl), for B (..., 6) in Å², order 11 22 33 12 13 23, Cartesian."""
    s = reciprocal_vectors(hkl, cell)
    return torch.exp(-torch.einsum("hx,...xy,hy->...h", s, symmetric(B.double()), s) / 4)


def symmetrize(B: torch.Tensor, cell: gemmi.UnitCell, spacegroup: gemmi.SpaceGroup) -> torch.Tensor:
    """The part of a Cartesian tensor (..., 6) that the point group leaves alone: the mean of R B Rᵀ."""
    O, inverse = orthogonalization(cell), fractionalization(cell)
    R = (O @ operators(spacegroup).rot.double() @ inverse).to(B.device)  # (op, 3, 3), Cartesian
    mean = torch.einsum("gxi,...ij,gyj->...xy", R, symmetric(B.double()), R) / len(R)
    return torch.stack([mean[..., i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))], -1)


def model_factors(
    F_atoms: torch.Tensor,
    F_mask: torch.Tensor,
    hkl: torch.Tensor,
    cell: gemmi.UnitCell,
    k_sol: torch.Tensor | float = 0.35,
    B_sol: torch.Tensor | float = 46.0,
    k: torch.Tensor | float = 1.0,
    B_aniso: torch.Tensor | None = None,
) -> torch.Tensor:
    """k(h) [F_atoms + k_sol exp(-B_sol s²) F_mask], (..., hkl); the defaults are typical of proteins."""
    F = k * add_solvent(F_atoms, F_mask, hkl_stol2(hkl, cell), k_sol, B_sol)
    return F if B_aniso is None else F * anisotropic_scale(B_aniso, hkl, cell)
