"""A crystal: the atoms of one asymmetric unit as tensors, its cell and its space group.

    B = 8π² U_eq                      isotropic atoms
    U (3 x 3, Cartesian, Å²)          anisotropic atoms; order 11 22 33 12 13 23

Every parameter may carry leading dimensions, (state, atom, ...), which broadcast. `dataclasses.replace` gives
the same crystal with other parameters, and gradients flow through it.
"""

from dataclasses import dataclass, replace

import gemmi
import torch

from bayesref._checks import InputError, check_finite, check_shape

B_PER_U = 8 * torch.pi**2


@dataclass(frozen=True)
class Crystal:
    """Atoms, cell and space group.

    Attributes
    ----------
    xyz : (..., atom, 3) Cartesian, Å
    B : (..., atom) isotropic B, Å²; 8π² U_eq where the atom is anisotropic, and unused there
    U : (..., atom, 6) Cartesian U 11 22 33 12 13 23, Å², or None where all atoms are isotropic
    anisotropic : (atom,) bool, which atoms scatter with U
    occupancy : (..., atom); an atom on a special position counts once per operator that keeps it
    scatterer : (atom,) element with its charge if it has one: "C", "Fe3+"
    name : (atom,) "A/GLY 12/CA/B": chain, residue, atom, and altloc where there is one
    altloc : (atom,) one letter or ""
    cell, spacegroup : gemmi objects
    structure : the gemmi.Structure that the atoms came from, in the order of its first model, or None
    """

    xyz: torch.Tensor
    B: torch.Tensor
    U: torch.Tensor | None
    anisotropic: torch.Tensor
    occupancy: torch.Tensor
    scatterer: tuple[str, ...]
    name: tuple[str, ...]
    altloc: tuple[str, ...]
    cell: gemmi.UnitCell
    spacegroup: gemmi.SpaceGroup
    structure: gemmi.Structure | None = None

    def __len__(self) -> int:
        return len(self.scatterer)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Crystal":
        """The same crystal on a device, its parameters in `dtype`."""
        U = None if self.U is None else self.U.to(device, dtype)
        return replace(
            self,
            xyz=self.xyz.to(device, dtype),
            B=self.B.to(device, dtype),
            U=U,
            anisotropic=self.anisotropic.to(device),
            occupancy=self.occupancy.to(device, dtype),
        )

    def select(self, atoms: torch.Tensor) -> "Crystal":
        """The crystal of some atoms only: `atoms` is (n,) int or (atom,) bool; the link to gemmi is dropped."""
        rows = atoms.nonzero()[:, 0] if atoms.dtype == torch.bool else atoms
        pick = [int(i) for i in rows]
        return replace(
            self,
            xyz=self.xyz[..., rows, :],
            B=self.B[..., rows],
            U=None if self.U is None else self.U[..., rows, :],
            anisotropic=self.anisotropic[rows],
            occupancy=self.occupancy[..., rows],
            scatterer=tuple(self.scatterer[i] for i in pick),
            name=tuple(self.name[i] for i in pick),
            altloc=tuple(self.altloc[i] for i in pick),
            structure=None,
        )


def crystal_from_gemmi(structure: gemmi.Structure, hydrogens: bool = True, charges: bool = False) -> Crystal:
    """The first model of a gemmi structure.

    Parameters
    ----------
    structure : with a cell and a space group; expand strict NCS first (`structure.expand_ncs`)
    hydrogens : False leaves hydrogen and deuterium out (and then `Crystal.structure` too)
    charges : True uses the ions of the form-factor table where the file gives a charge

    Raises
    ------
    InputError
        Without atoms, cell or space group, for an unknown element, NaN coordinates or occupancies below zero.
    """
    if len(structure) == 0 or structure[0].count_atom_sites() == 0:
        raise InputError("The structure holds no atoms; expected a PDB or mmCIF model.")
    spacegroup = structure.find_spacegroup()
    if spacegroup is None or not structure.cell.is_crystal():
        raise InputError(
            "The structure lacks a unit cell or a known space group; add them (PDB: the CRYST1 record)."
        )
    atoms = [cra for cra in structure[0].all() if hydrogens or not cra.atom.is_hydrogen()]
    unknown = [_name(cra) for cra in atoms if cra.atom.element.atomic_number == 0]
    if unknown:
        raise InputError(
            f"{len(unknown)} atoms have no known element, the first is {unknown[0]}; correct it in the model."
        )
    numbers = torch.tensor(
        [[*c.atom.pos.tolist(), c.atom.b_iso, c.atom.occ, *c.atom.aniso.elements_pdb()] for c in atoms],
        dtype=torch.float64,
    )
    anisotropic = (numbers[:, 5:] != 0).any(-1)
    U = numbers[:, 5:].contiguous() if bool(anisotropic.any()) else None
    B = numbers[:, 3] if U is None else torch.where(anisotropic, U[:, :3].mean(-1) * B_PER_U, numbers[:, 3])
    crystal = Crystal(
        numbers[:, :3].contiguous(),
        B,
        U,
        anisotropic,
        numbers[:, 4].contiguous(),
        tuple(_scatterer(c.atom, charges) for c in atoms),
        tuple(_name(c) for c in atoms),
        tuple(c.atom.altloc.strip("\0") for c in atoms),
        structure.cell,
        spacegroup,
        structure if hydrogens else None,
    )
    check_crystal(crystal)
    if U is not None:  # the isotropic B beside an ellipsoid is what hydrogens take
        check_crystal(replace(crystal, B=numbers[:, 3]))
    return crystal


