"""The unit cell as tensors.

    r = O x            Cartesian from fractional, Å        O upper triangular: a along x, b in the xy plane
    s = h O⁻¹          reciprocal vector, Å⁻¹               |s| = 1/d
    s² = |h O⁻¹|² / 4  = 1 / (4 d²)                         `stol2`

The axes are those of the PDB (and of gemmi).
"""

import gemmi
import torch


def orthogonalization(cell: gemmi.UnitCell) -> torch.Tensor:
    """O with xyz = O frac, (3, 3) float64, Å."""
    return torch.tensor(cell.orth.mat.tolist(), dtype=torch.float64)


def fractionalization(cell: gemmi.UnitCell) -> torch.Tensor:
    """O⁻¹ with frac = O⁻¹ xyz, (3, 3) float64, Å⁻¹."""
    return torch.tensor(cell.frac.mat.tolist(), dtype=torch.float64)


def reciprocal_vectors(hkl: torch.Tensor, cell: gemmi.UnitCell) -> torch.Tensor:
    """Cartesian s = h O⁻¹, (..., 3) float64, Å⁻¹, for indices `hkl` (..., 3)."""
    return hkl.to(torch.float64) @ fractionalization(cell).to(hkl.device)


def hkl_stol2(hkl: torch.Tensor, cell: gemmi.UnitCell) -> torch.Tensor:
    """s² = 1/(4 d²), (...) float64, Å⁻², for indices `hkl` (..., 3)."""
    return reciprocal_vectors(hkl, cell).square().sum(-1) / 4
