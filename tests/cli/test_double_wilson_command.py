"""`bayesref merge --double-wilson-parents`: two files in, related amplitudes and their differences out."""

import json

import numpy as np
import pytest
import reciprocalspaceship as rs

import bayesref as br
from bayesref.cli.app import main
from bayesref.data.simulate import simulate_merge
from bayesref.io.simulation import write_simulation

FEW = ("--rounds", "8", "--samples", "0", "--quiet")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two files of spots, indices and true amplitudes (2, hkl), correlated by 0.95."""
    made = simulate_merge(dmin=4.0, multiplicity=5, images=20, n_datasets=2, r=0.95, seed=3)
    unmerged, _ = write_simulation(made, tmp_path_factory.mktemp("pair"), overwrite=True)
    tables = [t.reset_index() for t in made.truth]
    return (
        unmerged,
        tables[0][["H", "K", "L"]].to_numpy(int),
        np.array([t["FTRUE"].to_numpy(float) for t in tables]),
    )


def run(files, out, *flags):
    """Exit code."""
    with pytest.raises(SystemExit) as end:
        main(["merge", *map(str, files[0]), "--scale", "falloff,image", "--out", str(out), *flags])
    return end.value.code or 0


@pytest.fixture(scope="module")
def merged(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("related") / "out"
    flags = ("--separate-files", "--double-wilson-parents", "None,0", "--half-datasets", "1")
    assert not run(files, out, *flags, *FEW)
    return out


def test_r_is_found(merged):
    r = json.loads((merged / "run.json").read_text())["sites"]["r_1"]
    assert abs(r["mean"] - 0.95) < 4 * r["sd"]
    assert r["sd"] < 0.03


def test_differences_are_closer_than_those_of_the_amplitudes_alone_would_say(files, merged):
    _, h, F = files
    d = rs.read_mtz(str(merged / "differences_1.mtz"))
    place = {tuple(x): i for i, x in enumerate(h.tolist())}
    i = np.array([place[tuple(x)] for x in d.get_hkls().tolist()])
    z = (d["DF"].to_numpy(float) - (F[1] - F[0])[i]) / d["SIGDF"].to_numpy(float)
    assert 0.8 < np.mean(np.abs(z) < 1.6449) < 0.97
    apart = np.hypot(d["SIGF_on"].to_numpy(float), d["SIGF_off"].to_numpy(float))
    assert (d["SIGDF"].to_numpy(float) < apart).mean() > 0.95
    together = apart**2 - 2 * d["COV"].to_numpy(float)
    np.testing.assert_allclose(d["SIGDF"].to_numpy(float) ** 2, together, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(d["F_on"].to_numpy(float) - d["F_off"].to_numpy(float), d["DF"], atol=1e-5)
    off = rs.read_mtz(str(merged / "merged_0.mtz")).loc[d.index]
    np.testing.assert_allclose(off["F"].to_numpy(float), d["F_off"].to_numpy(float), atol=1e-5)


def test_halves_of_differences(merged):
    d = rs.read_mtz(str(merged / "difference_halves_1.mtz"))
    first, second = (d[d["half"] == k] for k in (0, 1))
    both = first.join(second, how="inner", lsuffix="1", rsuffix="2")
    assert len(both) > 0.8 * min(len(first), len(second))
    assert "cchalf_DF" in json.loads((merged / "run.json").read_text())["figures"]["differences_1"]


def test_r_can_be_held(files, tmp_path):
    flags = ("--separate-files", "--double-wilson-parents", "None,0", "-r", "None,0.9", *FEW)
    assert not run(files, tmp_path / "out", *flags)
    assert "r_1" not in json.loads((tmp_path / "out" / "run.json").read_text())["sites"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--double-wilson-parents", "None,0"), "--separate-files"),
        (("--separate-files", "--double-wilson-parents", "None,2"), "parent 2"),
        (("--separate-files", "--double-wilson-parents", "1,0"), "cycle"),
        (("--separate-files", "--double-wilson-parents", "None,None"), "relates no dataset"),
        (("--separate-files", "--double-wilson-parents", "None,0,0"), "3 parents are named for 2"),
        (("--separate-files", "--double-wilson-parents", "None,0", "-r", "None,1.2"), "between 0 and 1"),
        (("--separate-files", "--double-wilson-parents", "None,0", "-r", "0.9,0.9"), "is a root"),
        (("--separate-files", "--double-wilson-parents", "None,0", "-r", "0.9"), "1 values for 2"),
        (("--separate-files", "-r", "None,0.9"), "belongs to --double-wilson-parents"),
        (("--separate-files", "--double-wilson-parents", "None,0", "--method", "svi"), "deterministic"),
        (
            ("--separate-files", "--double-wilson-parents", "None,0", "--wavelength-range", "1,2"),
            "does not go with",
        ),
        (
            (
                "--separate-files",
                "--double-wilson-parents",
                "None,0",
                "--double-wilson-reindex",
                "x,y,z;y,x,-z",
            ),
            "lengths of the cell",
        ),
    ],
)
def test_mistakes(files, tmp_path, capsys, flags, words):
    assert run(files, tmp_path / "out", *flags)
    out = capsys.readouterr()
    assert words in " ".join((out.out + out.err).split())


def test_names_are_public():
    assert br.DatasetTree((None, 0)).pairs == ("1",)
