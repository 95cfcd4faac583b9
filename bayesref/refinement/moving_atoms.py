"""Atoms of a state whose places are inferred from a series.

d_s(Δx) = [F_atoms(x + Δx) + solvent - F_0] e^{-iφ_0} k A D        solvent as at Δx = 0
log p(Δx) = Σ log Normal(Δx; 0, σ) + restraints of the moved structure (page)
"""

from dataclasses import dataclass, replace

import torch

from bayesref._checks import InputError
from bayesref.crystal.atoms import Crystal
from bayesref.refinement.priors import energy
from bayesref.restraints.restraints import Restraints
from bayesref.structure_factors.calculate import structure_factors
from bayesref.structure_factors.plan import Plan


@dataclass(frozen=True, eq=False)
class MovingAtoms:
    """Some atoms of one state.

    Attributes
    ----------
    crystal : of the state, where nothing has moved
    rows : (n,), atoms that move
    plan : of its structure factors
    rest : (hkl,) complex, what is added to F_atoms: solvent - F_0
    turn : (hkl,) complex, e^{-iφ_0} k A D
    restraints : of all atoms, or None
    """

    crystal: Crystal
    rows: torch.Tensor
    plan: Plan
    rest: torch.Tensor
    turn: torch.Tensor
    restraints: Restraints | None

    def __len__(self) -> int:
        return len(self.rows)

    def moved(self, shift: torch.Tensor) -> torch.Tensor:
        """Coordinates (atom, 3), Å, for shifts (n, 3)."""
        return self.crystal.xyz.index_add(0, self.rows, shift)

    def change(self, shift: torch.Tensor) -> torch.Tensor:
        """d_s, (hkl,) complex."""
        F = structure_factors(replace(self.crystal, xyz=self.moved(shift)), plan=self.plan)
        return (F.to(torch.complex128) + self.rest) * self.turn

    def log_geometry(self, shift: torch.Tensor) -> torch.Tensor:
        """log p of the restraints of the moved structure, less that of the given one; zero where there are none."""
        if self.restraints is None:
            return shift.sum() * 0
        return energy(self.moved(shift), self.restraints) - energy(self.crystal.xyz, self.restraints)


def atoms_near(crystal: Crystal, residues: str, radius: float) -> torch.Tensor:
    """Rows of the atoms within `radius` Å of residues named "HC4" or placed "A/69", in one asymmetric unit.

    Raises
    ------
    InputError : no such residue
    """

    def wanted(name: str) -> bool:
        chain, residue, *_ = name.split("/")
        kind, number = residue.split(" ")
        return residues in (kind, f"{chain}/{number}")

    centre = torch.tensor([wanted(n) for n in crystal.name])
    if not centre.any():
        known = sorted({n.split("/")[1].split(" ")[0] for n in crystal.name})
        raise InputError(
            f"The model has no residue {residues}; name one (of {', '.join(known[:12])}, ...) or give A/69."
        )
    near = torch.cdist(crystal.xyz, crystal.xyz[centre]).amin(1) <= radius
    return near.nonzero()[:, 0]
