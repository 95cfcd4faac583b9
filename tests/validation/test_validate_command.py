"""`bayesref validate` against pandas, SciPy and counting, on small files whose content is known."""

import gemmi
import numpy as np
import pandas as pd
import pytest
import reciprocalspaceship as rs
from scipy.stats import pearsonr, spearmanr

from bayesref.cli.app import main

CELL, GROUP = gemmi.UnitCell(30, 40, 50, 90, 90, 90), gemmi.SpaceGroup("P 21 21 21")
TYPES = {"F": "F", "SIGF": "Q", "I": "J", "SIGI": "Q", "N": "I", "half": "I", "repeat": "I"}
TYPES |= {"F(+)": "G", "F(-)": "G", "SIGF(+)": "L", "SIGF(-)": "L", "N(+)": "I", "N(-)": "I"}
TYPES |= {"Ipred": "J", "SIGIpred": "Q", "BATCH": "B", "test": "I", "z": "R", "blank": "R"}


def write(frame, path, merged=True, types=None):
    data = rs.DataSet(frame, cell=CELL, spacegroup=GROUP, merged=merged)
    known = {k: t for k, t in (types or TYPES).items() if k in frame}
    data.astype({"H": "H", "K": "H", "L": "H"} | known).set_index(["H", "K", "L"]).write_mtz(str(path))
    return path


def reflections(dmin=4.01, kept=1.0, seed=0):
    hkl = gemmi.make_miller_array(CELL, GROUP, dmin)
    d = CELL.calculate_d_array(hkl)
    chosen = np.random.default_rng(seed).uniform(size=len(hkl)) < kept
    chosen[[np.argmin(d), np.argmax(d)]] = True
    return pd.DataFrame(hkl[chosen], columns=["H", "K", "L"]).assign(d=d[chosen])


def halves(seed=0, repeats=2):
    """Halves of which a tenth of the reflections are missing in each, with mates."""
    rng = np.random.default_rng(seed)
    base = reflections()
    F, dF = rng.gamma(2, size=len(base)), 0.2 * rng.normal(size=len(base))
    parts = []
    for repeat in range(repeats):
        for half in (0, 1):
            sd = rng.uniform(0.05, 0.2, (3, len(base)))
            x = F + np.array([np.zeros(len(base)), dF, -dF]) + sd * rng.normal(size=sd.shape)
            part = base.assign(**{"F": x[0], "SIGF": sd[0], "I": x[0] ** 2, "SIGI": 2 * x[0] * sd[0] + 0.1})
            part = part.assign(**{"F(+)": x[1], "SIGF(+)": sd[1], "F(-)": x[2], "SIGF(-)": sd[2]})
            parts.append(part.assign(half=half, repeat=repeat)[rng.uniform(size=len(base)) < 0.9])
    return pd.concat(parts, ignore_index=True)


