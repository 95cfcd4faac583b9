"""The dictionary that bayesref ships, where descriptions are looked for, and what is said when there is none."""

import gzip
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import gemmi
import pytest

from bayesref._checks import InputError
from bayesref.restraints.dictionary import SHIPPED, guess_monomer, load_dictionary

AMINO_ACIDS = [
    *("ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE"),
    *("LEU", "LYS", "MET", "PHE", "PRO", "SER", "THR", "TRP", "TYR", "VAL"),
]
LIGAND = """
data_comp_list
loop_
_chem_comp.id
_chem_comp.name
_chem_comp.group
{name} {name} non-polymer
data_comp_{name}
loop_
_chem_comp_atom.comp_id
_chem_comp_atom.atom_id
_chem_comp_atom.type_symbol
_chem_comp_atom.type_energy
{name} C1 C C
{name} O1 O O
loop_
_chem_comp_bond.comp_id
_chem_comp_bond.atom_id_1
_chem_comp_bond.atom_id_2
_chem_comp_bond.type
_chem_comp_bond.value_dist
_chem_comp_bond.value_dist_esd
{name} C1 O1 double {length} 0.02
"""


def bond(component, a, b):
    r = next(r for r in component.rt.bonds if {r.id1.atom, r.id2.atom} == {a, b})
    return r.value, r.esd


def test_it_is_small_and_whole():
    assert len((files("bayesref.restraints") / "dictionary.cif.gz").read_bytes()) < 1_000_000
    d = load_dictionary([*AMINO_ACIDS, "HOH", "SF4", "HC4", "ZN", "CL"])
    assert set(d.source.values()) == {SHIPPED}
    for name in AMINO_ACIDS:
        component = d.monlib.monomers[name]
        assert component.group in (gemmi.ChemComp.Group.Peptide, gemmi.ChemComp.Group.PPeptide)
        assert all(r.value > 0.8 for r in component.rt.bonds)
        assert all(r.esd > 0 for r in component.rt.bonds)


@pytest.mark.parametrize(
    ("name", "a", "b", "length", "within"),
    [
        # Engh & Huber (2001), International Tables F, table 18.3.2.3
        ("CYS", "CB", "SG", 1.812, 0.02),
        ("PHE", "CG", "CD1", 1.383, 0.02),
        ("VAL", "CB", "CG1", 1.524, 0.02),
        ("SER", "CB", "OG", 1.418, 0.02),
        ("ARG", "CZ", "NH1", 1.326, 0.02),
        ("TRP", "CD1", "NE1", 1.375, 0.02),
        ("MET", "SD", "CE", 1.774, 0.04),
        ("ASP", "CG", "OD1", 1.249, 0.02),
    ],
)
def test_side_chains_agree_with_small_molecules(name, a, b, length, within):
    value, esd = bond(load_dictionary([name]).monlib.monomers[name], a, b)
    assert value == pytest.approx(length, abs=within)
    assert 0.005 < esd < 0.04


def chain_of(*names):
    """An extended chain with the atoms N, CA, C, O of each residue."""
    structure, model, chain = gemmi.Structure(), gemmi.Model(1), gemmi.Chain("A")
    structure.cell = gemmi.UnitCell(50, 50, 50, 90, 90, 90)
    structure.spacegroup_hm = "P 1"
    for i, name in enumerate(names):
        residue = gemmi.Residue()
        residue.name, residue.seqid = name, gemmi.SeqId(str(i + 1))
        residue.entity_type = gemmi.EntityType.Polymer
        for atom_name, x, y in (("N", 0, 0), ("CA", 1.2, 0.8), ("C", 2.5, 0.1), ("O", 2.6, -1.1)):
            atom = gemmi.Atom()
            atom.name, atom.element = atom_name, gemmi.Element(atom_name[0])
            atom.pos = gemmi.Position(x + 3.7 * i, 0.9 - y if i % 2 else y, 0)  # trans
            residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    return structure


