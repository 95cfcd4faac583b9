"""Hydrogens that ride on their parents.

    x_H = x_parent + offset

gemmi places them by the descriptions of their residues; the offsets are held while the parents move a little, and
placed anew by `refresh_offsets`.
"""

from dataclasses import dataclass, replace

import gemmi
import numpy as np
import torch
from scipy import sparse

from bayesref._checks import InputError
from bayesref.crystal.atoms import Crystal, crystal_from_gemmi
from bayesref.restraints.topology import check_described, prepared_structure


@dataclass(frozen=True)
class Riding:
    """A model with hydrogens and how they follow from the model without.

    Attributes
    ----------
    crystal : with hydrogens
    heavy : (atom - hydrogen,) rows of `crystal` that are the atoms of the model without hydrogens, in its order
    hydrogen : (hydrogen,) rows of `crystal`
    parent : (hydrogen,) rows of the parents in the model without hydrogens
    offset : (hydrogen, 3) Å
    """

    crystal: Crystal
    heavy: torch.Tensor
    hydrogen: torch.Tensor
    parent: torch.Tensor
    offset: torch.Tensor

    def place(self, xyz: torch.Tensor) -> torch.Tensor:
        """Coordinates with hydrogens (..., atom, 3) of those without (..., heavy, 3), Å; differentiable."""
        out = xyz.new_zeros(*xyz.shape[:-2], len(self.crystal), 3)
        out = out.index_copy(-2, self.heavy, xyz)
        return out.index_copy(-2, self.hydrogen, xyz[..., self.parent, :] + self.offset)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """B or occupancy with hydrogens, (..., atom), of those without: a hydrogen has its parent's."""
        out = values.new_zeros(*values.shape[:-1], len(self.crystal))
        out = out.index_copy(-1, self.heavy, values)
        return out.index_copy(-1, self.hydrogen, values[..., self.parent])

    def fold(self, hessian: sparse.spmatrix) -> sparse.csc_matrix:
        """Mᵀ H M, (3 heavy, 3 heavy), of a Hessian with hydrogens, (3 atom, 3 atom): M moves them with parents."""
        rows = torch.cat([self.heavy, self.hydrogen]).numpy()
        columns = torch.cat([torch.arange(len(self.heavy)), self.parent]).numpy()
        carry = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), (len(self.crystal), len(self.heavy)))
        M = sparse.kron(carry, sparse.eye(3), format="csc")
        return (M.T @ hessian @ M).tocsc()


def add_riding(crystal: Crystal, monlib: gemmi.MonLib, unrestrained=()) -> Riding:
    """Give a model all hydrogens that gemmi can place with certainty (not those of water or hydroxyl groups).

    Parameters
    ----------
    crystal : model read with its structure; hydrogens that it has are replaced
    unrestrained : residues that may lack a description; they get no hydrogens

    Raises
    ------
    InputError
        Where a residue has no description.
    """
    structure = prepared_structure(crystal)
    check_described(structure[0], monlib, unrestrained)
    messages: list[str] = []
    change = gemmi.HydrogenChange.ReAddKnown
    gemmi.prepare_topology(structure, monlib, h_change=change, warnings=messages.append)
    # Its bonds refer to atoms before those of unknown place were taken out again.
    topo = gemmi.prepare_topology(structure, monlib, warnings=messages.append)
    parents = _parents(topo, structure)
    full = crystal_from_gemmi(structure)
    is_hydrogen = [cra.atom.is_hydrogen() for cra in structure[0].all()]
    heavy = torch.tensor([k for k, h in enumerate(is_hydrogen) if not h], dtype=torch.int64)
    hydrogen = torch.tensor([k for k, h in enumerate(is_hydrogen) if h], dtype=torch.int64)
    parent = torch.tensor(parents, dtype=torch.int64)
    offset = full.xyz[hydrogen] - full.xyz[heavy][parent]
    return Riding(full, heavy, hydrogen, parent, offset)


def refresh_offsets(riding: Riding, xyz: torch.Tensor, monlib: gemmi.MonLib, unrestrained=()) -> Riding:
    """The same hydrogens placed anew around heavy atoms at (heavy, 3), Å.

    One that gemmi no longer places keeps its offset: which hydrogens there are was decided at the start.
    """
    moved = replace(riding.crystal, xyz=riding.place(xyz.detach()))
    fresh = add_riding(moved, monlib, unrestrained)
    row = {fresh.crystal.name[a]: i for i, a in enumerate(fresh.hydrogen.tolist())}
    name = [riding.crystal.name[a] for a in riding.hydrogen.tolist()]
    again = [i for i, k in enumerate(name) if k in row]
    offset = riding.offset.clone()
    offset[again] = fresh.offset[[row[name[i]] for i in again]]
    return replace(riding, offset=offset)


def _parents(topo, structure: gemmi.Structure) -> list[int]:
    """For each hydrogen of the structure, in order, the number of its parent among the other atoms, in order."""
    heavy_row: dict[int, int] = {}
    for number, cra in enumerate(structure[0].all(), start=1):
        cra.atom.serial = number
        if not cra.atom.is_hydrogen():
            heavy_row[number] = len(heavy_row)
    bonded = {}
    for bond in topo.bonds:
        a, b = bond.atoms
        for h, p in ((a, b), (b, a)):
            if h.is_hydrogen() and not p.is_hydrogen():
                bonded[h.serial] = heavy_row[p.serial]
    out = []
    for cra in structure[0].all():
        if not cra.atom.is_hydrogen():
            continue
        if cra.atom.serial not in bonded:
            raise InputError(
                f"Hydrogen {cra.atom.name} of {cra.residue} has no bond in the description of its residue; "
                f"remove it from the model."
            )
        out.append(bonded[cra.atom.serial])
    return out
