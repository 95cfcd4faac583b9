"""Descriptions of residues: where they are looked for, and what to do about one that is described nowhere.

1. CIF files of the user, in the order given
2. a CCP4 monomer library (`monlib`, else $CLIBD_MON), complete or not
3. the dictionary that comes with bayesref (made by tools/make_dictionary.py)

The first that describes a residue counts. Links and modifications come from the same places.
"""

import gzip
import itertools
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import gemmi
from gemmi import cif

from bayesref._checks import InputError

SHIPPED = "the dictionary of bayesref"
# of a description guessed from coordinates: wide enough for those of a medium-resolution model
GUESS_BOND, GUESS_ANGLE = 0.04, 4.0  # Å, degrees
BOND_TOLERANCE = 0.35  # Å beyond the sum of covalent radii


@dataclass(frozen=True)
class Dictionary:
    """Descriptions of the residues of a model.

    Attributes
    ----------
    monlib : gemmi.MonLib
    source : residue name -> where its description came from
    """

    monlib: gemmi.MonLib
    source: dict[str, str]


def load_dictionary(
    names: Iterable[str],
    user_files: Sequence[str | Path] = (),
    monlib: str | Path | None = None,
    unrestrained: Iterable[str] = (),
    guess: Iterable[str] = (),
) -> Dictionary:
    """Descriptions of residues, from the first place that has each.

    Parameters
    ----------
    names : of residues
    user_files : CIF files
    monlib : folder of a CCP4 monomer library; default $CLIBD_MON where that is set
    unrestrained, guess : residues that need no description, for they shall have none or one of their coordinates

    Raises
    ------
    InputError
        For a file that cannot be read or has no restraints, and for residues that are described nowhere.
    """
    library = gemmi.MonLib()
    source: dict[str, str] = {}
    wanted = [n for n in dict.fromkeys(names) if n not in {*unrestrained, *guess}]
    # A library keeps the first description that it reads of anything.
    for file in user_files:
        source |= _read_user(library, Path(file), [n for n in wanted if n not in source])
    folder = monlib if monlib is not None else os.environ.get("CLIBD_MON")
    if folder:
        left = [n for n in wanted if n not in source]
        source |= _read_folder(library, Path(folder), left, asked=monlib is not None)
    library.read_monomer_doc(_only(_shipped(), [n for n in wanted if n not in source]))
    source |= {n: SHIPPED for n in wanted if n in library.monomers and n not in source}
    missing = [n for n in wanted if n not in library.monomers]
    if missing:
        raise InputError(_advice(missing))
    return Dictionary(library, {n: source[n] for n in wanted})


def _shipped() -> cif.Document:
    data = (files("bayesref.restraints") / "dictionary.cif.gz").read_bytes()
    return cif.read_string(gzip.decompress(data).decode())


def _only(doc: cif.Document, names: list[str]) -> cif.Document:
    """The document with the components `names`, and all links and modifications."""
    out, keep = cif.Document(), {f"comp_{n}" for n in names}
    for block in doc:
        if not block.name.startswith("comp_") or block.name in keep or block.name == "comp_list":
            out.add_copied_block(block)
    return out


def _read_folder(library, folder: Path, names, asked: bool) -> dict[str, str]:
    """What a CCP4 library has of these residues; links of a complete one."""
    if not folder.is_dir():
        if asked:
            raise InputError(
                f"There is no monomer library {folder}; give a folder with files such as a/ALA.cif."
            )
        return {}
    found = {}
    lists = [p for p in (folder / "list" / "mon_lib_list.cif", folder / "links_and_mods.cif") if p.is_file()]
    for path in lists:
        _read(library, path)
    for name in names:
        path = folder / name[0].lower() / f"{name}.cif"
        if path.is_file():
            _check_restraints(_read(library, path), path)
            found[name] = str(path)
    if asked and names and not found and not lists:
        raise InputError(
            f"{folder} holds none of {', '.join(names)} (looked for {names[0][0].lower()}/{names[0]}.cif)."
        )
    return found


