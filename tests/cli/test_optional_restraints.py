"""`bayesref refine --ramachandran` and `--ncs`, on a small peptide."""

import gemmi
import pytest

from bayesref.cli.app import main
from bayesref.crystal.atoms import crystal_from_gemmi
from bayesref.restraints import ramachandran
from bayesref.restraints.dictionary import load_dictionary
from bayesref.restraints.restraints import build_restraints


@pytest.fixture(scope="module")
def peptide(tmp_path_factory):
    """A function that refines it for two cycles with these options: exit code and folder of results."""

    def refine(data_dir, *options):
        folder = tmp_path_factory.mktemp("peptide")
        structure = gemmi.read_structure(str(data_dir / "5e5z" / "5e5z.pdb"))
        for cra in structure[0].all():
            cra.atom.b_iso = max(cra.atom.b_iso, 5.0)  # one is zero
        structure.write_pdb(str(folder / "model.pdb"))
        command = ["refine", folder / "model.pdb", data_dir / "5e5z" / "5e5z.mtz", "--out", folder / "out"]
        with pytest.raises(SystemExit) as end:
            main([*map(str, command), "--cycles", "2", "--quiet", *options])
        return end.value.code or 0, folder / "out"

    return refine


def test_backbone_torsions_are_drawn_to_their_regions(data_dir, peptide):
    likely = []
    for options in ((), ("--ramachandran",)):
        code, out = peptide(data_dir, *options)
        assert code == 0
        structure = gemmi.read_structure(str(out / "refined.pdb"))
        structure.remove_hydrogens()
        crystal = crystal_from_gemmi(structure)
        monlib = load_dictionary(sorted({r.name for r in structure[0][0]})).monlib
        table = build_restraints(crystal, monlib, ramachandran=True).ramachandran
        assert len(table) == 4  # of six residues, the ends have no pair
        angles = ramachandran.torsions(crystal.xyz, table)
        likely.append(float(ramachandran.log_density(*angles, table.kind).sum()))
    assert likely[1] > likely[0] + 0.01


def test_one_chain_has_no_copies(data_dir, peptide, capsys):
    code, _ = peptide(data_dir, "--ncs")
    assert code == 2
    assert "No two chains of the model have one sequence" in capsys.readouterr().err
