"""Crystals from files and back, and the messages for bad ones."""

from dataclasses import replace

import gemmi
import pytest
import torch

from bayesref._checks import InputError
from bayesref.crystal.atoms import B_PER_U, check_crystal, crystal_from_gemmi, symmetric
from bayesref.crystal.cell import fractionalization, hkl_stol2, orthogonalization
from bayesref.crystal.operators import operators
from bayesref.io.structure import read_structure, write_structure

PDB = """\
CRYST1   20.000   22.000   24.000  90.00 100.00  90.00 P 1 21 1
ATOM      1  N   GLY A   1       1.000   2.000   3.000  1.00 10.00           N
ATOM      2  CA AGLY A   1       2.000   3.000   4.000  0.60 20.00           C
ANISOU    2  CA AGLY A   1     1000   2000   3000    100   -200    300       C
ATOM      3  CA BGLY A   1       2.100   3.000   4.000  0.40 21.00           C
HETATM    4 FE   FE  A   2       5.000   5.000   5.000  1.00 12.00          FE3+
ATOM      5  H   GLY A   1       1.000   2.000   4.000  1.00 10.00           H
END
"""


@pytest.fixture
def pdb(tmp_path):
    path = tmp_path / "model.pdb"
    path.write_text(PDB)
    return path


def test_every_field_is_read(pdb):
    crystal = read_structure(pdb, charges=True)
    assert crystal.scatterer == ("N", "C", "C", "H", "Fe3+") or set(crystal.scatterer) == {
        "N",
        "C",
        "H",
        "Fe3+",
    }
    i = crystal.name.index("A/GLY 1/CA/A")
    assert crystal.altloc[i] == "A"
    assert crystal.xyz[i].tolist() == [2.0, 3.0, 4.0]
    assert float(crystal.occupancy[i]) == pytest.approx(0.6)
    assert crystal.anisotropic.tolist() == [n == "A/GLY 1/CA/A" for n in crystal.name]
    assert crystal.U[i].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.01, -0.02, 0.03])
    assert float(crystal.B[i]) == pytest.approx(0.2 * B_PER_U)
    assert torch.equal(symmetric(crystal.U)[i], symmetric(crystal.U)[i].T)
    assert crystal.spacegroup.xhm() == "P 1 21 1"
    assert "H" not in read_structure(pdb, hydrogens=False).scatterer
    assert "Fe" in read_structure(pdb).scatterer  # charges are ignored unless asked for


@pytest.mark.parametrize("suffix", ["pdb", "cif"])
def test_moved_atoms_are_written_and_read_back(pdb, tmp_path, suffix):
    crystal = read_structure(pdb)
    moved = replace(crystal, xyz=crystal.xyz + 1.5, B=crystal.B + 1, occupancy=crystal.occupancy / 2)
    write_structure(moved, tmp_path / f"out.{suffix}")
    again = read_structure(tmp_path / f"out.{suffix}")
    assert again.name == crystal.name
    assert torch.allclose(again.xyz, moved.xyz, atol=1e-3)
    assert torch.allclose(again.occupancy, moved.occupancy, atol=5e-3)
    assert torch.allclose(again.B[~crystal.anisotropic], moved.B[~crystal.anisotropic], atol=5e-3)


def test_real_models_survive_a_round_trip(data_dir, tmp_path):
    for file in ("1dur/1dur.pdb", "1dur/1dur.cif", "5e5z/5e5z.pdb", "hewl/RTSAD_HEWL_refine_25.pdb"):
        crystal = read_structure(data_dir / file)
        write_structure(crystal, tmp_path / "x.cif")
        again = read_structure(tmp_path / "x.cif")
        assert again.name == crystal.name
        assert torch.allclose(again.xyz, crystal.xyz, atol=1e-3)
        assert crystal.U is None or torch.allclose(again.U, crystal.U, atol=1e-4)


def test_select_keeps_rows_together(pdb):
    crystal = read_structure(pdb)
    part = crystal.select(crystal.anisotropic)
    assert len(part) == 1
    assert part.name == ("A/GLY 1/CA/A",)
    assert part.U.shape == (1, 6)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.replace("CRYST1", "REMARK"), "lacks a unit cell"),
        (lambda s: "\n".join(s.splitlines()[:1]), "no atoms"),
        (
            lambda s: s.replace("          FE3+", "           X  ").replace("FE   FE ", " XX  UNX"),
            "no known element",
        ),
    ],
)
def test_bad_files_are_explained(tmp_path, edit, message):
    path = tmp_path / "bad.pdb"
    path.write_text(edit(PDB))
    with pytest.raises(InputError, match=message):
        read_structure(path)


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(InputError, match="no model file"):
        read_structure(tmp_path / "none.pdb")
    (tmp_path / "x.cif").write_text("data_\nloop_\n_a.b\n'unclosed\n")
    with pytest.raises(InputError, match="not a readable"):
        read_structure(tmp_path / "x.cif")


def test_bad_numbers_name_the_atom(pdb):
    crystal = read_structure(pdb)
    with pytest.raises(InputError, match="occupancy of A/GLY 1/N"):
        check_crystal(replace(crystal, occupancy=-crystal.occupancy))
    with pytest.raises(InputError, match="position of A/GLY 1/N is no number, like that of"):
        check_crystal(replace(crystal, xyz=crystal.xyz * float("nan")))
    with pytest.raises(InputError, match="each needs"):
        check_crystal(replace(crystal, B=crystal.B[:2]))
    with pytest.raises(InputError, match="no atoms"):
        crystal_from_gemmi(gemmi.Structure())


def test_cell_matrices_and_resolution():
    cell = gemmi.UnitCell(10, 20, 30, 80, 95, 105)
    assert torch.allclose(
        orthogonalization(cell) @ fractionalization(cell), torch.eye(3, dtype=torch.float64)
    )
    hkl = torch.tensor([[1, 2, 3], [-4, 0, 2]])
    d = [cell.calculate_d(h) for h in hkl.tolist()]
    assert torch.allclose(hkl_stol2(hkl, cell), 0.25 / torch.tensor(d, dtype=torch.float64) ** 2)


def test_operators_of_every_space_group_match_gemmi():
    hkl = torch.tensor([[1, -2, 3], [0, 4, -1]])
    for spacegroup in gemmi.spacegroup_table():
        ops, theirs = operators(spacegroup), list(spacegroup.operations())
        assert len(ops) == len(theirs)
        for g in (0, len(theirs) // 2, len(theirs) - 1):
            assert ops.hkl(hkl)[g].tolist() == [theirs[g].apply_to_hkl(h) for h in hkl.tolist()]
            shift = [-theirs[g].phase_shift(h) for h in hkl.tolist()]
            truth = torch.exp(1j * torch.tensor(shift, dtype=torch.float64))
            assert torch.allclose(ops.phase(hkl)[g], truth, atol=1e-12)