def _read_user(library, path: Path, names) -> dict[str, str]:
    doc = _read(library, path)
    _check_restraints(doc, path)
    described = {b.name.removeprefix("comp_") for b in doc if b.find_loop("_chem_comp_atom.atom_id")}
    return {n: str(path) for n in names if n in described}


def _read(library, path: Path) -> cif.Document:
    if not path.is_file():
        raise InputError(f"There is no dictionary file {path}.")
    try:
        doc = cif.read(str(path))
        library.read_monomer_doc(doc)
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{path} is not a readable monomer dictionary (CIF): {error}") from error
    return doc


def _check_restraints(doc: cif.Document, path: Path) -> None:
    """A component of several atoms needs bond lengths: files of the PDB have coordinates only."""
    blocks = [b for b in doc if b.find_loop("_chem_comp_atom.atom_id")]
    if not blocks and not any(b.name.startswith(("link_", "mod_")) for b in doc):
        raise InputError(
            f"{path} describes no component; expected data_comp_... blocks with bond lengths. "
            "Make one with AceDRG, Grade or eLBOW."
        )
    for block in blocks:
        atoms = block.find_loop("_chem_comp_atom.atom_id")
        if len(atoms) > 1 and not len(block.find_loop("_chem_comp_bond.value_dist")):
            raise InputError(
                f"{path} has no bond lengths for {block.name.removeprefix('comp_')} (coordinates only?); "
                "make restraints with AceDRG, Grade or eLBOW."
            )


def _advice(missing: list[str]) -> str:
    one = missing[0]
    return (
        f"No restraints are known for {', '.join(missing)}. Three ways on: a dictionary file (CIF, as AceDRG or Grade "
        f"make them); --unrestrained {one}, to let it move freely; or --guess {one}, to hold it near its present "
        "geometry."
    )


def guess_monomer(residue: gemmi.Residue) -> gemmi.ChemComp:
    """A description of a residue from its coordinates: bonds by covalent radii; lengths and angles with wide σ."""
    name = residue.name
    first = next((a.altloc for a in residue if a.has_altloc()), "\0")
    atoms = [a for a in residue if a.altloc in ("\0", first)]
    bonds = [
        (i, j) for i, j in itertools.combinations(range(len(atoms)), 2)
        if atoms[i].pos.dist(atoms[j].pos)
        < atoms[i].element.covalent_r + atoms[j].element.covalent_r + BOND_TOLERANCE
        and not (atoms[i].is_hydrogen() and atoms[j].is_hydrogen())
    ]  # fmt: skip
    doc = cif.Document()
    block = doc.add_new_block(f"comp_{name}")
    loop = block.init_loop("_chem_comp_atom.", ["comp_id", "atom_id", "type_symbol", "type_energy", "charge"])
    for a in atoms:
        loop.add_row([name, cif.quote(a.name), a.element.name, a.element.name.upper(), str(a.charge)])
    loop = block.init_loop(
        "_chem_comp_bond.",
        ["comp_id", "atom_id_1", "atom_id_2", "type", "aromatic", "value_dist", "value_dist_esd"],
    )
    for i, j in bonds:
        length = atoms[i].pos.dist(atoms[j].pos)
        pair = [cif.quote(atoms[i].name), cif.quote(atoms[j].name)]
        loop.add_row([name, *pair, "single", "n", f"{length:.3f}", f"{GUESS_BOND:.3f}"])
    tags = ["comp_id", "atom_id_1", "atom_id_2", "atom_id_3", "value_angle", "value_angle_esd"]
    loop = block.init_loop("_chem_comp_angle.", tags)
    partners: dict[int, list[int]] = {}
    for i, j in bonds:
        partners.setdefault(i, []).append(j)
        partners.setdefault(j, []).append(i)
    for centre, ends in sorted(partners.items()):
        for i, j in itertools.combinations(sorted(ends), 2):
            angle = math.degrees(gemmi.calculate_angle(atoms[i].pos, atoms[centre].pos, atoms[j].pos))
            triple = [cif.quote(atoms[k].name) for k in (i, centre, j)]
            loop.add_row([name, *triple, f"{angle:.2f}", f"{GUESS_ANGLE:.2f}"])
    return gemmi.make_chemcomp_from_block(block)
