"""Read and write models: PDB, mmCIF and mmJSON, plain or gzipped."""

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
    if not path.is_file():
        raise InputError(f"There is no model file {path}.")
    try:
        structure = gemmi.read_structure(str(path), merge_chain_parts=False)
    except (RuntimeError, ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable PDB or mmCIF model: {error}") from error
    if any(not op.given for op in structure.ncs):
        structure.expand_ncs(gemmi.HowToNameCopiedChain.Short)
    try:
        return crystal_from_gemmi(structure, hydrogens, charges)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def write_structure(crystal: Crystal, path: str | Path) -> None:
    """Write the crystal's parameters into a copy of its hierarchy: mmCIF for .cif and .mmcif, otherwise PDB."""
    structure = gemmi_from_crystal(crystal)
    if Path(path).suffix in (".cif", ".mmcif"):
        structure.make_mmcif_document().write_file(str(path))
    else:
        structure.write_pdb(str(path))
