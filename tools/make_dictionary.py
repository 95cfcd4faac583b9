"""Make the monomer dictionary that bayesref ships: bayesref/restraints/dictionary.cif.gz.

    python -m venv acedrg && acedrg/bin/pip install acedrg biotite
    python tools/make_dictionary.py --acedrg acedrg/bin --work work

Chemical components (atoms, bonds, charges, stereochemistry) are those of the PDB's Chemical Component Dictionary
(CC0), through biotite. AceDRG (Long et al. (2017), Acta Cryst. D73, 112; program under MPL-2.0) turns each into
restraints with values from the Crystallography Open Database. Links and what they change are ours (links_and_mods.py,
chain_ends.py), as are ions, water and iron-sulfur clusters (single_atoms.py) and what a chain changes in a component
(adjust.py). Components already in the work folder are not made again.
"""

import argparse
import gzip
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gemmi
from adjust import AMIDE_H, AMIDE_H_NUCLEUS, adjusted, change_of, keep_row
from chain_ends import ALIASES
from gemmi import cif
from links_and_mods import LINKS, MODIFICATIONS
from single_atoms import DIATOMICS, IONS, WATER, WATER_ANGLE, WATER_NUCLEUS, WATER_OH, clusters

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "bayesref" / "restraints" / "dictionary.cif.gz"
COMPONENTS = (HERE / "components.txt").read_text().split()

EXTRACT = """
import sys, gemmi
from biotite.structure.info.ccd import get_from_ccd
doc = gemmi.cif.Document()
block = doc.add_new_block("comp_" + sys.argv[1])
for category in ("chem_comp", "chem_comp_atom", "chem_comp_bond"):
    table = get_from_ccd(category, sys.argv[1])
    if table is None:
        continue
    columns = {k: table[k].as_array(str) for k in table}
    loop = block.init_loop(f"_{category}.", list(columns))
    for row in zip(*columns.values()):
        loop.add_row([gemmi.cif.quote(str(x)) if str(x) not in (".", "?", "") else "?" for x in row])
doc.write_file(sys.argv[2])
"""

# what is kept of each category, in this order; hydrogens at electron-cloud and at nuclear distances
KEEP = {
    "chem_comp_atom": ("atom_id", "type_symbol", "type_energy", "charge"),
    "chem_comp_bond": ("atom_id_1", "atom_id_2", "value_order", "pdbx_aromatic_flag", "value_dist", "value_dist_esd",
                       "value_dist_nucleus", "value_dist_nucleus_esd"),
    "chem_comp_angle": ("atom_id_1", "atom_id_2", "atom_id_3", "value_angle", "value_angle_esd"),
    "chem_comp_tor": ("id", "atom_id_1", "atom_id_2", "atom_id_3", "atom_id_4", "value_angle", "value_angle_esd",
                      "period"),
    "chem_comp_chir": ("id", "atom_id_centre", "atom_id_1", "atom_id_2", "atom_id_3", "volume_sign"),
    "chem_comp_plane_atom": ("plane_id", "atom_id", "dist_esd"),
}  # fmt: skip
RENAME = {"value_order": "type", "pdbx_aromatic_flag": "aromatic"}


def run_acedrg(name: str, binaries: Path, work: Path) -> Path | None:
    """AceDRG's restraints of one component, or None where it gave up."""
    component, out = work / f"{name}.ccd.cif", work / f"out_{name}.cif"
    if out.exists() and out.stat().st_size:
        return out
    environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    subprocess.run([binaries / "python", "-c", EXTRACT, name, component], check=True)
    with (work / f"{name}.log").open("w") as log:
        command = [binaries / "acedrg", "-c", component.name, "-r", name, "-o", f"out_{name}"]
        subprocess.run(command, cwd=work, env=environment, stdout=log, stderr=log, timeout=900, check=False)
    return out if out.exists() and out.stat().st_size else None


def group_of(work: Path, name: str) -> str:
    """CCP4's group of a component, by the type that the Chemical Component Dictionary gives."""
    doc = cif.read(str(work / f"{name}.ccd.cif"))
    block = doc.sole_block()
    kind = (block.find_loop("_chem_comp.type")[0] or "").strip("'\"").upper()
    atoms = {cif.as_string(a) for a in block.find_loop("_chem_comp_atom.atom_id")}
    if "PEPTIDE LINKING" in kind and {"N", "CA", "C", "O"} <= atoms:
        return "P-peptide" if name in ("PRO", "HYP") else "peptide"
    if "DNA LINKING" in kind:
        return "DNA"
    return "RNA" if "RNA LINKING" in kind else "non-polymer"


