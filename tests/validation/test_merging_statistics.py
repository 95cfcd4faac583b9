"""Statistics of a merge against pandas, counting by hand, and NumPy's correlation."""

from types import SimpleNamespace

import gemmi
import numpy as np
import pandas as pd
import pytest
import torch

from bayesref.crystal.asu import reciprocal_asu
from bayesref.validation.merging import (
    completeness,
    correlation,
    half_statistics,
    half_z,
    prediction_statistics,
    resolution_bins,
)

CELL = (30.0, 40.0, 50.0, 90.0, 90.0, 90.0)


def indices(spacegroup="P 21 21 21", dmin=4.01):
    return gemmi.make_miller_array(gemmi.UnitCell(*CELL), gemmi.SpaceGroup(spacegroup), dmin)


def asu_of(hkl, **options):
    return reciprocal_asu(hkl, CELL, options.pop("spacegroup", "P 21 21 21"), **options)[0]


def amplitudes(F, SIGF, N):
    F, SIGF = torch.as_tensor(F), torch.as_tensor(SIGF)
    return SimpleNamespace(F=F, SIGF=SIGF, I=F**2 + SIGF**2, SIGI=2 * F * SIGF, N=torch.as_tensor(N))


def random_halves(n, repeats=3, seed=0):
    """Halves that agree within their errors; some reflections are missing from one or both."""
    rng = np.random.default_rng(seed)
    truth = rng.gamma(2.0, size=n)
    made = []
    for repeat in range(repeats):
        pair = []
        for _ in range(2):
            sd = rng.uniform(0.05, 0.3, n)
            pair.append(amplitudes(np.abs(truth + sd * rng.normal(size=n)), sd, rng.integers(0, 6, n)))
        made.append(SimpleNamespace(repeat=repeat, first=pair[0], second=pair[1]))
    return made


def by_pandas(asu, halves, n_bins):
    """The same statistics the long way: rows of both halves, merged on indices and repeat."""
    edges = np.quantile(asu.dHKL, np.linspace(0, 1, n_bins + 1))
    frames = []
    for h in halves:
        for k, a in enumerate((h.first, h.second)):
            f = pd.DataFrame(asu.hkl.numpy(), columns=list("HKL"))
            f = f.assign(
                **{x: getattr(a, x).numpy() for x in ("F", "SIGF", "I")},
                half=k,
                repeat=h.repeat,
                d=asu.dHKL.numpy(),
            )
            frames.append(f[a.N.numpy() > 0])
    f = pd.concat(frames)
    q = f[f.half == 0].merge(f[f.half == 1], on=["H", "K", "L", "repeat"], suffixes=("1", "2"))
    q["bin"] = n_bins - 1 - np.clip(np.searchsorted(edges, q.d1, side="left") - 1, 0, n_bins - 1)
    q["z"] = (q.F1 - q.F2) / np.hypot(q.SIGF1, q.SIGF2)
    rows = []
    for g in [*(q[q.bin == k] for k in range(n_bins)), q]:
        cc = [np.corrcoef(r.I1, r.I2)[0, 1] for _, r in g.groupby("repeat")]
        rsplit = np.sqrt(2) * np.sum(np.abs(g.F1 - g.F2)) / np.sum(g.F1 + g.F2)
        cover = [np.mean(np.abs(g.z) < x) for x in (0.67449, 1.64485)]
        rows.append([len(g), np.mean(cc), rsplit, np.mean(g.z**2), *cover])
    return q, np.array(rows)


def test_half_statistics_against_pandas():
    asu = asu_of(indices())
    halves = random_halves(len(asu))
    table = half_statistics(asu, halves, n_bins=5)
    q, want = by_pandas(asu, halves, 5)
    columns = ["pairs", "cchalf", "rsplit", "z2", "cover50", "cover90"]
    np.testing.assert_allclose(table[columns], want, rtol=1e-12)
    np.testing.assert_allclose(np.sort(half_z(halves)), np.sort(q.z), rtol=1e-12)
    assert table["z2"].iloc[-1] == pytest.approx(1, abs=0.1)
    assert list(table.columns) == ["dmax", "dmin", *columns]


def test_half_statistics_of_one_dataset():
    hkl = indices()
    both = np.concatenate([hkl, hkl])
    asu = asu_of(both, dataset_id=np.repeat([0, 1], len(hkl)))
    halves = random_halves(len(asu))
    second = asu.dataset_id == 1
    chosen = [
        SimpleNamespace(
            repeat=h.repeat,
            **{
                k: amplitudes(*(getattr(getattr(h, k), x)[second] for x in ("F", "SIGF", "N")))
                for k in ("first", "second")
            },
        )
        for h in halves
    ]
    alone = half_statistics(asu.subset(second), chosen, n_bins=4)
    pd.testing.assert_frame_equal(half_statistics(asu, halves, n_bins=4, dataset=1), alone)
    np.testing.assert_array_equal(half_z(halves, second), half_z(chosen))


