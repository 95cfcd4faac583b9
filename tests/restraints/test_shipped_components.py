"""Components and links of the shipped dictionary: published values, links of a chain, geometry of deposited models."""

import gzip
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import gemmi
import numpy as np
import pytest

from bayesref.restraints.dictionary import SHIPPED, load_dictionary

TOOLS = Path(__file__).parents[2] / "tools"
COMPONENTS = [
    *(
        "MSE",
        "SEP",
        "TPO",
        "PTR",
        "PCA",
        "HYP",
        "KCX",
        "CSO",
        "LLP",
        "LYR",
        "A",
        "C",
        "G",
        "U",
        "DA",
        "DC",
        "DG",
        "DT",
    ),
    *(
        "HOH",
        "DOD",
        "NA",
        "MG",
        "K",
        "CA",
        "MN",
        "FE",
        "FE2",
        "CO",
        "NI",
        "CU",
        "ZN",
        "CD",
        "HG",
        "CL",
        "BR",
        "IOD",
    ),
    *(
        "HEM",
        "HEC",
        "SF4",
        "F3S",
        "FES",
        "FAD",
        "FMN",
        "NAD",
        "NAP",
        "NDP",
        "ATP",
        "ADP",
        "AMP",
        "GTP",
        "GDP",
        "COA",
    ),
    *(
        "SAM",
        "SAH",
        "PLP",
        "GOL",
        "EDO",
        "PEG",
        "PG4",
        "SO4",
        "PO4",
        "ACT",
        "CIT",
        "DMS",
        "NAG",
        "MAN",
        "GLC",
        "FUC",
    ),
    *("HC4", "RET", "CRO", "CR2", "CRQ", "GYS", "OHD", "ACE", "NH2", "OXY", "CMO", "NO", "CYN"),
]
# file, rmsZ of bonds and of angles that its own refinement left, links
MODELS = {
    "peptide": ("5e5z/5e5z.pdb", 1.0, 1.5, set()),
    "ferredoxin": ("1dur/1dur.pdb", 1.2, 1.2, {f"CYS-SF4-FE{i}" for i in (1, 2, 3, 4)}),
    "lysozyme": ("hewl/RTSAD_HEWL_refine_25.pdb", 1.2, 1.2, {"SS"}),
    "yellow protein": ("pyp/off.pdb", 1.5, 1.2, {"HC4-CYS"}),
    "its later state": ("pyp/2ms.pdb", 1.2, 1.2, {"HC4-CYS"}),
    # its chromophore has single bonds where the component has C=O (1.47 Å) and C=C (1.48 Å)
    "green protein": ("8a6g/8a6g.pdb", 2.0, 1.5, {"PEP-OHD", "OHD-PEP"}),
    "interleukin": ("1l2h/1l2h.cif", 1.2, 1.7, set()),
}


def read(path):
    structure = gemmi.read_structure(str(path))
    structure.setup_entities()
    structure.remove_hydrogens()
    names = {r.name for chain in structure[0] for r in chain}
    dictionary = load_dictionary(sorted(names))
    assert set(dictionary.source.values()) == {SHIPPED}
    return structure, dictionary.monlib


def rmsz(restraints):
    z = [r.calculate_z() for r in restraints if r.restr.esd > 0 and not any(a.is_hydrogen() for a in r.atoms)]
    return float(np.sqrt(np.mean(np.square(z))))


def value(component, *atoms):
    """(value, σ) of a bond or angle."""
    table = component.rt.bonds if len(atoms) == 2 else component.rt.angles
    ids = ("id1", "id2", "id3")[: len(atoms)]
    for r in table:
        found = tuple(getattr(r, i).atom for i in ids)
        if atoms in (found, found[::-1]):
            return r.value, r.esd
    raise KeyError(atoms)


@pytest.mark.data
@pytest.mark.parametrize("model", MODELS, ids=lambda n: n.replace(" ", "_"))
def test_deposited_models_fit(model, data_dir):
    file, bonds, angles, links = MODELS[model]
    structure, monlib = read(data_dir / file)
    messages = []
    topo = gemmi.prepare_topology(structure, monlib, warnings=messages.append)
    assert 0.4 < rmsz(topo.bonds) < bonds
    assert 0.4 < rmsz(topo.angles) < angles
    assert {e.link_id for e in topo.extras} == links


@pytest.mark.data
def test_a_chromophore_without_link_records_stays_in_its_chain(data_dir):
    structure, monlib = read(data_dir / "8a6g/8a6g.pdb")
    structure.connections.clear()
    topo = gemmi.prepare_topology(structure, monlib, warnings=[].append)
    pairs = [{a.name for a in b.atoms} for b in topo.bonds]
    assert pairs.count({"C", "N1"}) == pairs.count({"C3", "N"}) == 3  # conformers A, B, C


