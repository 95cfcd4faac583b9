"""Read and write models: PDB, mmCIF and mmJSON, plain or gzipped."""

from collections import Counter
from pathlib import Path

import gemmi

from bayesref._checks import InputError
from bayesref.crystal.atoms import Crystal, crystal_from_gemmi, gemmi_from_crystal


def read_structure(path: str | Path, hydrogens: bool = True, charges: bool = False) -> Crystal:
    """The first model of a coordinate file, with strict NCS expanded.

    Parameters
    ----------
    path : .pdb, .ent, .cif, .mmcif or .json, also .gz
    hydrogens, charges : see `bayesref.crystal.atoms.crystal_from_gemmi`

    Raises
    ------
    InputError
        Where the file is missing, unreadable, or holds no crystal.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a directory; give a model, PDB or mmCIF.")
    if not path.is_file():
        raise InputError(f"There is no model file {path}; check the name.")
    try:
        structure = gemmi.read_structure(str(path), merge_chain_parts=False)
    except (RuntimeError, ValueError, IndexError, OSError) as error:
        raise InputError(
            f"{path} is not a readable PDB or mmCIF model ({error}); give one that is."
        ) from error
    if any(not op.given for op in structure.ncs):
        structure.expand_ncs(gemmi.HowToNameCopiedChain.Short)
    try:
        return crystal_from_gemmi(structure, hydrogens, charges)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def check_refinable(crystal: Crystal, path: str | Path) -> None:
    """Raise `InputError` for atoms that cannot be refined: twice the same name, B not above zero."""
    twice = [name for name, n in Counter(crystal.name).items() if n > 1]
    if twice:
        raise InputError(f"{path}: {len(twice)} atoms are there twice, the first is {twice[0]}; remove one.")
    rows = (crystal.B <= 0).nonzero()[:, 0].tolist()
    if rows:
        raise InputError(
            f"{path}: {len(rows)} atoms have a B factor of zero or less, the first is {crystal.name[rows[0]]}; "
            "give them a positive one, such as the mean."
        )


def write_structure(crystal: Crystal, path: str | Path) -> None:
    """Write the crystal's parameters into a copy of its hierarchy: mmCIF for .cif and .mmcif, otherwise PDB."""
    structure, path = gemmi_from_crystal(crystal), Path(path)
    # As text, since gemmi's own writers say nothing where the disk is full.
    mmcif = path.suffix in (".cif", ".mmcif")
    path.write_text(structure.make_mmcif_document().as_string() if mmcif else structure.make_pdb_string())
