"""A small crystal for trial runs, and states of it: atoms packed at random like those of a protein.

Atoms are placed one by one, each at bond length from an earlier one and no closer than MINIMUM to all others and their
symmetry copies, until they fill their share of the cell. States differ in where a patch of them is.
"""

from dataclasses import replace

import gemmi
import numpy as np
import torch

from bayesref.crystal.atoms import Crystal, crystal_from_gemmi

BOND, MINIMUM = 1.5, 1.35  # Å
ELEMENTS = ("C", "C", "C", "N", "O")


def toy_crystal(
    n: int = 160, cell=(24.0, 27.0, 30.0), spacegroup: str = "P 21 21 21", seed: int = 0
) -> Crystal:
    """`n` atoms of C, N and O, B from 8 to 25 Å²; half of the cell is left to solvent."""
    g = np.random.default_rng(seed)
    structure = gemmi.Structure()
    structure.cell, structure.spacegroup_hm = (
        gemmi.UnitCell(cell[0], cell[1], cell[2], 90, 90, 90),
        spacegroup,
    )
    places = [np.array(cell) / 4]
    operations = list(gemmi.SpaceGroup(spacegroup).operations())
    while len(places) < n:
        step = g.standard_normal(3)
        new = places[g.integers(max(0, len(places) - 40), len(places))] + BOND * step / np.linalg.norm(step)
        if _distance(new, np.array(places), operations, np.array(cell)) > MINIMUM:
            places.append(new)
    model, chain = gemmi.Model(1), gemmi.Chain("A")
    for i, xyz in enumerate(places):
        if i % 8 == 0:
            residue = gemmi.Residue()
            residue.name, residue.seqid = "UNK", gemmi.SeqId(str(i // 8 + 1))
            chain.add_residue(residue)
        atom = gemmi.Atom()
        atom.element = gemmi.Element(ELEMENTS[g.integers(len(ELEMENTS))])
        atom.name, atom.pos = f"{atom.element.name}{i % 8 + 1}", gemmi.Position(*xyz)
        atom.b_iso, atom.occ = float(g.uniform(8, 25)), 1.0
        chain[-1].add_atom(atom)
    model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    return crystal_from_gemmi(structure)


def _distance(new, places, operations, cell):
    """To the nearest of `places` and of their symmetry copies, Å (orthogonal cells)."""
    found = np.inf
    for op in operations:
        x = (places / cell) @ (np.array(op.rot) / 24).T + np.array(op.tran) / 24
        d = (new / cell - x + 0.5) % 1.0 - 0.5
        found = min(found, float(np.linalg.norm(d * cell, axis=1).min()))
    return found


def moved_patch(crystal: Crystal, n: int = 24, rms: float = 0.7, seed: int = 1) -> Crystal:
    """The crystal with the `n` atoms nearest to one of them moved by `rms` Å, in random directions."""
    g = torch.Generator().manual_seed(seed)
    centre = crystal.xyz[len(crystal) // 2]
    near = (crystal.xyz - centre).norm(dim=1).argsort()[:n]
    shift = torch.zeros_like(crystal.xyz)
    shift[near] = rms / 3**0.5 * torch.randn(n, 3, generator=g, dtype=torch.float64)
    return replace(crystal, xyz=crystal.xyz + shift)


def swollen(crystal: Crystal, factor: float) -> Crystal:
    """The crystal with its cell and all its distances larger by `factor`, as another temperature has it."""
    a, b, c, *angles = crystal.cell.parameters
    cell = gemmi.UnitCell(factor * a, factor * b, factor * c, *angles)
    structure = None if crystal.structure is None else crystal.structure.clone()
    if structure is not None:
        structure.cell = cell
    return replace(crystal, cell=cell, xyz=factor * crystal.xyz, structure=structure)
