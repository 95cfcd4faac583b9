"""From a model and its monomer dictionary to tables of restraints.

gemmi matches residues to their descriptions, applies links and modifications, and finds for every conformer the
atoms of every restraint. Here its atoms become rows of the crystal (through their serial numbers), and restraints
are left out that

- join atoms of different alternate conformers,
- touch a residue that the user left unrestrained,
- have no σ in the dictionary (torsions of rings and double bonds, which planes hold already),
- are torsions within rings of five or fewer, which pucker either way,
- are backbone torsions φ and ψ, which are no matter of chemistry.
"""

import math
from collections import Counter
from dataclasses import dataclass

import gemmi
import torch

from bayesref._checks import InputError
from bayesref.restraints.gaps import join_neighbours
from bayesref.restraints.terms import Angles, Bonds, Chirals, Planes, Torsions, integers, numbers

CHIRAL_SIGMA = 0.2  # Å³, the convention of REFMAC and servalcat
PLANE_SIGMA = 0.02  # Å, where the dictionary gives none
# gemmi describes a link of the file that has no description by radii and hybridisation, with the σ of a known one.
GUESS = 3
FAR = 2  # a bond this many times too long joins other copies of its atoms
FREE_TORSIONS = ("phi", "psi")
RADIAN = math.pi / 180


@dataclass(frozen=True)
class Topology:
    """Restraints of one model, and what is known of its atoms.

    Attributes
    ----------
    bonds, angles, torsions, chirals, planes : tables; the images of bonds are rows of `operators`
    operators : per image of a bond across symmetry, (operator of the cell, shift of the lattice); the first is
        the identity
    all_bonds, all_planes : also those that are no restraints: what is left out of the contacts
    energy_type : (atom,) CCP4 energy type, "" where unknown
    unrestrained : residue name -> number of its residues that were left without restraints
    unknown_atoms : names of atoms that the description of their residue does not have
    missing_atoms : atoms that a description has and the model lacks, without hydrogens; "A/THR 70/N"
    messages : what gemmi remarked
    """

    bonds: Bonds
    angles: Angles
    torsions: Torsions
    chirals: Chirals
    planes: Planes
    operators: tuple[tuple[int, tuple[int, int, int]], ...]
    all_bonds: Bonds
    all_planes: Planes
    energy_type: tuple[str, ...]
    unrestrained: dict[str, int]
    unknown_atoms: tuple[str, ...]
    missing_atoms: tuple[str, ...]
    messages: tuple[str, ...]


def read_topology(crystal, monlib: gemmi.MonLib, unrestrained=(), hydrogens: str = "present") -> Topology:
    """The restraints of a crystal's model.

    Parameters
    ----------
    crystal : Crystal with its gemmi structure
    monlib : descriptions of its residues
    unrestrained : names of residues without restraints
    hydrogens : "present" restrains hydrogens like other atoms; otherwise they have no bonded restraints

    Raises
    ------
    InputError
        Without a structure, or where a residue has no description and is not in `unrestrained`.
    """
    structure = prepared_structure(crystal)
    model = structure[0]
    check_described(model, monlib, unrestrained)
    messages: list[str] = []
    described = set(monlib.links)
    topo = gemmi.prepare_topology(structure, monlib, warnings=messages.append)
    keep = _Filter(crystal, model, unrestrained, hydrogens == "present")
    everything = _Filter(crystal, model, (), True)
    types = _energy_types(topo, len(crystal))
    free = Counter(r.name for chain in model for r in chain if r.name in set(unrestrained))
    guessed = {
        (r.rkind, r.index) for link in topo.extras if link.link_id not in described for r in link.link_rules
    }
    bonds, operators = _bonds(topo, keep, structure.cell, guessed)
    return Topology(
        bonds,
        _angles(topo, keep, guessed),
        _torsions(topo, keep, _near(bonds.atoms.tolist())),
        _chirals(topo, keep),
        _planes(topo, keep),
        operators,
        _bonds(topo, everything, structure.cell, guessed)[0],
        _planes(topo, everything),
        tuple(t or "" for t in types),
        dict(free),
        tuple(n for n, t in zip(crystal.name, types, strict=True) if t is None),
        # The end of a chain that is not seen to its end has no OXT.
        tuple(
            str(a) for a in topo.find_missing_atoms() if a.atom_name != "OXT" and a.res_id.name not in free
        ),
        tuple(messages),
    )