def run(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main(["validate", *map(str, words)])
    captured = capsys.readouterr()
    return end.value.code or 0, captured.out + captured.err


def csv_of(capsys, tmp_path, *words):
    code, text = run(capsys, *words, "--csv", tmp_path / "x.csv", "--png", tmp_path / "x.png")
    assert code == 0, text
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"
    return pd.read_csv(tmp_path / "x.csv")


def paired(frame):
    q = frame[frame.half == 0].merge(
        frame[frame.half == 1], on=["H", "K", "L", "repeat"], suffixes=("1", "2")
    )
    return q.astype(np.float32).astype(float)


def by_repeat(q, f):
    return np.mean([f(g) for _, g in q.groupby("repeat")])


@pytest.fixture
def half_files(tmp_path):
    frames = [halves(0), halves(1)]
    return frames, [write(f.drop(columns="d"), tmp_path / f"halves_{k}.mtz") for k, f in enumerate(frames)]


@pytest.mark.parametrize("method", ["pearson", "spearman", "weighted"])
def test_cchalf(half_files, tmp_path, capsys, method):
    frames, files = half_files
    table = csv_of(capsys, tmp_path, "cchalf", *files, "--bins", 4, "--method", method)
    assert len(table) == 2 * 5
    for frame, file in zip(frames, files, strict=True):
        mine = table[table["file"] == str(file)]
        q = paired(frame)

        def cc(g):
            if method == "pearson":
                return pearsonr(g.I1, g.I2)[0]
            if method == "spearman":
                return spearmanr(g.I1, g.I2)[0]
            C = np.cov(g.I1, g.I2, aweights=1 / (g.SIGI1**2 + g.SIGI2**2))
            return C[0, 1] / np.sqrt(C[0, 0] * C[1, 1])

        assert mine["cchalf"].iloc[-1] == pytest.approx(by_repeat(q, cc), abs=1e-6)
        assert mine["pairs"].iloc[-1] == len(q) == mine["pairs"].iloc[:-1].sum()
        low = mine.iloc[0]
        # A reflection that sits on the limit of a bin may fall to either side.
        shell = q[(q.d1 <= low["dmax"] + 1e-3) & (q.d1 > low["dmin"] + 1e-3)]
        assert low["cchalf"] == pytest.approx(by_repeat(shell, cc), abs=0.02)


def test_rsplit_calibration_and_ccanom(half_files, tmp_path, capsys):
    frames, files = half_files
    q = paired(frames[0])
    z = (q.F1 - q.F2) / np.hypot(q.SIGF1, q.SIGF2)
    R = np.sqrt(2) * (q.F1 - q.F2).abs().sum() / (q.F1 + q.F2).sum()
    found = csv_of(capsys, tmp_path, "rsplit", files[0]).iloc[-1]
    assert found["rsplit"] == pytest.approx(R, rel=1e-5)
    found = csv_of(capsys, tmp_path, "calibration", files[0]).iloc[-1]
    want = [(z**2).mean(), (z.abs() < 0.67449).mean(), (z.abs() < 1.64485).mean()]
    assert found[["z2", "cover50", "cover90"]].tolist() == pytest.approx(want, abs=2e-4)
    found = csv_of(capsys, tmp_path, "ccanom", files[0]).iloc[-1]
    a = q[~GROUP.operations().centric_flag_array(q[["H", "K", "L"]].to_numpy(np.int32))]
    cc = by_repeat(a, lambda g: pearsonr(g["F(+)1"] - g["F(-)1"], g["F(+)2"] - g["F(-)2"])[0])
    assert found["pairs"] == len(a)
    assert found["ccanom"] == pytest.approx(cc, abs=1e-5)
    pooled = csv_of(capsys, tmp_path, "rsplit", *files, "--overall").iloc[-1]
    q = pd.concat([paired(f) for f in frames])
    assert pooled["rsplit"] == pytest.approx(
        np.sqrt(2) * (q.F1 - q.F2).abs().sum() / (q.F1 + q.F2).sum(), rel=1e-5
    )


def test_names_of_another_program(half_files, tmp_path, capsys):
    frame = half_files[0][0].drop(columns="d").rename(columns={"SIGF": "SigF", "SIGI": "SigI"})
    path = write(frame, tmp_path / "x_xval_0.mtz", types=TYPES | {"SigF": "Q", "SigI": "Q"})
    a = csv_of(capsys, tmp_path, "cchalf", path).drop(columns="file")
    b = csv_of(capsys, tmp_path, "cchalf", half_files[1][0]).drop(columns="file")
    pd.testing.assert_frame_equal(a, b)


def test_completeness_counts(tmp_path, capsys):
    some = reflections(kept=0.7, seed=3)
    rng = np.random.default_rng(1)
    plus, minus = rng.integers(0, 4, (2, len(some)))
    centric = GROUP.operations().centric_flag_array(some[["H", "K", "L"]].to_numpy(np.int32))
    minus = np.where(centric, plus, minus)
    ends = [int(np.argmin(some.d)), int(np.argmax(some.d))]
    plus[ends] = minus[ends] = 2  # so that the limits of resolution stay
    n = np.where(centric, plus, plus + minus)
    frame = some.drop(columns="d").assign(**{"I": 1.0, "SIGI": 0.5, "F": 1.0, "SIGF": 0.2, "N": n})
    frame = frame.assign(**{"F(+)": 1.0, "F(-)": 1.0, "N(+)": plus, "N(-)": minus})
    path = write(frame, tmp_path / "merged_0.mtz")
    table = csv_of(capsys, tmp_path, "completeness", path, "--bins", 6)
    total, every = table.iloc[-1], reflections()
    assert (total["reflections"], total["possible"]) == ((n > 0).sum(), len(every))
    assert total["completeness"] == pytest.approx((n > 0).sum() / len(every))
    assert total["multiplicity"] == pytest.approx(n.sum() / (n > 0).sum())
    acentric = ~centric
    possible = ~GROUP.operations().centric_flag_array(every[["H", "K", "L"]].to_numpy(np.int32))
    assert total["anomalous"] == pytest.approx((acentric & (plus > 0) & (minus > 0)).sum() / possible.sum())
    mates = (plus[acentric] > 0).sum() + (minus[acentric] > 0).sum()
    assert total["mate_multiplicity"] == pytest.approx((plus + minus)[acentric].sum() / mates)
    assert table["possible"].iloc[:-1].max() - table["possible"].iloc[:-1].min() <= 1
    assert table["reflections"].iloc[:-1].sum() == (n > 0).sum()
    assert table["completeness"].max() <= 1
    # Another program counts mates alone, and centric reflections on either side.
    mates_only = write(frame.drop(columns=["N", "F", "SIGF", "I", "SIGI"]), tmp_path / "other.mtz")
    again = csv_of(capsys, tmp_path, "completeness", mates_only, "--bins", 6)
    pd.testing.assert_frame_equal(again.drop(columns="file"), table.drop(columns="file"))
    signal = csv_of(capsys, tmp_path, "isigi", path).iloc[-1]
    assert signal["I_over_SIGI"] == pytest.approx(2)
    assert signal["F_over_SIGF"] == pytest.approx(5)
    limited = csv_of(capsys, tmp_path, "completeness", path, "--dmin", 3.5).iloc[-1]
    assert limited["possible"] > len(every)


def spots(n=3000, seed=0):
    """Predictions of 10 images, of which image 7 has nothing to do with its own."""
    rng = np.random.default_rng(seed)
    frame = reflections().sample(n, replace=True, random_state=1).reset_index(drop=True)
    image, I_pred = rng.integers(1, 11, n), rng.exponential(size=n)
    I = np.where(image == 7, rng.exponential(size=n), I_pred + 0.2 * rng.normal(size=n))
    frame = frame.assign(I=I, SIGI=rng.uniform(0.1, 0.3, n), Ipred=I_pred, SIGIpred=0.2, BATCH=image)
    return frame.assign(test=(rng.uniform(size=n) < 0.2).astype(int), z=0.5, blank=0.01)


def test_predictions_by_resolution_and_image(tmp_path, capsys):
    frame = spots()
    path = write(frame.drop(columns="d"), tmp_path / "predictions_0.mtz", merged=False)
    total = csv_of(capsys, tmp_path, "ccpred", path).iloc[-1]
    for column, test in (("cc_fitted", 0), ("ccpred", 1)):
        g = frame[frame.test == test]
        assert total[column] == pytest.approx(pearsonr(g.I, g.Ipred)[0], abs=1e-6)
    images = csv_of(capsys, tmp_path, "image-cc", path).set_index("image")
    for k, g in frame.groupby("BATCH"):
        assert images.loc[k, "cc"] == pytest.approx(pearsonr(g.I, g.Ipred)[0], abs=1e-6)
    assert images["cc"].idxmin() == 7
    raw = write(frame[["H", "K", "L", "I", "SIGI", "BATCH"]], tmp_path / "raw.mtz", merged=False)
    good = tmp_path / "good.mtz"
    code, text = run(capsys, "filter-images", path, raw, "-c", 0.5, "-o", good)
    assert code == 0, text
    assert set(rs.read_mtz(str(good))["BATCH"]) == set(range(1, 11)) - {7}
    other = write(
        frame.assign(BATCH=frame.BATCH + 100)[["H", "K", "L", "I", "SIGI", "BATCH"]], raw, merged=False
    )
    code, text = run(capsys, "filter-images", path, other, "-c", 0.5, "-o", good)
    assert code == 2
    assert "no image" in text


def test_relative_b(tmp_path, capsys):
    rng, base = np.random.default_rng(0), reflections(dmin=2.0)
    I = rng.exponential(size=len(base))
    files = [
        write(
            base.drop(columns="d").assign(I=I * np.exp(-0.5 * B / base.d**2), SIGI=0.1), tmp_path / f"{B}.mtz"
        )
        for B in (0, 12)
    ]
    code, text = run(capsys, "bfactor", *files, "--png", tmp_path / "b.png")
    assert code == 0, text
    found = float(text.strip().splitlines()[-1].split()[-2])
    # Bins are narrow: the mean of an exponential over a bin is not quite that of its middle.
    assert found == pytest.approx(12, abs=0.3)


def test_bad_input_is_one_sentence(half_files, tmp_path, capsys):
    for words, named in (
        (["cchalf", tmp_path / "none.mtz"], "none.mtz"),
        (["ccpred", half_files[1][0]], "Ipred"),
        (["filter-images", half_files[1][0], half_files[1][0], "-c", 0.1, "-o", tmp_path / "o.mtz"], "Ipred"),
    ):
        code, text = run(capsys, *words)
        assert code == 2
        assert named in text
        assert "Traceback" not in text
