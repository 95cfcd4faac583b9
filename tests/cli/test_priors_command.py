"""`bayesref merge` with a reference for its amplitudes, and with amplitudes of a parametric family."""

import json
from types import SimpleNamespace

import gemmi
import numpy as np
import pytest
import reciprocalspaceship as rs
import torch

from bayesref.cli.app import main
from bayesref.cli.prior import free_rows
from bayesref.crystal.asu import reciprocal_asu
from bayesref.data.simulate import simulate_merge
from bayesref.distributions import RiceWoolfson
from bayesref.io.reference import read_reference
from bayesref.io.simulation import write_simulation
from bayesref.io.structure import write_structure
from bayesref.io.write_mtz import write_mtz
from bayesref.refinement.toy_crystal import toy_crystal
from bayesref.structure_factors.calculate import structure_factors
from bayesref.structure_factors.scale import add_solvent
from bayesref.structure_factors.solvent import SolventMask

LIGHT = ["--scale", "falloff", "--samples", "0"]


def run(capsys, *words):
    """Exit code and everything printed, in one line."""
    with pytest.raises(SystemExit) as end:
        main([str(w) for w in words])
    out = capsys.readouterr()
    return end.value.code or 0, " ".join((out.out + out.err).split())


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Unmerged file of the second of two related datasets, the truth of both."""
    folder = tmp_path_factory.mktemp("pair")
    simulation = simulate_merge(dmin=3.6, multiplicity=3, images=15, n_datasets=2, r=0.95, seed=5)
    unmerged, truth = write_simulation(simulation, folder, overwrite=True)
    return unmerged[1], truth


@pytest.fixture(scope="module")
def reference(pair, tmp_path_factory):
    """The first dataset's amplitudes without every tenth, on another scale and with another fall-off."""
    data = rs.read_mtz(str(pair[1][0])).compute_dHKL()
    g = np.random.default_rng(0)
    k = 30 * np.exp(-12 / (4 * data["dHKL"].to_numpy(float) ** 2))
    F = k * np.abs(data["FTRUE"].to_numpy(float) + 0.02 * g.standard_normal(len(data)))
    data["FP"], data["SIGFP"] = rs.DataSeries(F, data.index), rs.DataSeries(0.02 * k, data.index)
    data["I"], data["SIGI"] = rs.DataSeries(F**2, data.index), rs.DataSeries(0.04 * k * F + 1e-3, data.index)
    data["FC"] = data["FP"]
    types = {"FP": "F", "SIGFP": "Q", "I": "J", "SIGI": "Q", "FC": "F"}
    table = data[list(types)].astype(types)[np.arange(len(data)) % 10 != 3]
    path = tmp_path_factory.mktemp("reference") / "reference.mtz"
    write_mtz(table, path)
    return path


def correlation(merged, truth):
    """With the true amplitudes, the mean over four shells: overall fall-off is free."""
    both = rs.read_mtz(str(truth)).join(rs.read_mtz(str(merged))[["F", "SIGF"]], how="inner").compute_dHKL()
    F, T, d = (both[c].to_numpy(float) for c in ("F", "FTRUE", "dHKL"))
    return np.mean([np.corrcoef(F[i], T[i])[0, 1] for i in np.array_split(np.argsort(d), 4)])


