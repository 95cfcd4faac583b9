"""The report against gemmi's own deviations; clashes, cis peptides, backbone."""

import json
import math

import gemmi
import numpy as np
import pytest
import torch
from small_molecule import crystal, dictionary

from bayesref.restraints.report import geometry_report, measured
from bayesref.restraints.restraints import build_restraints
from bayesref.restraints.topology import prepared_structure


@pytest.fixture
def distorted(molecules):
    c, restraints = molecules
    return c, restraints, c.xyz + 0.1 * torch.randn(12, 3, dtype=torch.float64)


def gemmi_scores(c, monlib, xyz):
    """Z of bonds, angles and chiral volumes, sorted by size."""
    structure = prepared_structure(c)
    for cra, x in zip(structure[0].all(), xyz.tolist(), strict=True):
        cra.atom.pos = gemmi.Position(*x)
    topo = gemmi.prepare_topology(structure, monlib, warnings=[].append)
    return {
        "bonds": sorted(b.calculate_z() for b in topo.bonds),
        "angles": sorted(a.calculate_z() for a in topo.angles),
        "chirals": sorted(t.calculate_z(topo.ideal_chiral_abs_volume(t), 0.2) for t in topo.chirs),
    }


def test_deviations_are_those_of_gemmi(distorted):
    c, restraints, xyz = distorted
    theirs = gemmi_scores(c, dictionary(), xyz)
    ours = {
        k: ((value - target) / sigma).abs().sort().values
        for k, (value, target, sigma, _) in measured(restraints, xyz).items()
    }
    report = {d.kind: d for d in geometry_report(restraints, xyz).deviations}
    for kind, z in theirs.items():
        np.testing.assert_allclose(ours[kind], z, rtol=1e-5)
        assert report[kind].rmsZ == pytest.approx(math.sqrt(np.square(z).mean()), rel=1e-5)
        assert report[kind].n_outlier == sum(x > 4 for x in z)


def test_worst_come_first_and_the_report_is_json(distorted):
    c, restraints, xyz = distorted
    far = xyz.clone()
    far[2] += torch.tensor([0.0, 2.0, 0.0])  # CB of the first molecule
    report = geometry_report(restraints, far, c.B, n_worst=4)
    assert "A/XAL 1/CB" in report.worst[0].atoms
    sizes = [abs(w.Z) for w in report.worst]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == 4
    assert json.loads(json.dumps(report.as_dict()))["deviations"][0]["kind"] == "bonds"
    assert report.rms_log_B == 0
    assert all(w in report.table() for w in ("bonds", "rmsZ", "A/XAL 1/CB"))


def test_torsions_and_volumes_deviate_from_the_nearest_maximum():
    c = crystal()
    restraints = build_restraints(c, dictionary("both"))
    for x in (c.xyz, c.xyz * torch.tensor([1.0, 1.0, -1.0])):
        z = {k: (v - t) / s for k, (v, t, s, _) in measured(restraints, x).items()}
        assert float(z["chirals"].abs()) < 2
        assert float(z["torsions"].abs()) < math.pi / 2 / math.radians(20)


def test_a_clash_is_an_overlap():
    places, box = [(5, 5, 5), (3.8, 0.8, 3.0)], {"cell": (40, 40, 40, 90, 90, 90), "spacegroup": "P 1"}
    c = crystal(places, **box)
    i, j = c.name.index("A/XAL 1/O"), c.name.index("A/XAL 2/N")
    gap = c.xyz[i] - c.xyz[j]
    nearer = gap * (1 - 2.2 / gap.norm())
    c = crystal([places[0], tuple((torch.tensor(places[1]) + nearer).tolist())], **box)
    restraints = build_restraints(c, dictionary())
    overlap = 1.50 + 1.55 - 0.3 - float((c.xyz[i] - c.xyz[j]).norm())
    report = geometry_report(restraints, c.xyz)
    clash = {frozenset(x.atoms): x for x in report.clashes}[frozenset(("A/XAL 1/O", "A/XAL 2/N"))]
    assert clash.overlap == pytest.approx(overlap, abs=1e-6)
    assert not clash.symmetry
    assert report.clashscore == pytest.approx(1000 * len(report.clashes) / 12)
    apart = c.xyz.clone()
    apart[6:] += 10
    assert geometry_report(restraints, apart).clashes == ()