def test_anomalous_correlation():
    hkl = indices()
    asu = asu_of(np.concatenate([hkl, -hkl]), anomalous=True)
    halves = random_halves(len(asu), repeats=2)
    key = {tuple(x): i for i, x in enumerate(asu.hkl.tolist())}
    plus = [i for x, i in key.items() if not asu.centric[i] and x in set(map(tuple, hkl.tolist()))]
    minus = [key[tuple(-asu.hkl[i].numpy())] for i in plus]
    cc = []
    for h in halves:
        seen = ((h.first.N > 0) & (h.second.N > 0)).numpy()
        known = seen[plus] & seen[minus]
        d = [(a.F.numpy()[plus] - a.F.numpy()[minus])[known] for a in (h.first, h.second)]
        cc.append(np.corrcoef(*d)[0, 1])
    table = half_statistics(asu, halves)
    assert table["ccanom"].iloc[-1] == pytest.approx(np.mean(cc), rel=1e-12)
    assert np.mean(cc) > 0.5  # the mates of these halves have nothing to do with each other


def test_bins_hold_equal_numbers():
    d = np.random.default_rng(0).uniform(1.5, 30, 1000)
    bins, limits = resolution_bins(d, 8)
    assert np.bincount(bins).tolist() == [125] * 8
    assert all(lo <= d[bins == k].min() and d[bins == k].max() <= hi for k, (hi, lo) in enumerate(limits))
    assert d[bins == 0].min() > d[bins == 7].max()


@pytest.mark.parametrize("spacegroup", ["P 1", "P 21 21 21", "C 1 2 1", "P 43 21 2"])
def test_completeness_counts_what_is_missing(spacegroup):
    cell = (40.0, 40.0, 50.0, 90.0, 90.0, 90.0)
    hkl = gemmi.make_miller_array(gemmi.UnitCell(*cell), gemmi.SpaceGroup(spacegroup), 5.0)
    rng = np.random.default_rng(1)
    kept = rng.uniform(size=len(hkl)) < 0.7
    d = gemmi.UnitCell(*cell).calculate_d_array(hkl)
    kept[[np.argmin(d), np.argmax(d)]] = True  # so that the limits stay
    N = rng.integers(1, 9, kept.sum())
    asu, hkl_id = reciprocal_asu(hkl[kept], cell, spacegroup)
    F, SIGF = rng.uniform(1, 2, len(asu)), rng.uniform(0.1, 0.2, len(asu))
    a = amplitudes(
        F, SIGF, torch.zeros(len(asu), dtype=torch.int64).index_add(0, hkl_id, torch.from_numpy(N))
    )
    table = completeness(asu, a, n_bins=6)
    total = table.iloc[-1]
    assert (total["reflections"], total["possible"]) == (kept.sum(), len(hkl))
    assert total["multiplicity"] == pytest.approx(N.mean())
    assert total["F_over_SIGF"] == pytest.approx(np.mean(F / SIGF))
    assert total["I_over_SIGI"] == pytest.approx(float((a.I / a.SIGI).mean()))
    bins, _ = resolution_bins(d, 6)
    assert table["reflections"].tolist()[:-1] == np.bincount(bins[kept]).tolist()
    np.testing.assert_allclose(table["completeness"][:-1], np.bincount(bins[kept]) / np.bincount(bins))


def test_completeness_counts_friedel_mates_once():
    hkl = indices()
    asu = asu_of(np.concatenate([hkl, -hkl[::2]]), anomalous=True)
    n = np.where((asu.hkl.numpy() == 0).any(1), 3, 2)
    total = completeness(asu, amplitudes(np.ones(len(asu)), np.ones(len(asu)), n)).iloc[-1]
    assert (total["reflections"], total["completeness"]) == (len(hkl), 1.0)
    assert total["multiplicity"] == pytest.approx(n.sum() / len(hkl))


def test_prediction_statistics():
    rng = np.random.default_rng(2)
    d, I = rng.uniform(2, 20, 900), rng.exponential(size=900)
    I_pred, out, z = I + rng.normal(size=900), rng.uniform(size=900) < 0.2, rng.normal(size=900)
    table = prediction_statistics(d, I, I_pred, out, z, n_bins=3)
    bins, _ = resolution_bins(d, 3)
    for row, m in zip(table.to_dict("records"), [*(bins == k for k in range(3)), bins >= 0], strict=True):
        assert row["spots"] == m.sum()
        assert row["cc_fitted"] == pytest.approx(np.corrcoef(I[m & ~out], I_pred[m & ~out])[0, 1])
        assert row["ccpred"] == pytest.approx(np.corrcoef(I[m & out], I_pred[m & out])[0, 1])
        assert row["z2"] == pytest.approx(np.mean(z[m] ** 2))
        assert row["cover90"] == pytest.approx(np.mean(np.abs(z[m]) < 1.64485))
    plain = prediction_statistics(
        torch.from_numpy(d), torch.from_numpy(I), torch.from_numpy(I_pred), n_bins=3
    )
    assert plain["ccpred"].isna().all()
    assert "z2" not in plain


def test_too_little_to_say_is_nan():
    assert np.isnan(correlation([1.0, 2.0], [1.0, 2.0]))
    assert np.isnan(correlation(np.ones(9), np.arange(9.0)))
    asu = asu_of(indices())
    nothing = [amplitudes(np.ones(len(asu)), np.ones(len(asu)), np.zeros(len(asu), dtype=int))] * 2
    table = half_statistics(asu, [SimpleNamespace(repeat=0, first=nothing[0], second=nothing[1])])
    assert (table["pairs"] == 0).all()
    assert table[["cchalf", "rsplit", "z2"]].isna().all(axis=None)
    assert len(half_z([])) == 0
    empty = completeness(asu, nothing[0])
    assert (empty["reflections"] == 0).all()
    assert empty["completeness"].isna().all()
    assert prediction_statistics([], [], []).shape[0] == 11