@pytest.fixture(scope="module")
def plain(pair, tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "o"
    with pytest.raises(SystemExit):
        main([str(w) for w in ("merge", pair[0], *LIGHT, "--quiet", "--out", out)])
    return correlation(out / "merged_0.mtz", pair[1][1])


@pytest.mark.parametrize("prior", ["laplace", "student-t", "rice"])
def test_reference(prior, pair, reference, plain, tmp_path, capsys):
    words = ["merge", pair[0], *LIGHT, "--prior", prior, "--prior-mtz", reference, "--out", tmp_path / "o"]
    code, text = run(capsys, *words)
    assert code == 0, text
    assert "(FP, SIGFP)" in text
    assert "Wilson's prior for" in text
    assert "that it lacks" in text
    assert ("Correlation D of dataset 0 with the reference" in text) == (prior == "rice")
    assert correlation(tmp_path / "o" / "merged_0.mtz", pair[1][1]) > plain
    record = json.loads((tmp_path / "o" / "run.json").read_text())
    assert record["options"]["prior"] == prior
    assert "reference_m" in record["sites"]


def test_columns_by_name_and_free_reflections(pair, reference, tmp_path, capsys):
    words = ["merge", pair[0], *LIGHT, "--prior", "normal", "--prior-mtz", reference, "--out", tmp_path / "o"]
    words += [
        "--prior-columns",
        "FC",
        "--free-fraction",
        "0.1",
        "--fix",
        "reference_m=1",
        "--half-datasets",
        "1",
    ]
    code, text = run(capsys, *words)
    assert code == 0, text
    assert "(FC, without standard deviations)" in text
    assert "of the free set" in text
    assert "Both halves know the reference" in text
    merged = rs.read_mtz(str(tmp_path / "o" / "merged_0.mtz"))
    n_free = int((merged["FreeR_flag"].to_numpy(int) == 0).sum())
    assert f"{n_free} of the free set" in text


def test_intensities(pair, reference, plain, tmp_path, capsys):
    words = ["merge", pair[0], *LIGHT, "--prior", "rice", "--prior-mtz", reference, "--out", tmp_path / "o"]
    code, text = run(capsys, *words, "--prior-columns", "I,SIGI")
    assert code == 0, text
    assert correlation(tmp_path / "o" / "merged_0.mtz", pair[1][1]) > plain


def test_amplitudes_can_be_held(pair, reference, tmp_path, capsys):
    words = ["merge", pair[0], *LIGHT, "--prior", "normal", "--prior-mtz", reference, "--out", tmp_path / "o"]
    code, text = run(capsys, *words, "--fix", "reference_m=0", "--fix", "reference_delta=0")
    assert code == 0, text
    both = rs.read_mtz(str(reference)).join(rs.read_mtz(str(tmp_path / "o" / "merged_0.mtz")), rsuffix="_new")
    both = both.dropna()
    ratio = np.log(both["F"].to_numpy(float) / both["FP"].to_numpy(float))
    s2 = 0.25 / both.compute_dHKL()["dHKL"].to_numpy(float) ** 2
    # Scale and fall-off were divided out; what is left is smooth in resolution.
    assert np.std(ratio - np.polyval(np.polyfit(s2, ratio, 4), s2)) < 0.01
    assert both["SIGF_new" if "SIGF_new" in both else "SIGF"].to_numpy(float).max() < 1e-3


@pytest.mark.parametrize("family", ["truncated-normal"])
def test_posterior_family(family, pair, tmp_path, capsys):
    words = ["merge", pair[0], *LIGHT, "--posterior", family, "--half-datasets", "1", "--out", tmp_path / "o"]
    code, text = run(capsys, *words)
    assert code == 0, text
    assert f"Amplitudes as {family} laws lose" in text
    record = json.loads((tmp_path / "o" / "run.json").read_text())
    assert 0 < record["figures"]["posterior"]["gap_mean"] < 0.1


@pytest.fixture(scope="module")
def crystal(tmp_path_factory):
    """A model, and weak spots of a crystal whose structure factors correlate with those of the model by 0.9."""
    folder = tmp_path_factory.mktemp("crystal")
    model = toy_crystal(160)
    write_structure(model, folder / "model.pdb")
    asu, _ = reciprocal_asu(
        gemmi.make_miller_array(model.cell, model.spacegroup, 2.4), model.cell, model.spacegroup
    )
    F = add_solvent(
        structure_factors(model, asu.hkl), SolventMask(asu.hkl)(model), asu.stol2, 0.35, 46.0
    ).abs()
    torch.manual_seed(0)
    order = asu.dHKL.argsort()
    mean = torch.empty_like(F)
    for rows in order.tensor_split(8):
        mean[rows] = (F[rows] ** 2 / asu.epsilon[rows]).mean()
    D = 0.9
    true = RiceWoolfson(D * F / mean.sqrt(), (1 - D**2) * asu.epsilon, asu.centric).sample()
    h = torch.arange(len(asu)).repeat_interleave(4)
    K = 500 * torch.exp(-30 * asu.stol2[h])
    I = K * true[h] ** 2 + 250 * torch.randn(len(h), dtype=torch.float64)
    data = dict(zip("HKL", asu.hkl[h].T.numpy(), strict=True))
    data |= {"I": I.numpy(), "SIGI": np.full(len(h), 250.0), "BATCH": 1 + np.arange(len(h)) % 12}
    types = {"H": "H", "K": "H", "L": "H", "I": "J", "SIGI": "Q", "BATCH": "B"}
    table = rs.DataSet(data, cell=model.cell, spacegroup=model.spacegroup, merged=False).astype(types)
    write_mtz(table.sort_values("BATCH").set_index(["H", "K", "L"]), folder / "spots.mtz")
    truth = dict(zip("HKL", asu.hkl.T.numpy(), strict=True)) | {"FTRUE": true.numpy()}
    table = rs.DataSet(truth, cell=model.cell, spacegroup=model.spacegroup)
    write_mtz(
        table.astype({"H": "H", "K": "H", "L": "H", "FTRUE": "F"}).set_index(["H", "K", "L"]),
        folder / "t.mtz",
    )
    return folder


def test_model(crystal, tmp_path, capsys):
    words = ["merge", crystal / "spots.mtz", *LIGHT, "--out"]
    code, text = run(capsys, *words, tmp_path / "a", "--quiet")
    assert code == 0, text
    code, text = run(capsys, *words, tmp_path / "b", "--prior-model", crystal / "model.pdb")
    assert code == 0, text
    assert "160 atoms" in text
    record = json.loads((tmp_path / "b" / "run.json").read_text())
    assert {"k_sol", "B_sol", "D_logit"} <= set(record["sites"])
    D = [
        float(x.split()[0])
        for x in text.split("Correlation D of dataset 0 with the reference: ")[1].split(", ")[:4]
    ]
    assert abs(np.mean(D) - 0.9) < 0.05
    before, after = (correlation(tmp_path / k / "merged_0.mtz", crystal / "t.mtz") for k in "ab")
    assert after > before + 0.02


def other_crystal(reference, path, **changes):
    data = rs.read_mtz(str(reference))
    for name, value in changes.items():
        setattr(data, name, value)
    write_mtz(data, path)
    return path


ERRORS = {
    "no reference": (["--prior", "normal"], "needs a reference"),
    "no prior": (["--prior-mtz", "R"], "needs --prior normal, laplace, student-t or rice"),
    "wilson with a reference": (["--prior", "wilson", "--prior-mtz", "R"], "needs --prior normal"),
    "columns alone": (["--prior-columns", "F"], "give that too"),
    "two references": (["--prior-mtz", "R", "--prior-model", "M"], "give one of the two"),
    "model with normal": (["--prior", "normal", "--prior-model", "M"], "has the prior rice"),
    "missing file": (["--prior", "rice", "--prior-mtz", "none.mtz"], "none.mtz"),
    "missing model": (["--prior-model", "none.pdb"], "none.pdb"),
    "missing column": (["--prior", "rice", "--prior-mtz", "R", "--prior-columns", "FX"], "has no column FX"),
    "wrong type": (["--prior", "rice", "--prior-mtz", "R", "--prior-columns", "SIGFP"], "type F or J"),
    "no sigma": (["--prior", "rice", "--prior-mtz", "R", "--prior-columns", "I"], "need their sigma"),
    "three columns": (["--prior", "rice", "--prior-mtz", "R", "--prior-columns", "FP,SIGFP,I"], "3 columns"),
    "another cell": (["--prior", "rice", "--prior-mtz", "CELL"], "unit cell"),
    "another group": (["--prior", "rice", "--prior-mtz", "GROUP"], "space group"),
    "nothing in common": (["--prior", "rice", "--prior-mtz", "FEW"], "none of the"),
    "unmerged": (["--prior", "rice", "--prior-mtz", "SPOTS"], "unmerged"),
    "page without a reference": (
        ["--prior", "rice", "--prior-mtz", "R", "--model", "merge_normal"],
        "no argument",
    ),
    "page that needs one": (["--model", "merge_reference"], "needs a reference"),
    "impossible value": (["--fix", "a=-1"], "a = -1 is impossible"),
    "unknown family": (["--posterior", "beta"], "truncated-normal"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_bad_input_gives_one_sentence(kind, pair, reference, crystal, tmp_path, capsys):
    words, expected = ERRORS[kind]
    files = {"R": reference, "M": crystal / "model.pdb", "SPOTS": pair[0]}
    if "CELL" in words:
        files["CELL"] = other_crystal(
            reference, tmp_path / "c.mtz", cell=gemmi.UnitCell(33, 36, 43, 90, 90, 90)
        )
    if "GROUP" in words:
        files["GROUP"] = other_crystal(reference, tmp_path / "g.mtz", spacegroup=gemmi.SpaceGroup("P 1 21 1"))
    if "FEW" in words:
        data = rs.read_mtz(str(reference)).reset_index()
        data["H"] = data["H"] + 60
        write_mtz(data.set_index(["H", "K", "L"]), tmp_path / "few.mtz")
        files["FEW"] = tmp_path / "few.mtz"
    code, text = run(capsys, "merge", pair[0], *(files.get(w, w) for w in words), "--out", tmp_path / "o")
    assert code != 0
    assert "Traceback" not in text
    assert "something went wrong" not in text
    # A box of an unknown choice is drawn with borders.
    assert expected in text.replace("│ ", "").replace(" │", "")


def test_flags_of_a_file_are_kept_out_too(reference, tmp_path):
    data = rs.read_mtz(str(reference))
    flags = np.random.default_rng(1).integers(0, 10, len(data))
    data["FreeR_flag"] = rs.DataSeries(flags, data.index, dtype="I")
    write_mtz(data, tmp_path / "flags.mtz")
    asu, row = reciprocal_asu(data.get_hkls(), data.cell, data.spacegroup)
    settings = SimpleNamespace(free_flags=tmp_path / "flags.mtz", free_fraction=None, free_seed=0)
    free = free_rows(settings, asu)
    assert (free[row].numpy() == (flags == 0)).all()
    _, note = read_reference(reference, asu, None, free)
    assert f"{int(free.sum())} of the free set" in note
    everything = SimpleNamespace(free_flags=None, free_fraction=None, free_seed=0)
    assert free_rows(everything, asu) is None
