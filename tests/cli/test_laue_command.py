"""Laue data from simulation to merged amplitudes at the command line, and what is said when that cannot be."""

import json

import numpy as np
import pytest
import reciprocalspaceship as rs

from bayesref.cli.app import main


def run(capsys, *words):
    """Exit code and everything printed."""
    with pytest.raises(SystemExit) as end:
        main([str(w) for w in words])
    out = capsys.readouterr()
    return end.value.code or 0, out.out + out.err


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("laue") / "data"
    words = [
        "simulate",
        "laue",
        "--out",
        folder,
        "--dmin",
        4,
        "--images",
        12,
        "--singles",
        0.4,
        "--twice",
        0.2,
    ]
    with pytest.raises(SystemExit) as end:
        main([*map(str, words), "--seed", "3"])
    assert not end.value.code
    return folder


def test_from_simulation_to_amplitudes(simulated, tmp_path, capsys):
    words = ["merge", simulated / "unmerged_0.mtz", "--metadata", "X,Y", "--wavelength-range", "0.5,2"]
    words += ["--scale", "falloff,image,wavelength", "--dmin", 4, "--half-datasets", 1, "--samples", 8]
    code, text = run(capsys, *words, "--out", tmp_path / "o")
    assert code == 0, text
    text = " ".join(text.split())
    assert "spots hold several harmonics and are taken apart" in text
    assert "name a ray that its image has already" in text
    assert "wavelength curve" in text
    merged, truth = (
        rs.read_mtz(str(f)) for f in (tmp_path / "o" / "merged_0.mtz", simulated / "truth_0.mtz")
    )
    both = truth.join(merged[["F", "SIGF", "N"]], how="inner", rsuffix="_merged")
    assert len(both) == len(merged) == (truth["N"] > 0).sum()
    np.testing.assert_array_equal(both["N"].to_numpy(int), both["N_merged"].to_numpy(int))
    alone = both["NSINGLE"].to_numpy(int) == 0
    assert alone.sum() > 20
    F, T = both["F"].to_numpy(float), both["FTRUE"].to_numpy(float)
    assert np.corrcoef(F, T)[0, 1] > 0.85
    assert np.corrcoef(F[alone], T[alone])[0, 1] > 0.6
    record = json.loads((tmp_path / "o" / "run.json").read_text())
    assert record["options"]["wavelength_range"] == "0.5,2"
    assert record["fit"]["converged"]


def test_overlapped_spots_held_out_of_a_fit_by_minibatches(simulated, tmp_path, capsys):
    words = [
        "merge",
        simulated / "unmerged_0.mtz",
        "--wavelength-range",
        "0.5,2",
        "--dmin",
        4,
        "--method",
        "svi",
    ]
    words += ["--epochs", 6, "--scale", "falloff,image,wavelength", "--test-fraction", 0.25, "--samples", 0]
    code, text = run(capsys, *words, "--out", tmp_path / "o")
    assert code == 0, text
    assert "Overlapped spots, observed against expected" in text
    spots = rs.read_mtz(str(tmp_path / "o" / "overlaps_0.mtz")).groupby("SPOT").first()
    out = spots["test"].to_numpy(int) > 0
    assert 0.1 < out.mean() < 0.4
    I, expected, sd = (spots[k].to_numpy(float) for k in ("I", "Ipred", "SIGIpred"))
    assert np.corrcoef(I[out], expected[out])[0, 1] > 0.6
    assert np.mean(np.abs(I - expected)[out] < 1.645 * sd[out]) > 0.75
    figures = json.loads((tmp_path / "o" / "run.json").read_text())["figures"]["overlaps"]
    assert figures["spots"] == len(spots)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--wavelength-range", "0.5"], "not two numbers"),
        (["--wavelength-range", "2,0.5"], "give the lower one first"),
        (["--wavelength-range", "5e3,6e3"], "give a range that holds them"),
        (["--wavelength-range", "0.5,2", "--wavelength-key", "LAM"], "no column 'LAM'"),
        (["--wavelength-range", "0.5,2", "--wavelength-key", ""], "no column of wavelengths"),
        (["--wavelength-range", "0.5,2", "--keep-harmonics"], "give one"),
        (["--wavelength-range", "0.5,2", "--model", "merge_normal"], "no site 'I_overlap'"),
        (["--scale", "lorentz"], "leaves no term"),
        (["--scale", "falloff,polarisation", "--polarised", "0.9"], "--beam-centre"),
        (["--scale", "falloff,wavelength", "--wavelength-key", ""], "needs columns of wavelengths"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(words, said, simulated, tmp_path, capsys):
    code, text = run(capsys, "merge", simulated / "unmerged_0.mtz", *words, "--out", tmp_path / "o")
    assert code == 2
    assert "Traceback" not in text
    assert said in " ".join(text.split())


def test_simulation_is_checked(tmp_path, capsys):
    code, text = run(capsys, "simulate", "laue", "--out", tmp_path / "o", "--low", 2, "--high", 1)
    assert code == 2
    assert "give the lower one first" in text
