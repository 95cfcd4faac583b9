"""Riding hydrogens of a refinement: they scatter and may touch, and have no parameters of their own.

    x_H = x_parent + offset,   B_H = RATIO B_parent,   q_H = q_parent

Offsets come from the descriptions of the residues (`restraints.hydrogens`) and are placed anew after each cycle.
Slopes of what hydrogens scatter, and of what they touch, go to their parents. Those that a description cannot place (of
water, of hydroxyl groups that turn) are left out: their density is spread over a circle.
B ratio of methine and methylene hydrogens: Sheldrick & Schneider (1997), Methods Enzymol. 277, 319.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import gemmi
import numpy as np
import torch
from scipy import sparse

from bayesref._checks import InputError
from bayesref.crystal.atoms import Crystal
from bayesref.restraints.hydrogens import Riding, add_riding, refresh_offsets
from bayesref.restraints.restraints import Restraints, build_restraints

RATIO = 1.2
ELEMENTS = ("H", "D")
SILENT = ("bonds", "angles", "torsions", "chirals", "planes")  # tables without hydrogens


@dataclass(frozen=True, eq=False)
class RidingHydrogens:
    """Hydrogens of a model without any.

    Attributes
    ----------
    riding : where they are
    touch : contacts of at least one hydrogen, over all atoms; None where they touch nothing
    monlib, unrestrained : what they are placed by
    """

    riding: Riding
    touch: Restraints | None
    monlib: gemmi.MonLib
    unrestrained: tuple[str, ...] = ()

    @classmethod
    def of(cls, crystal: Crystal, monlib, unrestrained=(), contacts: bool = False) -> "RidingHydrogens":
        """For a crystal without hydrogens; with `contacts` they keep their distance from other atoms.

        Raises
        ------
        InputError
            Where a residue has no description.
        """
        riding = add_riding(crystal, monlib, unrestrained)
        if [riding.crystal.name[i] for i in riding.heavy.tolist()] != list(crystal.name):
            raise InputError("The model has hydrogens of its own; take them out before others ride.")
        touch = None
        if contacts:
            full = build_restraints(riding.crystal, monlib, unrestrained=unrestrained, hydrogens="riding")
            none = torch.zeros(0, dtype=torch.int64)
            touch = _of_hydrogens(
                replace(full, **{k: getattr(full, k).pick(none) for k in SILENT}), riding.hydrogen
            )
        return cls(riding, touch, monlib, tuple(unrestrained))

    def __len__(self) -> int:
        return len(self.riding.hydrogen)

    def crystal(self, heavy: Crystal) -> Crystal:
        """All that scatters, given the atoms that are refined; differentiable."""
        r = self.riding
        ratio = torch.ones(len(r.crystal), dtype=heavy.B.dtype)
        ratio[r.hydrogen] = RATIO
        U = None
        anisotropic = torch.zeros(len(r.crystal), dtype=torch.bool)
        if heavy.U is not None:
            U = heavy.U.new_zeros(*heavy.U.shape[:-2], len(r.crystal), 6).index_copy(-2, r.heavy, heavy.U)
            anisotropic[r.heavy] = heavy.anisotropic
        return replace(
            r.crystal, xyz=r.place(heavy.xyz), B=r.spread(heavy.B) * ratio, U=U, anisotropic=anisotropic,
            occupancy=r.spread(heavy.occupancy),
        )  # fmt: skip

    def log_density(self, xyz: torch.Tensor, energy: Callable) -> torch.Tensor:
        """log p of the contacts of hydrogens whose parents are at `xyz` (heavy, 3), by `energy(xyz, restraints)`."""
        if self.touch is None:
            return xyz.new_zeros(())
        return energy(self.riding.place(xyz).contiguous(), self.touch)

    def hessian(self, xyz: np.ndarray) -> sparse.csc_matrix:
        """Its Gauss-Newton Hessian, (3 heavy, 3 heavy)."""
        if self.touch is None:
            return sparse.csc_matrix((3 * len(xyz), 3 * len(xyz)))
        full = self.riding.place(torch.from_numpy(xyz)).numpy()
        return self.riding.fold(self.touch.hessian(full))

    def moved(self, heavy: Crystal) -> "RidingHydrogens":
        """Placed anew around atoms that have moved, with a new list of contacts."""
        riding = refresh_offsets(self.riding, heavy.xyz, self.monlib, self.unrestrained)
        touch = self.touch
        if touch is not None:
            touch = _of_hydrogens(touch.refresh(riding.place(heavy.xyz)), riding.hydrogen)
        return replace(self, riding=riding, touch=touch)


def _of_hydrogens(restraints: Restraints, hydrogen: torch.Tensor) -> Restraints:
    """The restraints with those contacts only that have a hydrogen: others have contacts already."""
    some = torch.isin(restraints.nonbonded.atoms, hydrogen).any(1)
    return replace(restraints, nonbonded=restraints.nonbonded.pick(some))


def without_hydrogens(crystal: Crystal) -> Crystal:
    """The crystal without hydrogens, its gemmi structure too."""
    keep = torch.tensor([s not in ELEMENTS for s in crystal.scatterer])
    if bool(keep.all()):
        return crystal
    structure = None
    if crystal.structure is not None:
        structure = crystal.structure.clone()
        structure.remove_hydrogens()
    return replace(crystal.select(keep), structure=structure)