def prepared_structure(crystal) -> gemmi.Structure:
    """A copy of the crystal's structure with its positions, entities, serial numbers that are row + 1, closed gaps.

    Raises
    ------
    InputError
        Where the crystal holds no structure.
    """
    if crystal.structure is None:
        raise InputError("Restraints need a crystal that was read from a model file with all its atoms.")
    structure = crystal.structure.clone()
    while len(structure) > 1:
        del structure[1]
    xyz = crystal.xyz.detach().reshape(-1, len(crystal), 3)[0].tolist()  # the first state
    for row, cra in enumerate(structure[0].all()):
        cra.atom.serial = row + 1
        cra.atom.pos = gemmi.Position(*xyz[row])
    for chain in structure[0]:
        for residue in chain:
            _name_first_hydrogens(residue)
    structure.setup_entities()
    join_neighbours(structure)
    return structure


def _name_first_hydrogens(residue: gemmi.Residue) -> None:
    """H1 H2 H3 of a chain's first nitrogen are H H2 H3 in dictionaries."""
    names = {a.name for a in residue}
    if {"N", "CA", "H1", "H2"} <= names and "H" not in names:
        for atom in residue:
            if atom.name == "H1":
                atom.name = "H"


def check_described(model: gemmi.Model, monlib: gemmi.MonLib, unrestrained=()) -> None:
    """Raise `InputError` where a residue has no description, or `unrestrained` names one that is not there."""
    names = Counter(r.name for chain in model for r in chain)
    absent = [n for n in unrestrained if n not in names]
    if absent:
        raise InputError(f"The model has no residue {absent[0]}, which was to stay unrestrained.")
    missing = sorted(n for n in names if n not in unrestrained and n not in monlib.monomers)
    if missing:
        listed = ", ".join(f"{n} ({names[n]})" for n in missing)
        raise InputError(
            f"No restraints are known for {listed}; give a dictionary file for each (CIF), "
            f"or name it as unrestrained."
        )


class _Filter:
    """Rows of a restraint's atoms, or None where it is left out."""

    def __init__(self, crystal, model, unrestrained, hydrogens: bool):
        self.altloc = crystal.altloc
        atoms = list(model.all())
        free = set(unrestrained)
        self.out = [c.residue.name in free or (not hydrogens and c.atom.is_hydrogen()) for c in atoms]

    def __call__(self, atoms) -> list[int] | None:
        rows = [a.serial - 1 for a in atoms]
        if any(self.out[r] for r in rows) or len({self.altloc[r] for r in rows} - {""}) > 1:
            return None
        return rows


def _bonds(topo, keep, cell, guessed):
    operators: dict[tuple, int] = {(0, (0, 0, 0)): 0}
    table = {}
    links = {r.index for link in topo.extras for r in link.link_rules if r.rkind == gemmi.RKind.Bond}
    for number, bond in enumerate(topo.bonds):
        rows = keep(bond.atoms)
        if rows is None or not bond.restr.esd > 0:
            continue
        image, length = 0, bond.calculate()
        # gemmi has no length for a link to another asymmetric unit; and a file may not say which one is meant.
        if math.isnan(length) or (number in links and length > FAR * bond.restr.value):
            asu = gemmi.Asu.Different if math.isnan(length) else gemmi.Asu.Any
            near = cell.find_nearest_image(bond.atoms[0].pos, bond.atoms[1].pos, asu)
            image = operators.setdefault((near.sym_idx, tuple(near.pbc_shift)), len(operators))
        wider = GUESS if (gemmi.RKind.Bond, number) in guessed else 1
        table[(*rows, image)] = (bond.restr.value, wider * bond.restr.esd)
    columns = list(table.values())
    return Bonds(
        integers([k[:2] for k in table], 2),
        integers([k[2] for k in table], 1)[:, 0],
        numbers([c[0] for c in columns]),
        numbers([c[1] for c in columns]),
    ), tuple(operators)