def add_component(doc, restraints: Path, name: str, group: str) -> tuple[str, str, int, int]:
    """Copy the restraints of one component into the dictionary."""
    made = cif.read(str(restraints))
    source = next(b for b in made if b.name != "comp_list" and b.find_loop("_chem_comp_atom.atom_id"))
    block = doc.add_new_block(f"comp_{name}")
    change = change_of(name, group)
    for category, tags in KEEP.items():
        rows = [
            dict(zip(tags, map(cif.as_string, r), strict=True))
            for r in source.find(f"_{category}.", list(tags))
        ]
        rows = [adjusted(change, category, r) for r in rows if keep_row(change, category, r)]
        if category == "chem_comp_tor" and "peptide" in group:
            rows = [r for r in rows if not _turns_backbone(r)]
        if category == "chem_comp_plane_atom" and change.plane:
            rows += [{"plane_id": "plan-own", "atom_id": a, "dist_esd": "0.020"} for a in change.plane]
        if rows:
            loop = block.init_loop(f"_{category}.", ["comp_id", *(RENAME.get(t, t) for t in tags)])
            for row in rows:
                loop.add_row([name, *map(cif.quote, row.values())])
    if name in ALIASES:
        loop = block.init_loop("_chem_comp_alias.", ["comp_id", "group", "atom_id", "atom_id_standard"])
        for standard, own in ALIASES[name].items():
            loop.add_row([name, "peptide", own, standard])
    elements = [cif.as_string(e) for e in block.find_loop("_chem_comp_atom.type_symbol")]
    return name, group, len(elements), sum(e not in ("H", "D") for e in elements)


def _turns_backbone(row) -> bool:
    """Whether a torsion is φ or ψ of a residue, which AceDRG knows as those of a free amino acid only."""
    return {row["atom_id_2"], row["atom_id_3"]} in ({"N", "CA"}, {"CA", "C"})


def add_simple(doc) -> list[tuple[str, str, int, int]]:
    """Ions, water and iron-sulfur clusters."""
    rows = []
    for name, (atom, element, charge) in IONS.items():
        block = doc.add_new_block(f"comp_{name}")
        loop = block.init_loop(
            "_chem_comp_atom.", ["comp_id", "atom_id", "type_symbol", "type_energy", "charge"]
        )
        loop.add_row([name, atom, element.upper(), element.upper(), str(charge)])
        rows.append((name, "non-polymer", 1, 1))
    for name, H in WATER.items():
        one, two = f"{H}1", f"{H}2"
        atoms = {"O": "O", one: H, two: H}
        bonds = {("O", one): WATER_OH, ("O", two): WATER_OH}
        _block(doc, name, atoms, {"O": "OH2"}, bonds, {(one, "O", two): WATER_ANGLE}, WATER_NUCLEUS)
        rows.append((name, "non-polymer", 3, 1))
    for name, (atoms, length) in DIATOMICS.items():
        _block(doc, name, dict(atoms), {}, {(atoms[0][0], atoms[1][0]): (length, 0.02)}, {})
        rows.append((name, "non-polymer", 2, 2))
    for name, (atoms, bonds, angles) in clusters().items():
        _block(doc, name, atoms, {}, bonds, angles)
        rows.append((name, "non-polymer", len(atoms), len(atoms)))
    return rows


def _block(doc, name, atoms, types, bonds, angles, nucleus=None):
    block = doc.add_new_block(f"comp_{name}")
    loop = block.init_loop("_chem_comp_atom.", ["comp_id", "atom_id", "type_symbol", "type_energy", "charge"])
    for a, element in atoms.items():
        loop.add_row([name, a, element.upper(), types.get(a, element.upper()), "0"])
    tags = ["comp_id", *(RENAME.get(t, t) for t in KEEP["chem_comp_bond"])]
    loop = block.init_loop("_chem_comp_bond.", tags)
    for (a, b), (value, sigma) in bonds.items():
        lengths = [f"{x:.3f}" for x in (value, sigma, nucleus or value, sigma)]
        loop.add_row([name, a, b, "SINGLE", "n", *lengths])
    if angles:
        tags = ["comp_id", "atom_id_1", "atom_id_2", "atom_id_3", "value_angle", "value_angle_esd"]
        loop = block.init_loop("_chem_comp_angle.", tags)
        for (a, b, c), (value, sigma) in angles.items():
            loop.add_row([name, a, b, c, f"{value:.2f}", f"{sigma:.2f}"])


def add_modifications(doc):
    """`_chem_mod` blocks."""
    index = doc.add_new_block("mod_list").init_loop("_chem_mod.", ["id", "name", "comp_id", "group_id"])
    for name, (where, changes, deleted) in MODIFICATIONS.items():
        group = where in ("peptide", "P-peptide", "DNA/RNA")
        index.add_row([name, name, "." if group else where, where if group else "."])
        block = doc.add_new_block(f"mod_{name}")
        if deleted:
            tags = ["mod_id", "function", "atom_id", *_new("atom_id", "type_symbol", "type_energy", "charge")]
            loop = block.init_loop("_chem_mod_atom.", tags)
            for a in deleted:
                loop.add_row([name, "delete", cif.quote(a), ".", ".", ".", "."])
        bonds = {k: v for k, v in changes.items() if len(k) == 2}
        angles = {k: v for k, v in changes.items() if len(k) == 3}
        if bonds:
            new = _new("type", "value_dist", "value_dist_esd", "value_dist_nucleus", "value_dist_nucleus_esd")
            loop = block.init_loop("_chem_mod_bond.", ["mod_id", "function", "atom_id_1", "atom_id_2", *new])
            for atoms, value in bonds.items():
                kind = "double" if atoms in (("C", "O"), ("C3", "O3")) else "."
                nucleus = AMIDE_H_NUCLEUS if value == AMIDE_H else value
                lengths = [f"{x:.3f}" for x in (*value, *nucleus)]
                loop.add_row([name, "change", *map(cif.quote, atoms), kind, *lengths])
        if angles:
            tags = ["mod_id", "function", "atom_id_1", "atom_id_2", "atom_id_3"]
            loop = block.init_loop("_chem_mod_angle.", [*tags, *_new("value_angle", "value_angle_esd")])
            for atoms, (value, sigma) in angles.items():
                loop.add_row([name, "change", *map(cif.quote, atoms), f"{value:.2f}", f"{sigma:.2f}"])


