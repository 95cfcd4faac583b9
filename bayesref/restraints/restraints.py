"""All restraints of one crystal: what the prior of its coordinates and B factors is made of.

    log p(xyz) = Σ_kind Σ_r log p_kind(q_r(xyz)) + const

See `geometry` for the densities of each kind; their product has no known constant, since bonds, angles and planes
overlap.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property

import gemmi
import numpy as np
import torch
from scipy import sparse

from bayesref._checks import InputError
from bayesref.restraints import bfactor, geometry, gradient, optional
from bayesref.restraints import hessian as gauss_newton
from bayesref.restraints.bfactor import Similar, similar_pairs
from bayesref.restraints.ncs import LocalSymmetry, local_symmetry
from bayesref.restraints.nonbonded import Contacts, contact_rules, contacts
from bayesref.restraints.ramachandran import Ramachandran, backbone
from bayesref.restraints.terms import Angles, Bonds, Chirals, Images, NonBonded, Planes, Torsions
from bayesref.restraints.topology import Topology, prepared_structure, read_topology

HYDROGENS = ("present", "riding", "none")
TABLES = ("bonds", "angles", "torsions", "chirals", "planes", "nonbonded", "images")
OPTIONAL = ("ramachandran", "ncs")


@dataclass(frozen=True)
class Restraints:
    """Restraints of one crystal's atoms; made by `build_restraints`.

    Attributes
    ----------
    bonds, angles, torsions, chirals, planes, nonbonded : tables, see `bayesref.restraints.terms`
    images : symmetry operators that `bonds` and `nonbonded` refer to
    similar : pairs whose B factors are alike
    ramachandran, ncs : backbone torsions and local symmetry, or None
    topology, rules : what the tables were made from
    name, altloc : (atom,) as in the crystal
    cell, spacegroup : gemmi objects
    """

    bonds: Bonds
    angles: Angles
    torsions: Torsions
    chirals: Chirals
    planes: Planes
    nonbonded: NonBonded
    images: Images
    similar: Similar
    ramachandran: Ramachandran | None
    ncs: LocalSymmetry | None
    topology: Topology
    rules: Contacts
    name: tuple[str, ...]
    altloc: tuple[str, ...]
    cell: gemmi.UnitCell
    spacegroup: gemmi.SpaceGroup

    def __len__(self) -> int:
        tables = (getattr(self, k) for k in (*TABLES[:-1], *OPTIONAL))
        return sum(len(t) for t in tables if t is not None)

    def to(self, device) -> "Restraints":
        """The same restraints with their tables on a device."""
        tables = {k: getattr(self, k) for k in (*TABLES, *OPTIONAL, "similar")}
        return replace(self, **{k: t.to(device) for k, t in tables.items() if t is not None})

    def log_density(self, xyz: torch.Tensor, B: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """log p of each kind of restraint, (...,) for coordinates (..., atom, 3) Å; "B" too where B is given."""
        t = self
        out = {
            "bonds": geometry.log_normal(
                geometry.distance(xyz, t.bonds.atoms, t.bonds.image, t.images), t.bonds.value, t.bonds.sigma
            ),
            "angles": geometry.log_normal(
                geometry.angle(xyz, t.angles.atoms), t.angles.value, t.angles.sigma
            ),
            "torsions": geometry.log_von_mises(
                geometry.torsion(xyz, t.torsions.atoms), t.torsions.value, t.torsions.sigma, t.torsions.period
            ),
            "chirals": geometry.log_chiral(
                geometry.volume(xyz, t.chirals.atoms), t.chirals.value, t.chirals.sigma, t.chirals.both
            ),
            "planes": geometry.log_plane(
                geometry.flatness(xyz, t.planes.atoms), t.planes.atoms, t.planes.sigma
            ),
            "nonbonded": geometry.log_contact(
                geometry.distance(xyz, t.nonbonded.atoms, t.nonbonded.image, t.images),
                t.nonbonded.minimum,
                t.nonbonded.sigma,
            ),
        }
        total = {kind: value.sum(-1) for kind, value in (out | optional.log_density(self, xyz)).items()}
        return total if B is None else total | {"B": self.log_density_B(B)}

    def log_prob(self, xyz: torch.Tensor, B: torch.Tensor | None = None) -> torch.Tensor:
        """log p of all restraints but for the constant, (...,)."""
        return torch.stack(list(self.log_density(xyz, B).values())).sum(0)

    def value_and_grad(self, xyz: np.ndarray) -> tuple[float, np.ndarray]:
        """`log_prob` and its slope (atom, 3), 1/Å, at coordinates (atom, 3): compiled, for one model on a CPU."""
        xyz = np.ascontiguousarray(xyz, dtype=np.float64)
        value, slope = gradient.value_and_grad(self._arrays, xyz)
        if self.ramachandran is None and self.ncs is None:
            return value, slope
        more, steeper = optional.value_and_grad(self, xyz)
        return value + more, slope + steeper

    def hessian(self, xyz: np.ndarray) -> sparse.csc_matrix:
        """Gauss-Newton Hessian of -`log_prob`, (3 atom, 3 atom), 1/Å²; positive semidefinite."""
        xyz = np.ascontiguousarray(xyz, dtype=np.float64)
        return gauss_newton.hessian(self._arrays, self._pattern, xyz, optional.slopes(self, xyz))

    def log_density_B(self, B: torch.Tensor) -> torch.Tensor:
        """log p of the ratios of B factors (..., atom), Å², of bonded atoms, (...,)."""
        return bfactor.log_density_B(B, self.similar)

    def hessian_B(self, B: np.ndarray | None = None) -> sparse.csc_matrix:
        """Hessian of -`log_density_B` with respect to log B, (atom, atom); the same for every B."""
        return bfactor.hessian_B(self.similar, len(self.name))

    def log_density_U(self, U: torch.Tensor, xyz: torch.Tensor, anisotropic: torch.Tensor) -> torch.Tensor:
        """log p of anisotropic displacements (..., atom, 6), Å², see `bayesref.restraints.bfactor`."""
        return bfactor.log_density_U(U, xyz, anisotropic, self.similar)

    def refresh(self, xyz) -> "Restraints":
        """The same restraints with the list of contacts made anew for coordinates (atom, 3), Å."""
        xyz = np.asarray(torch.as_tensor(xyz).detach().cpu(), dtype=np.float64)
        table, images = contacts(xyz, self.rules, self.cell, self.spacegroup, self.topology.operators)
        device = self.bonds.atoms.device
        return replace(self, nonbonded=table.to(device), images=images.to(device))

    @cached_property
    def _arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """Fields of all tables as arrays."""
        return {
            k: {f.name: getattr(getattr(self, k), f.name).cpu().numpy() for f in fields(getattr(self, k))}
            for k in TABLES
        }

    @cached_property
    def _pattern(self) -> gauss_newton.Pattern:
        more = {k: getattr(self, k).atoms.cpu().numpy() for k in OPTIONAL if getattr(self, k) is not None}
        atoms = {k: self._arrays[k]["atoms"] for k in TABLES[:-1]}
        return gauss_newton.pattern(atoms | more, len(self.name))


def build_restraints(
    crystal,
    monlib: gemmi.MonLib,
    *,
    unrestrained=(),
    guess=(),
    ncs=False,
    ramachandran=False,
    hydrogens="present",
) -> Restraints:
    """Restraints of a crystal's atoms by the descriptions of its residues.

    Parameters
    ----------
    crystal : Crystal with its gemmi structure; the contacts are those of its coordinates
    monlib : see `bayesref.restraints.dictionary.load_dictionary`
    guess : names of residues to describe by their own coordinates, see `bayesref.restraints.dictionary.guess_monomer`
    ncs : make chains of one sequence alike, see `bayesref.restraints.ncs`
    ramachandran : restrain φ and ψ to their regions, see `bayesref.restraints.ramachandran`
    unrestrained : names of residues that keep no restraints; `Restraints.topology.unrestrained` counts them
    hydrogens : "present" treats them as atoms, "riding" lets them touch others and nothing else (their parents
        carry them), "none" leaves them without restraints

    Raises
    ------
    InputError
        Where a residue has no description, or `unrestrained` names a residue that the model lacks.
    """
    if hydrogens not in HYDROGENS:
        raise InputError(f"hydrogens is {hydrogens!r}; expected one of {', '.join(HYDROGENS)}.")
    if guess:
        monlib = with_guesses(crystal, monlib, guess)
    topology = read_topology(crystal, monlib, unrestrained, hydrogens)
    is_hydrogen = np.isin(crystal.scatterer, ("H", "D"))
    free = np.isin([n.split("/")[1].split()[0] for n in crystal.name], list(unrestrained))
    free |= np.isin(crystal.name, topology.unknown_atoms)
    if hydrogens == "none":
        free |= is_hydrogen
    explicit = hydrogens != "none" and bool(is_hydrogen.any())
    rules = contact_rules(
        crystal, monlib, topology.energy_type, topology.all_bonds, topology.all_planes, free, explicit
    )
    xyz = crystal.xyz.detach().reshape(-1, len(crystal), 3)[0].numpy()
    table, images = contacts(xyz, rules, crystal.cell, crystal.spacegroup, topology.operators)
    return Restraints(
        topology.bonds,
        topology.angles,
        topology.torsions,
        topology.chirals,
        topology.planes,
        table,
        images,
        similar_pairs(topology.bonds, topology.angles, len(crystal)),
        backbone(topology.bonds, crystal.name, crystal.altloc) if ramachandran else None,
        local_symmetry(crystal) if ncs else None,
        topology,
        rules,
        crystal.name,
        crystal.altloc,
        crystal.cell,
        crystal.spacegroup,
    )


def with_guesses(crystal, monlib: gemmi.MonLib, guess) -> gemmi.MonLib:
    """A copy of the library in which residues of these names are described by the first of them in the model.

    Raises
    ------
    InputError
        Where the model has no such residue.
    """
    from bayesref.restraints.dictionary import guess_monomer

    library = monlib.clone()
    for name in guess:
        found = [r for chain in prepared_structure(crystal)[0] for r in chain if r.name == name]
        if not found:
            raise InputError(f"The model has no residue {name}, whose restraints were to be guessed.")
        library.monomers[name] = guess_monomer(found[0])
    return library