def _angles(topo, keep, guessed) -> Angles:
    rows, value, sigma = [], [], []
    for number, angle in enumerate(topo.angles):
        atoms = keep(angle.atoms)
        if atoms is not None and angle.restr.esd > 0:
            rows.append(atoms)
            value.append(angle.restr.value)
            wider = GUESS if (gemmi.RKind.Angle, number) in guessed else 1
            sigma.append(wider * angle.restr.esd)
    return Angles(integers(rows, 3), numbers(value) * RADIAN, numbers(sigma) * RADIAN)


def _near(bonds) -> set[tuple[int, int]]:
    """Rows of atoms one or two bonds apart."""
    next_to: dict[int, set[int]] = {}
    for i, j in bonds:
        next_to.setdefault(i, set()).add(j)
        next_to.setdefault(j, set()).add(i)
    one = {(i, j) for i, others in next_to.items() for j in others}
    return one | {(i, k) for i, j in one for k in next_to[j]}


def _torsions(topo, keep, near) -> Torsions:
    rows, value, sigma, period = [], [], [], []
    for torsion in topo.torsions:
        atoms = keep(torsion.atoms)
        if atoms is None or not torsion.restr.esd > 0 or torsion.restr.label in FREE_TORSIONS:
            continue
        if (atoms[0], atoms[3]) in near:
            continue
        rows.append(atoms)
        value.append(torsion.restr.value)
        sigma.append(torsion.restr.esd)
        period.append(max(1, torsion.restr.period))
    return Torsions(integers(rows, 4), numbers(value) * RADIAN, numbers(sigma) * RADIAN, numbers(period))


def _chirals(topo, keep) -> Chirals:
    rows, value, both = [], [], []
    for chiral in topo.chirs:
        atoms = keep(chiral.atoms)
        size = topo.ideal_chiral_abs_volume(chiral)
        if atoms is None or not math.isfinite(size):
            continue
        rows.append(atoms)
        value.append(-size if chiral.restr.sign == gemmi.ChiralityType.Negative else size)
        both.append(chiral.restr.sign == gemmi.ChiralityType.Both)
    sigma = torch.full((len(rows),), CHIRAL_SIGMA, dtype=torch.float64)
    return Chirals(integers(rows, 4), numbers(value), sigma, torch.tensor(both, dtype=torch.bool))


def _planes(topo, keep) -> Planes:
    groups = {}
    for plane in topo.planes:
        rows = [keep([a]) for a in plane.atoms]
        atoms = tuple(r[0] for r in rows if r is not None)
        # Three atoms are always in a plane.
        if len(atoms) > 3 and len({keep.altloc[r] for r in atoms} - {""}) <= 1:
            groups[atoms] = plane.restr.esd if plane.restr.esd > 0 else PLANE_SIGMA
    most = max((len(g) for g in groups), default=4)
    rows = [[*g, *[-1] * (most - len(g))] for g in groups]
    return Planes(integers(rows, most), numbers(list(groups.values())))


def _energy_types(topo, n_atom: int) -> list[str | None]:
    """(atom,) energy type; "" for residues that gemmi described itself, None for atoms outside the description."""
    types: list[str | None] = [None] * n_atom
    for chain in topo.chain_infos:
        for info in chain.res_infos:
            known = {final.altloc: {a.id: a.chem_type for a in final.cc.atoms} for final in info.chemcomps}
            for atom in info.res:
                alone = known.get(atom.altloc) or known.get("\0") or next(iter(known.values()), {})
                types[atom.serial - 1] = alone.get(atom.name)
    return types