def gemmi_from_crystal(crystal: Crystal) -> gemmi.Structure:
    """A copy of the crystal's gemmi structure with the crystal's parameters (one state) in its first model.

    Raises
    ------
    InputError
        Where the crystal has no structure or holds several states.
    """
    if crystal.structure is None:
        raise InputError(
            "This crystal was not read from a structure file, so there is no hierarchy to write."
        )
    check_shape("xyz", crystal.xyz, (len(crystal), 3))
    structure = crystal.structure.clone()
    columns = zip(
        structure[0].all(), crystal.xyz.tolist(), crystal.B.tolist(), crystal.occupancy.tolist(), strict=True
    )
    for i, (cra, xyz, B, occupancy) in enumerate(columns):
        cra.atom.pos = gemmi.Position(*xyz)
        cra.atom.b_iso, cra.atom.occ = B, occupancy
        if crystal.U is not None and crystal.anisotropic[i]:
            cra.atom.aniso = gemmi.SMat33f(*crystal.U[i].tolist())
            cra.atom.b_iso = float(crystal.U[i, :3].mean()) * B_PER_U
    return structure


def check_crystal(crystal: Crystal) -> None:
    """Raise `InputError` unless shapes agree, all numbers are finite, and B and occupancy are not negative.

    U may fail to be positive definite: deposited models do, by rounding.
    """
    n = len(crystal)
    if (
        crystal.xyz.shape[-2:] != (n, 3)
        or crystal.B.shape[-1:] != (n,)
        or crystal.occupancy.shape[-1:] != (n,)
    ):
        raise InputError(
            f"{n} scatterers, but xyz {tuple(crystal.xyz.shape)}, B {tuple(crystal.B.shape)}, "
            f"occupancy {tuple(crystal.occupancy.shape)}; each needs (..., {n})."
        )
    for what, x in (("position", crystal.xyz), ("B factor", crystal.B), ("occupancy", crystal.occupancy)):
        _check_each(
            crystal, ~torch.isfinite(x.sum(-1) if x is crystal.xyz else x), f"The {what}", "is no number"
        )
        if x is not crystal.xyz:
            _check_each(crystal, x < 0, f"The {what}", "is below zero")
    if crystal.U is not None:
        check_finite("U", crystal.U)


def symmetric(U: torch.Tensor) -> torch.Tensor:
    """(..., 3, 3) matrix of six elements 11 22 33 12 13 23, (..., 6)."""
    return U[..., [0, 3, 4, 3, 1, 5, 4, 5, 2]].unflatten(-1, (3, 3))


def _check_each(crystal: Crystal, bad: torch.Tensor, what: str, fault: str) -> None:
    if bad.any():
        n = int(bad.any(tuple(range(bad.ndim - 1))).sum())
        others = f", like that of {n - 1} more" if n > 1 else ""
        name = crystal.name[int(bad.nonzero()[0, -1])]
        raise InputError(f"{what} of {name} {fault}{others}; correct it in the model.")


def _scatterer(atom: gemmi.Atom, charges: bool) -> str:
    if not charges or atom.charge == 0:
        return atom.element.name
    return f"{atom.element.name}{abs(atom.charge)}{'+' if atom.charge > 0 else '-'}"


def _name(cra: gemmi.CRA) -> str:
    altloc = f"/{cra.atom.altloc}" if cra.atom.has_altloc() else ""
    return f"{cra.chain.name}/{cra.residue.name} {cra.residue.seqid}/{cra.atom.name}{altloc}"
