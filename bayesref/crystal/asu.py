"""Unique reflections: the rows that posterior amplitudes belong to.

    ε_h = number of symmetry operators (centring left out) that map h to h        `epsilon`
    h is centric where an operator maps h to -h                                   `centric`

Symmetry comes from gemmi. With several datasets kept apart, one reflection has one row per dataset.
"""

from dataclasses import dataclass

import gemmi
import torch


@dataclass(frozen=True)
class ReciprocalASU:
    """Unique reflections, one row each, sorted by (dataset_id, h, k, l).

    Attributes
    ----------
    hkl : (hkl, 3) int64, inside gemmi's reciprocal asymmetric unit; with `anomalous`, the minus mate of an
        acentric pair is kept as its own row with the negated indices.
    epsilon : (hkl,) float64
    centric : (hkl,) bool
    dHKL : (hkl,) float64, Å
    dataset_id : (hkl,) int64, zeros unless datasets are merged separately
    cell : gemmi.UnitCell
    spacegroup : gemmi.SpaceGroup
    anomalous : bool, Friedel mates kept apart
    """

    hkl: torch.Tensor
    epsilon: torch.Tensor
    centric: torch.Tensor
    dHKL: torch.Tensor
    dataset_id: torch.Tensor
    cell: gemmi.UnitCell
    spacegroup: gemmi.SpaceGroup
    anomalous: bool = False

    def __len__(self) -> int:
        return len(self.hkl)

    @property
    def stol2(self) -> torch.Tensor:
        """s² = 1/(4 d²), Å⁻², (hkl,)."""
        return 0.25 / self.dHKL**2

    @property
    def n_dataset(self) -> int:
        return int(self.dataset_id.max()) + 1 if len(self) else 0