def _new(*tags: str) -> list[str]:
    return [f"new_{t}" for t in tags]


def add_links(doc):
    """`_chem_link` blocks."""
    tags = ["id", "comp_id_1", "mod_id_1", "group_comp_1", "comp_id_2", "mod_id_2", "group_comp_2", "name"]
    index = doc.add_new_block("link_list").init_loop("_chem_link.", tags)
    for name, (sides, values, torsions, planes) in LINKS.items():
        index.add_row([name, *(x or "." for side in sides for x in side), name])
        block = doc.add_new_block(f"link_{name}")
        _link_loop(block, name, "bond", 2, {k: v for k, v in values.items() if len(k) == 4})
        _link_loop(block, name, "angle", 3, {k: v for k, v in values.items() if len(k) == 6})
        if torsions:
            tags = ["link_id", "id"]
            for i in range(1, 5):
                tags += [f"atom_{i}_comp_id", f"atom_id_{i}"]
            loop = block.init_loop("_chem_link_tor.", [*tags, "value_angle", "value_angle_esd", "period"])
            for label, (*atoms, value, sigma, period) in torsions.items():
                flat = [str(x) for a in atoms for x in a]
                loop.add_row([name, label, *flat, f"{value:.1f}", f"{sigma:.1f}", str(period)])
        if planes:
            loop = block.init_loop(
                "_chem_link_plane.", ["link_id", "plane_id", "atom_comp_id", "atom_id", "dist_esd"]
            )
            for i, atoms in enumerate(planes):
                for side, atom in atoms:
                    loop.add_row([name, f"plan-{i + 1}", str(side), cif.quote(atom), "0.020"])


def _link_loop(block, name, kind, n, values):
    if not values:
        return
    tags = ["link_id"]
    for i in range(1, n + 1):
        tags += [f"atom_{i}_comp_id", f"atom_id_{i}"]
    quantity = {"bond": "value_dist", "angle": "value_angle"}[kind]
    extra = ["type"] if kind == "bond" else []
    loop = block.init_loop(f"_chem_link_{kind}.", [*tags, *extra, quantity, f"{quantity}_esd"])
    for atoms, (value, sigma) in values.items():
        flat = [cif.quote(str(a)) for a in atoms]
        middle = ["SINGLE"] if kind == "bond" else []
        loop.add_row([name, *flat, *middle, f"{value:.3f}", f"{sigma:.3f}"])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--acedrg", type=Path, required=True, help="folder of the binaries of AceDRG's environment"
    )
    p.add_argument("--work", type=Path, required=True, help="folder for files made on the way")
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--out", type=Path, default=TARGET)
    p.add_argument("--only-ready", action="store_true", help="use what the work folder has, run nothing")
    a = p.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    work = a.work.resolve()
    if a.only_ready:
        made = [p if (p := work / f"out_{n}.cif").exists() and p.stat().st_size else None for n in COMPONENTS]
    else:
        with ThreadPoolExecutor(a.jobs) as pool:
            made = list(pool.map(lambda n: run_acedrg(n, a.acedrg.resolve(), work), COMPONENTS))
    doc = cif.Document()
    listing = doc.add_new_block("comp_list")
    tags = ["id", "three_letter_code", "name", "group", "number_atoms_all", "number_atoms_nh"]
    loop = listing.init_loop("_chem_comp.", tags)
    rows = [add_component(doc, f, n, group_of(work, n)) for n, f in zip(COMPONENTS, made, strict=True) if f]
    for name, group, n_all, n_heavy in sorted(rows + add_simple(doc)):
        loop.add_row([name, name, name, group, str(n_all), str(n_heavy)])
    add_modifications(doc)
    add_links(doc)
    a.out.write_bytes(gzip.compress(doc.as_string().encode(), 9, mtime=0))
    missing = [n for n, f in zip(COMPONENTS, made, strict=True) if f is None]
    print(f"{len(rows)} components, {len(LINKS)} links: {a.out}, {a.out.stat().st_size / 1e3:.0f} kB")
    if missing:
        print("not made: " + " ".join(missing), file=sys.stderr)
    gemmi.MonLib().read_monomer_doc(cif.read_string(gzip.decompress(a.out.read_bytes()).decode()))


if __name__ == "__main__":
    main()