def test_a_peptide_has_the_backbone_of_engh_and_huber():
    structure = chain_of("ALA", "GLY", "PRO", "ALA")
    topo = gemmi.prepare_topology(structure, load_dictionary(["ALA", "GLY", "PRO"]).monlib)
    values = {}
    for b in topo.bonds:
        values.setdefault(frozenset(a.name for a in b.atoms), []).append(b.restr.value)
    assert max(values[frozenset("CN")]) == pytest.approx(1.338, abs=1e-6)
    assert min(values[frozenset("CN")]) == pytest.approx(1.336, abs=1e-6)
    assert values[frozenset({"C", "O"})][0] == pytest.approx(1.229)
    assert values[frozenset({"CA", "C"})][0] == pytest.approx(1.525)
    assert values[frozenset({"N", "CA"})][1] == pytest.approx(1.459)
    omega = [t.restr.value for t in topo.torsions if [a.name for a in t.atoms] == ["CA", "C", "N", "CA"]]
    assert omega == [180.0, 180.0, 180.0]


def test_files_of_the_user_come_first_then_a_library(tmp_path, monkeypatch):
    monkeypatch.delenv("CLIBD_MON", raising=False)
    mine, library = tmp_path / "mine.cif", tmp_path / "lib"
    (library / "z").mkdir(parents=True)
    (library / "z" / "ZZZ.cif").write_text(LIGAND.format(name="ZZZ", length=1.30))
    mine.write_text(LIGAND.format(name="ZZZ", length=1.25))
    found = load_dictionary(["ZZZ", "ALA"], monlib=library)
    assert found.source == {"ZZZ": str(library / "z" / "ZZZ.cif"), "ALA": SHIPPED}
    assert bond(found.monlib.monomers["ZZZ"], "C1", "O1")[0] == 1.30
    found = load_dictionary(["ZZZ"], [mine], monlib=library)
    assert found.source == {"ZZZ": str(mine)}
    assert bond(found.monlib.monomers["ZZZ"], "C1", "O1")[0] == 1.25
    monkeypatch.setenv("CLIBD_MON", str(library))
    assert load_dictionary(["ZZZ"]).source["ZZZ"].startswith(str(library))


def test_an_unknown_residue_has_three_remedies():
    with pytest.raises(InputError, match=r"QQQ.*dictionary file.*--unrestrained QQQ.*--guess QQQ"):
        load_dictionary(["ALA", "QQQ"])
    assert set(load_dictionary(["ALA", "QQQ"], unrestrained=["QQQ"]).source) == {"ALA"}
    assert set(load_dictionary(["ALA", "QQQ"], guess=["QQQ"]).source) == {"ALA"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no dictionary file"),
        ("data_comp_ZZZ\nloop_\n_a", "not a readable monomer dictionary"),
        ("data_model\n_cell.length_a 10\n", "describes no component"),
        (LIGAND.format(name="ZZZ", length=1.2).replace("value_dist", "ideal"), "no bond lengths for ZZZ"),
    ],
)
def test_files_that_are_no_dictionary(tmp_path, text, message):
    path = tmp_path / "mine.cif"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_dictionary(["ZZZ"], [path])


def test_no_such_library(tmp_path):
    with pytest.raises(InputError, match="no monomer library"):
        load_dictionary(["ALA"], monlib=tmp_path / "none")


def test_a_guess_is_the_present_geometry():
    residue = chain_of("QQQ")[0]["A"][0]
    guess = guess_monomer(residue)
    assert len(guess.rt.bonds) == 3
    assert bond(guess, "N", "CA")[0] == pytest.approx((1.2**2 + 0.8**2) ** 0.5, abs=1e-3)
    assert len(guess.rt.angles) == 2


TOOLS = Path(__file__).parents[2] / "tools"


def test_the_tool_makes_what_is_shipped(tmp_path):
    """Links, ions, water and clusters, which need neither AceDRG nor biotite."""
    command = [sys.executable, "make_dictionary.py", "--acedrg", ".", "--work", str(tmp_path), "--only-ready"]
    out = tmp_path / "d.cif.gz"
    subprocess.run([*command, "--out", str(out)], cwd=TOOLS, check=True, capture_output=True)
    made = gemmi.cif.read_string(gzip.decompress(out.read_bytes()).decode())
    shipped = (files("bayesref.restraints") / "dictionary.cif.gz").read_bytes()
    shipped = gemmi.cif.read_string(gzip.decompress(shipped).decode())
    for block in made:
        if block.name != "comp_list":
            assert shipped.find_block(block.name).as_string() == block.as_string(), block.name