@pytest.mark.data
def test_a_dictionary_of_the_user_wins(data_dir):
    own = data_dir / "pyp/ligands.cif"
    found = load_dictionary(["HC4", "ALA"], [own])
    assert found.source == {"HC4": str(own), "ALA": SHIPPED}
    assert value(found.monlib.monomers["HC4"], "C4'", "O4'")[0] == 1.401  # as the file has it


def test_what_is_described():
    monlib = load_dictionary(COMPONENTS).monlib
    for name in COMPONENTS:
        component = monlib.monomers[name]
        for b in component.rt.bonds:
            hydrogen = (
                component.get_atom(b.id1.atom).is_hydrogen() or component.get_atom(b.id2.atom).is_hydrogen()
            )
            low, high = (0.7, 1.5) if hydrogen else (1.1, 2.5)
            assert low < b.value < high, (name, b.id1.atom, b.id2.atom)
            assert b.value_nucleus >= b.value - 1e-6, (name, b.id1.atom, b.id2.atom)
            assert 0.004 < b.esd < 0.12, (name, b.id1.atom, b.id2.atom)
        assert all(50 < a.value <= 180 and a.esd > 0 for a in component.rt.angles), name


@pytest.mark.parametrize(
    ("name", "atoms", "expected"),
    [
        # Engh & Huber (2001), International Tables F, table 18.3.2.3
        ("LEU", ("N", "CA", "C"), (111.0, 2.7)),
        ("GLY", ("N", "CA", "C"), (113.1, 2.5)),
        ("PRO", ("N", "CA", "C"), (112.1, 2.6)),
        ("GLY", ("CA", "C"), (1.514, 0.016)),
        ("MSE", ("CA", "C"), (1.525, 0.026)),
        ("VAL", ("CA", "CB"), (1.543, 0.021)),
        ("PRO", ("N", "CA", "CB"), (103.3, 1.2)),
    ],
)
def test_backbones_are_those_of_chains(name, atoms, expected):
    found = value(load_dictionary([name]).monlib.monomers[name], *atoms)
    assert found == pytest.approx(expected, abs=1e-3)


def test_pyroglutamate_is_a_lactam():
    """2-pyrrolidinone: N-C 1.335, C=O 1.232 Å (Allen et al. 1987); a planar nitrogen with one hydrogen."""
    component = load_dictionary(["PCA"]).monlib.monomers["PCA"]
    assert value(component, "N", "CD")[0] == pytest.approx(1.335, abs=0.01)
    assert value(component, "CD", "OE")[0] == pytest.approx(1.232, abs=0.01)
    around = sum(value(component, *t)[0] for t in (("CA", "N", "CD"), ("CA", "N", "H"), ("CD", "N", "H")))
    assert around == pytest.approx(360, abs=0.5)
    assert "H2" not in [a.id for a in component.atoms]


def test_angles_about_flat_atoms_sum_to_a_turn():
    """The three angles of an atom between three others in one plane: true of any planar centre."""
    monlib = load_dictionary(COMPONENTS).monlib
    checked = 0
    for name in ("CRO", "HC4", "HEM", "FAD", "PLP", "DG", "NAP"):
        component = monlib.monomers[name]
        planes = [{i.atom for i in p.ids} for p in component.rt.planes]
        for centre in component.atoms:
            angles = [a for a in component.rt.angles if a.id2.atom == centre.id]
            ends = {i for a in angles for i in (a.id1.atom, a.id3.atom)}
            if len(angles) == 3 and len(ends) == 3 and any(ends | {centre.id} <= p for p in planes):
                assert sum(a.value for a in angles) == pytest.approx(360, abs=2), (name, centre.id)
                checked += 1
    assert checked > 80


@pytest.mark.skipif(not shutil.which("acedrg"), reason="AceDRG and biotite are not installed")
def test_acedrg_makes_what_is_shipped(tmp_path):
    """Formate and acetate again, from the Chemical Component Dictionary."""
    tool = "import make_dictionary as m, sys; m.COMPONENTS = ['FMT', 'ACT']; m.main()"
    out, binaries = tmp_path / "d.cif.gz", Path(shutil.which("acedrg")).parent
    command = [
        sys.executable,
        "-c",
        tool,
        "--acedrg",
        str(binaries),
        "--work",
        str(tmp_path),
        "--out",
        str(out),
    ]
    subprocess.run(command, cwd=TOOLS, check=True, capture_output=True)
    made = gemmi.cif.read_string(gzip.decompress(out.read_bytes()).decode())
    shipped = gzip.decompress((files("bayesref.restraints") / "dictionary.cif.gz").read_bytes()).decode()
    shipped = gemmi.cif.read_string(shipped)
    for name in ("comp_FMT", "comp_ACT"):
        assert made.find_block(name).as_string() == shipped.find_block(name).as_string()
