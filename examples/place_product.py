"""Place residues of one structure on another: a product model on the dark crystal, as a state for `bayesref kinetics`.

python examples/place_product.py dark.pdb product.pdb --residues HC4,52,50,42,46,69,96,67,100 --out state.pdb

C-alpha atoms are superposed; the named residues (by name, or by number) take the places of the product's atoms.
Without files it makes a trial pair: a chain, and the same chain turned, moved, and with residue 5 changed.
"""

import argparse
import tempfile
from pathlib import Path

import gemmi
import numpy as np


def trial(folder: Path) -> tuple[str, str]:
    """A dark structure, and a product in another orientation whose residue 5 is 1 Å away."""
    g = np.random.default_rng(0)
    dark = gemmi.Structure()
    dark.cell, dark.spacegroup_hm = gemmi.UnitCell(40, 40, 40, 90, 90, 90), "P 1"
    chain = gemmi.Chain("A")
    for i in range(12):
        residue = gemmi.Residue()
        residue.name, residue.seqid = "ALA", gemmi.SeqId(str(i + 1))
        for name in ("N", "CA", "C", "O", "CB"):
            atom = gemmi.Atom()
            atom.name, atom.element, atom.b_iso = name, gemmi.Element(name[0]), 15.0
            place = np.array([4 * np.cos(i), 4 * np.sin(i), 1.5 * i]) + g.standard_normal(3)
            atom.pos = gemmi.Position(*place)
            residue.add_atom(atom)
        chain.add_residue(residue)
    dark.add_model(gemmi.Model(1))
    dark[0].add_chain(chain)
    product = dark.clone()
    turn = gemmi.Transform()
    turn.mat.fromlist([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    turn.vec.fromlist([5, -3, 8])
    for residue in product[0]["A"]:
        for atom in residue:
            shift = [1.0, 0, 0] if residue.seqid.num == 5 and atom.name != "CA" else [0, 0, 0]
            noise = 0.03 * g.standard_normal(3)
            atom.pos = gemmi.Position(*turn.apply(atom.pos + gemmi.Position(*(shift + noise))).tolist())
    for structure, name in ((dark, "dark"), (product, "product")):
        structure.write_pdb(str(folder / f"{name}.pdb"))
    return str(folder / "dark.pdb"), str(folder / "product.pdb")


def place(dark: gemmi.Structure, product: gemmi.Structure, residues: list[str]) -> int:
    """Move atoms of `dark` to those of `product`; returns how many."""
    for structure in (dark, product):
        structure.setup_entities()
    chain, other = dark[0][0].get_polymer(), product[0][0].get_polymer()
    fit = gemmi.calculate_superposition(
        chain, other, chain.check_polymer_type(), gemmi.SupSelect.CaP, trim_cycles=2
    )
    print(f"Superposed {fit.count} C-alpha atoms, {fit.rmsd:.2f} Å rms")
    by_place = {(r.name, str(r.seqid)): r for c in product[0] for r in c}
    by_name = {r.name: r for c in product[0] for r in c}
    moved = 0
    for residue in (r for c in dark[0] for r in c):
        if residue.name in residues:  # a ligand: its number may differ
            source = by_name.get(residue.name)
        elif str(residue.seqid) in residues:
            source = by_place.get((residue.name, str(residue.seqid)))
        else:
            continue
        for atom in residue:
            twin = source.find_atom(atom.name, "*") if source is not None else None
            if twin is not None:
                atom.pos = gemmi.Position(*fit.transform.apply(twin.pos).tolist())
                moved += 1
    return moved


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dark", nargs="?")
    parser.add_argument("product", nargs="?")
    parser.add_argument("--residues", default="5", help="names or numbers, with commas")
    parser.add_argument("--out", default="state.pdb")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = (asked.dark, asked.product) if asked.product else trial(Path(folder))
        dark, product = (gemmi.read_structure(f) for f in files)
    n = place(dark, product, asked.residues.split(","))
    dark.write_pdb(asked.out)
    print(f"{n} atoms moved; written to {asked.out}")
