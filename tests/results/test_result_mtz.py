"""MTZ files of a merge: what is in them, and that gemmi and reciprocalspaceship read it."""

from dataclasses import replace

import gemmi
import numpy as np
import pytest
import reciprocalspaceship as rs
import torch

from bayesref.crystal.asu import reciprocal_asu
from bayesref.inference.posterior import Amplitudes
from bayesref.io.write_mtz import write_mtz
from bayesref.results.mtz import halves_table, merged_table, predictions_table

COLUMNS = ("F", "SIGF", "I", "SIGI", "N")


def columns(mtz: gemmi.Mtz):
    return "".join(c.type for c in mtz.columns), [c.label for c in mtz.columns]


def random_amplitudes(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    F, SIGF, I, SIGI = 0.1 + torch.rand(4, n, generator=g, dtype=torch.float64)
    return Amplitudes(F, SIGF, I, SIGI, torch.randint(1, 9, (n,), generator=g))


@pytest.mark.parametrize("dataset", [0, 1])
def test_merged(results, tmp_path, dataset):
    asu, a = results.posterior.obs.asu, results.amplitudes
    # one reflection without a spot: its amplitude is that of the prior, and is not written
    N = a.N.clone()
    N[(asu.dataset_id == dataset).nonzero()[4]] = 0
    write_mtz(merged_table(asu, replace(a, N=N), dataset), tmp_path / "merged.mtz")
    mtz = gemmi.read_mtz_file(str(tmp_path / "merged.mtz"))
    assert columns(mtz) == ("HHHFQJQI", ["H", "K", "L", *COLUMNS])
    assert mtz.spacegroup.xhm() == "P 21 21 21"
    assert mtz.datasets[-1].project_name == mtz.datasets[-1].crystal_name == "bayesref"
    mine = (asu.dataset_id == dataset) & (N > 0)
    data = rs.read_mtz(str(tmp_path / "merged.mtz"))
    assert data.merged
    assert data.get_hkls().tolist() == sorted(asu.hkl[mine].tolist())
    assert data.get_hkls().tolist() == asu.hkl[mine].tolist()
    for k in COLUMNS:
        np.testing.assert_allclose(data[k].to_numpy(float), getattr(a, k)[mine], rtol=1e-6)


def test_friedel_mates(tmp_path):
    group, cell = gemmi.SpaceGroup("P 21 21 21"), (30, 40, 50, 90, 90, 90)
    hkl = gemmi.make_miller_array(gemmi.UnitCell(*cell), group, 6.0)
    acentric = ~group.operations().centric_flag_array(hkl)
    only_plus, only_minus = np.flatnonzero(acentric)[:2]
    plus, minus = np.delete(hkl, only_minus, 0), -np.delete(hkl, only_plus, 0)
    asu, _ = reciprocal_asu(np.concatenate([plus, minus]), cell, group, anomalous=True)
    a = random_amplitudes(len(asu))
    write_mtz(merged_table(asu, a), tmp_path / "merged.mtz")
    types, labels = columns(gemmi.read_mtz_file(str(tmp_path / "merged.mtz")))
    assert types == "HHH" + "FQJQI" + "GLGL" + "KMKM" + "II"
    assert labels[8:] == [
        "F(+)", "SIGF(+)", "F(-)", "SIGF(-)", "I(+)", "SIGI(+)", "I(-)", "SIGI(-)", "N(+)", "N(-)",
    ]  # fmt: skip
    data = rs.read_mtz(str(tmp_path / "merged.mtz"))
    assert data.get_hkls().tolist() == hkl[np.lexsort(hkl.T[::-1])].tolist()
    row_of = {tuple(h): i for i, h in enumerate(asu.hkl.tolist())}
    for h, row in zip(data.get_hkls(), data.to_dict("records"), strict=True):
        mates = [row_of.get(tuple(s * h)) for s in (1, -1)]
        centric = bool(group.operations().centric_flag_array(h[None].astype(np.int32))[0])
        if centric:
            mates = [next(m for m in mates if m is not None)] * 2
        for side, m in zip(("(+)", "(-)"), mates, strict=True):
            for k in COLUMNS:
                want = getattr(a, k)[m].item() if m is not None else (0 if k == "N" else np.nan)
                np.testing.assert_allclose(float(row[k + side]), want, rtol=1e-6)
        known = sorted({m for m in mates if m is not None})
        assert row["N"] == int(a.N[known].sum())
        w = a.SIGF[known] ** -2
        assert float(row["F"]) == pytest.approx(float((w * a.F[known]).sum() / w.sum()), rel=1e-6)
        assert float(row["SIGF"]) == pytest.approx(float(w.sum() ** -0.5), rel=1e-6)


def test_mates_go_through_reciprocalspaceship(tmp_path):
    """Its stack and unstack give the rows that were merged."""
    cell = (30, 40, 50, 90, 90, 90)
    hkl = gemmi.make_miller_array(gemmi.UnitCell(*cell), gemmi.SpaceGroup("P 21 21 21"), 6.0)
    asu, _ = reciprocal_asu(np.concatenate([hkl, -hkl]), cell, "P 21 21 21", anomalous=True)
    a = random_amplitudes(len(asu))
    write_mtz(merged_table(asu, a), tmp_path / "merged.mtz")
    data = rs.read_mtz(str(tmp_path / "merged.mtz"))
    stacked = data[["F(+)", "F(-)"]].stack_anomalous()
    want = dict(zip(map(tuple, asu.hkl.tolist()), a.F.tolist(), strict=True))
    got = dict(zip(map(tuple, stacked.get_hkls().tolist()), stacked["F"].to_numpy(float), strict=True))
    assert got.keys() == want.keys()
    np.testing.assert_allclose([got[h] for h in want], list(want.values()), rtol=1e-6)


def test_halves(results, tmp_path):
    asu = results.posterior.obs.asu
    write_mtz(halves_table(asu, results.halves, 1), tmp_path / "halves.mtz")
    types, labels = columns(gemmi.read_mtz_file(str(tmp_path / "halves.mtz")))
    assert (types, labels[-2:]) == ("HHHFQJQIII", ["half", "repeat"])
    data = rs.read_mtz(str(tmp_path / "halves.mtz"))
    for h in results.halves:
        for k, a in enumerate((h.first, h.second)):
            mine = (asu.dataset_id == 1) & (a.N > 0)
            part = data[(data["half"] == k) & (data["repeat"] == h.repeat)]
            assert part.get_hkls().tolist() == asu.hkl[mine].tolist()
            np.testing.assert_allclose(part["F"].to_numpy(float), a.F[mine], rtol=1e-6)
            np.testing.assert_allclose(part["SIGI"].to_numpy(float), a.SIGI[mine], rtol=1e-6)


@pytest.mark.parametrize("file", [0, 1])
def test_predictions(results, tmp_path, file):
    obs, p = results.obs, results.predictions
    write_mtz(predictions_table(obs, p, file, results.held_out), tmp_path / "predictions.mtz")
    data = rs.read_mtz(str(tmp_path / "predictions.mtz"))
    assert not data.merged
    assert "".join(data[k].dtype.mtztype for k in data.columns.drop("PARTIAL")) == "BJQJQRWRRRI"
    # row by row what the input file holds, in its order
    original = rs.read_mtz(str(obs.files[file]))
    assert data.get_hkls().tolist() == original.get_hkls().tolist()
    for k in ("BATCH", "I", "SIGI"):
        np.testing.assert_array_equal(data[k].to_numpy(np.float32), original[k].to_numpy(np.float32))
    rows = (obs.file_id == file).nonzero()[:, 0]
    rows = rows[obs.row[rows].argsort()]
    known = {
        "Ipred": p.I,
        "SIGIpred": p.SIGI,
        "SCALE": p.K,
        "weight": p.precision,
        "blank": p.blank,
        "z": p.z,
    }
    for k, x in known.items():
        np.testing.assert_allclose(data[k].to_numpy(float), x[rows].float(), rtol=1e-6)
    np.testing.assert_array_equal(data["test"].to_numpy(int), results.held_out[rows].int())
    assert "test" not in predictions_table(obs, p, file)
