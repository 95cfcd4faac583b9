"""Simulated files read back as they were simulated, by us and by reciprocalspaceship."""

import numpy as np
import pytest
import reciprocalspaceship as rs

from bayesref._checks import InputError
from bayesref.data.simulate import simulate_merge
from bayesref.io.simulation import write_simulation
from bayesref.io.unmerged import read_unmerged


@pytest.mark.parametrize(
    ("spacegroup", "cell"),
    [
        ("P 21 21 21", (28, 36, 43, 90, 90, 90)),
        ("C 2", (40, 30, 30, 90, 100, 90)),
        ("P 63", (30, 30, 40, 90, 90, 120)),
    ],
)
def test_round_trip(tmp_path, spacegroup, cell):
    sim = simulate_merge(n_datasets=2, dmin=3.5, images=10, spacegroup=spacegroup, cell=cell)
    unmerged, truth = write_simulation(sim, tmp_path / "sim")
    assert [p.name for p in unmerged + truth] == [
        "unmerged_0.mtz",
        "unmerged_1.mtz",
        "truth_0.mtz",
        "truth_1.mtz",
    ]
    obs = read_unmerged(unmerged, metadata_keys=["BATCH", "dHKL", "X", "Y"], separate=True)
    for t in range(2):
        mine, table = obs.subset(obs.file_id == t), sim.observations[t]
        row = mine.row.numpy()
        assert len(mine) == len(table)
        np.testing.assert_array_equal(mine.hkl, table.get_hkls()[row])
        np.testing.assert_allclose(mine.I, table["I"].to_numpy(float)[row], rtol=1e-6)
        np.testing.assert_array_equal(mine.image_number[mine.image_id], table["BATCH"].to_numpy()[row])
        theirs = rs.read_mtz(str(unmerged[t]))
        assert not theirs.merged
        np.testing.assert_array_equal(theirs.get_hkls(), table.get_hkls())
        known = rs.read_mtz(str(truth[t]))
        np.testing.assert_array_equal(known.get_hkls(), obs.asu.hkl[obs.asu.dataset_id == t])
        np.testing.assert_array_equal(known["EPS"], obs.asu.epsilon[obs.asu.dataset_id == t])
        np.testing.assert_array_equal(known["CENTRIC"].astype(bool), obs.asu.centric[obs.asu.dataset_id == t])
        np.testing.assert_array_equal(known["N"], obs.counts()[obs.asu.dataset_id == t])


def test_existing_results_are_not_overwritten(tmp_path):
    sim = simulate_merge(dmin=5)
    write_simulation(sim, tmp_path)
    with pytest.raises(InputError, match="holds files already"):
        write_simulation(sim, tmp_path)
    write_simulation(sim, tmp_path, overwrite=True)
