"""Restraints of deposited models, with their own dictionary: deviations against gemmi's, and what is found."""

import gemmi
import numpy as np
import pytest
import torch

from bayesref.io.structure import read_structure
from bayesref.restraints import dictionary
from bayesref.restraints.hydrogens import add_riding
from bayesref.restraints.occupancy import occupancy_groups
from bayesref.restraints.report import geometry_report, measured
from bayesref.restraints.restraints import build_restraints
from bayesref.restraints.topology import prepared_structure

pytestmark = pytest.mark.data

# File, residues left without restraints, and range of the rmsZ of its bonds.
MODELS = {
    "peptide": ("5e5z/5e5z.pdb", (), (0.3, 1.5)),
    "ferredoxin": ("1dur/1dur.pdb", ("SF4",), (0.3, 2)),
    "lysozyme": ("hewl/RTSAD_HEWL_refine_25.pdb", (), (0.3, 2)),
    "yellow protein": ("pyp/off.pdb", ("HC4",), (0.3, 2)),
    "green protein": ("8a6g/8a6g.pdb", ("OHD",), (0.3, 2)),
    "interleukin": ("1l2h/1l2h.cif", (), (0.3, 2)),
}


@pytest.fixture(params=MODELS, ids=lambda n: n.replace(" ", "_"))
def model(request, data_dir):
    """Crystal, dictionary, names left out, and the range of rmsZ."""
    file, unrestrained, limits = MODELS[request.param]
    crystal = read_structure(data_dir / file)
    names = {n.split("/")[1].split()[0] for n in crystal.name} - set(unrestrained)
    return crystal, dictionary.load_dictionary(sorted(names)).monlib, unrestrained, limits


def test_bonds_are_as_good_as_deposited_ones(model):
    crystal, monlib, unrestrained, (low, high) = model
    restraints = build_restraints(crystal, monlib, unrestrained=unrestrained)
    report = geometry_report(restraints, crystal.xyz, crystal.B)
    assert low < report.deviations[0].rmsZ < high
    assert report.favoured > 0.9
    assert set(report.unrestrained) == set(unrestrained)


def test_deviations_are_those_of_gemmi(model):
    crystal, monlib, unrestrained, _ = model
    if unrestrained or any(crystal.altloc):
        pytest.skip("gemmi restrains what is left out here")
    structure = prepared_structure(crystal)
    topo = gemmi.prepare_topology(structure, monlib, warnings=[].append)
    table = measured(build_restraints(crystal, monlib), crystal.xyz)
    for kind, theirs in (("bonds", topo.bonds), ("angles", topo.angles)):
        value, target, sigma, _ = table[kind]
        ours = np.sort(((value - target) / sigma).abs().numpy())
        np.testing.assert_allclose(ours, np.sort([t.calculate_z() for t in theirs]), atol=1e-4)


def test_value_and_slope_agree_with_torch(model):
    crystal, monlib, unrestrained, _ = model
    restraints = build_restraints(crystal, monlib, unrestrained=unrestrained, ramachandran=True)
    x = crystal.xyz.clone().requires_grad_()
    log_p = restraints.log_prob(x)
    (slope,) = torch.autograd.grad(log_p, x)
    value, compiled = restraints.value_and_grad(crystal.xyz.numpy())
    assert value == pytest.approx(float(log_p.detach()), rel=1e-10)
    np.testing.assert_allclose(compiled, slope, atol=1e-6)
    H = restraints.hessian(crystal.xyz.numpy())
    assert abs(H - H.T).max() < 1e-6 * abs(H).max()
    v = np.random.default_rng(0).normal(size=(H.shape[0], 20))
    assert ((v * (H @ v)).sum(0) > 0).all()


def test_disulfides_and_conformers_of_lysozyme(data_dir):
    crystal = read_structure(data_dir / MODELS["lysozyme"][0])
    monlib = dictionary.load_dictionary(sorted({n.split("/")[1].split()[0] for n in crystal.name})).monlib
    restraints = build_restraints(crystal, monlib)
    sulfur = [i for i, n in enumerate(crystal.name) if n.split("/")[2] == "SG"]
    bonds = restraints.bonds.atoms
    bridges = bonds[np.isin(bonds, sulfur).all(1)]
    assert len(bridges) == 4
    groups = occupancy_groups(crystal)
    assert groups
    for conformers in groups:
        total = sum(float(crystal.occupancy[rows[0]]) for _, rows in conformers)
        assert total == pytest.approx(1, abs=0.05)


def test_hydrogens_of_the_yellow_protein(data_dir):
    crystal = read_structure(data_dir / "pyp/off.pdb")
    names = {n.split("/")[1].split()[0] for n in crystal.name} - {"HC4"}
    monlib = dictionary.load_dictionary(sorted(names)).monlib
    riding = add_riding(crystal, monlib, unrestrained=("HC4",))
    assert 0.8 < len(riding.hydrogen) / len(riding.heavy) < 1.2
    length = riding.offset.norm(dim=1)
    assert 0.8 < length.min() < length.max() < 1.4
    torch.testing.assert_close(riding.place(crystal.xyz), riding.crystal.xyz, atol=1e-4, rtol=0)


def test_a_missing_nitrogen_is_reported(data_dir):
    """The model of the later state has no N in Thr 70: no peptide bond there, and no false one."""
    crystal = read_structure(data_dir / "pyp/2ms.pdb")
    names = {n.split("/")[1].split()[0] for n in crystal.name} - {"HC4"}
    restraints = build_restraints(
        crystal, dictionary.load_dictionary(sorted(names)).monlib, unrestrained=("HC4",)
    )
    assert restraints.topology.missing_atoms == ("A/THR 70/N",)
