"""Bulk solvent: a flat mask of the volume that no atom fills.

    F_mask(h) = V/N Σ_n m(n) e^{2πi h·n}          m = 1 in the solvent, 0 within r_vdw + probe of an atom, then the
                                                   solvent grown back by `shrink` into that region

The mask is gemmi's SolventMasker on the whole cell (Jiang & Brünger, 1994, J. Mol. Biol. 243, 100). It has no
derivative; it is formed again where an atom has moved further than a tolerance. `solvent_smooth` has derivatives.
"""

from typing import Literal

import gemmi
import numpy as np
import torch

from bayesref._checks import InputError
from bayesref.crystal.atoms import Crystal
from bayesref.crystal.cell import hkl_stol2
from bayesref.crystal.operators import Operators
from bayesref.structure_factors.transform import Gather, cell_transform

Radii = Literal["cctbx", "vdw", "refmac"]
_RADII = {
    "cctbx": gemmi.AtomicRadiiSet.Cctbx,
    "vdw": gemmi.AtomicRadiiSet.VanDerWaals,
    "refmac": gemmi.AtomicRadiiSet.Refmac,
}
# Å: coarser surfaces are rough at any resolution, finer ones agree no better with other programs
SPACING_MIN, SPACING_MAX, SAMPLES = 0.3, 0.5, 4.0
IDENTITY = Operators(
    torch.eye(3, dtype=torch.int64)[None], torch.zeros((1, 3), dtype=torch.int64)
)  # the mask covers the whole cell


class SolventMask:
    """F_mask of a crystal, remembered until atoms move.

    Parameters
    ----------
    hkl : (hkl, 3) int64
    radii : "cctbx" (probe 1.1, shrink 0.9 Å), "vdw" (1.0, 1.1) or "refmac" (1.0, 0.8)
    probe, shrink : Å, instead of those of the set
    spacing : Å of the mask's grid; by default d_min / 4 between 0.3 and 0.5 Å
    tolerance : Å, how far an atom may move before the mask is formed again
    """

    def __init__(
        self,
        hkl: torch.Tensor,
        radii: Radii = "cctbx",
        probe: float | None = None,
        shrink: float | None = None,
        spacing: float | None = None,
        tolerance: float = 0.1,
    ):
        if radii not in _RADII:
            raise InputError(f"Unknown radii {radii!r}; choose from {', '.join(_RADII)}.")
        self.hkl, self.spacing, self.tolerance = hkl, spacing, tolerance
        self.masker = gemmi.SolventMasker(_RADII[radii])
        if probe is not None:
            self.masker.rprobe = probe
        if shrink is not None:
            self.masker.rshrink = shrink
        self._xyz: torch.Tensor | None = None
        self._F: torch.Tensor | None = None

    def __call__(self, crystal: Crystal) -> torch.Tensor:
        """F_mask, (..., hkl) complex128, one mask per state; no gradient."""
        xyz = crystal.xyz.detach()
        if self._F is None or self._moved(xyz):
            flat = xyz.reshape(-1, *xyz.shape[-2:])
            occupancy = crystal.occupancy.detach().expand(xyz.shape[:-1]).reshape(flat.shape[:-1])
            F = [self._transform(crystal, x, o) for x, o in zip(flat, occupancy, strict=True)]
            self._F = torch.stack(F).reshape(*xyz.shape[:-2], len(self.hkl)).to(xyz.device)
            self._xyz = xyz.clone()
        return self._F

    def _moved(self, xyz: torch.Tensor) -> bool:
        if self._xyz is None or self._xyz.shape != xyz.shape or self._xyz.device != xyz.device:
            return True
        return bool((xyz - self._xyz).norm(dim=-1).max() > self.tolerance)

    def _transform(self, crystal: Crystal, xyz: torch.Tensor, occupancy: torch.Tensor) -> torch.Tensor:
        hkl = self.hkl.cpu()
        mask = self.mask(crystal, xyz.cpu(), occupancy.cpu(), float(hkl_stol2(hkl, crystal.cell).max()))
        weight = torch.full((len(hkl),), crystal.cell.volume / mask.numel(), dtype=torch.float64)
        return cell_transform(mask, Gather.of(hkl, IDENTITY, weight, tuple(mask.shape)))

    def mask(
        self, crystal: Crystal, xyz: torch.Tensor, occupancy: torch.Tensor, stol2_max: float
    ) -> torch.Tensor:
        """1 in the solvent, 0 elsewhere, over the cell, (nx, ny, nz) float64."""
        d_min = 0.5 / stol2_max**0.5
        grid = gemmi.FloatGrid()
        grid.spacegroup = crystal.spacegroup
        grid.set_unit_cell(crystal.cell)
        grid.set_size_from_spacing(
            self.spacing or min(max(d_min / SAMPLES, SPACING_MIN), SPACING_MAX), gemmi.GridSizeRounding.Up
        )
        self.masker.put_mask_on_float_grid(grid, _model(crystal, xyz, occupancy))
        return torch.from_numpy(np.array(grid.array, dtype=np.float64))


def _model(crystal: Crystal, xyz: torch.Tensor, occupancy: torch.Tensor) -> gemmi.Model:
    """The atoms as a gemmi model of one residue: the masker reads elements, positions and occupancies."""
    residue = gemmi.Residue()
    residue.name = "UNK"
    for name, position, occ in zip(crystal.scatterer, xyz.tolist(), occupancy.tolist(), strict=True):
        atom = gemmi.Atom()
        atom.name, atom.element = name, gemmi.Element(name.rstrip("+-0123456789"))
        atom.pos, atom.occ = gemmi.Position(*position), occ
        residue.add_atom(atom)
    chain = gemmi.Chain("A")
    chain.add_residue(residue)
    model = gemmi.Model(1)
    model.add_chain(chain)
    return model
