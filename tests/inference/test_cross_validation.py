"""Halves, held-out spots and leave-one-out residuals, against dense grids and each other."""

from dataclasses import replace

import bayesref.models.merge as merge
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from scipy.integrate import simpson

import bayesref as br
from bayesref.guides.latents import Latents
from bayesref.inference.cross_validation import half_datasets, hold_out, predict
from bayesref.inference.posterior import Posterior
from bayesref.io.simulation import write_simulation


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that wait for work spin, which costs small arrays on shared cores ten times the time."""
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@pytest.fixture(scope="module")
def obs(tmp_path_factory):
    """About 2,300 spots in two files, which measure the same reflections; some of these once."""
    made = br.simulate_merge(n_datasets=2, r=1.0, dmin=3.8, multiplicity=3.0, images=9, outliers=0.01, seed=5)
    files, _ = write_simulation(made, tmp_path_factory.mktemp("cross") / "files")
    obs = br.read_unmerged(files, metadata_keys=["BATCH", "X", "Y", "dHKL"])
    g = torch.Generator().manual_seed(0)
    return obs.subset(torch.rand(len(obs), generator=g) < 0.7).compact()


def scale_of(obs):
    return br.Product(br.Falloff(obs), br.Additive(obs))


@pytest.fixture(scope="module")
def posterior(obs):
    return br.fit(merge.model, obs, scale_of(obs))


def test_halves_split_the_images_of_every_file(posterior, obs):
    halves = half_datasets(posterior, 2, seed=3)
    assert [h.repeat for h in halves] == [0, 1]
    for h in halves:
        assert torch.equal(h.first.N + h.second.N, obs.counts())
        assert min(h.first.N.sum(), h.second.N.sum()) > 0.4 * len(obs)
    assert not torch.equal(halves[0].first.N, halves[1].first.N)
    again = half_datasets(posterior, 1, seed=3)[0]
    assert torch.equal(again.first.F, halves[0].first.F)


def test_halves_hold_whole_images(posterior, obs, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Posterior, "amplitudes", lambda self, half, **_: seen.append(half) or replace_counts(half)
    )
    half_datasets(posterior, 1)
    images = [set(x.image_id.tolist()) for x in seen]
    assert not images[0] & images[1]
    for f in range(2):
        n = [len(x.image_id[x.file_id == f].unique()) for x in seen]
        assert sorted(n) == [4, 5]  # nine images a file


def replace_counts(half):
    from bayesref.inference.posterior import Amplitudes

    one = torch.ones(len(half.asu), dtype=torch.float64)
    return Amplitudes(one, one, one, one, half.counts())


def test_one_image_cannot_be_halved(posterior, obs):
    one = obs.subset((obs.file_id == 0) | (obs.image_id == obs.image_id[obs.file_id == 1][0]))
    with pytest.raises(br.InputError, match=r"unmerged_1\.mtz has spots on one image only"):
        half_datasets(replace(posterior, obs=one), 1)


def test_refit_leaves_the_first_fit_as_it_was(posterior, obs):
    before, scale = predict(posterior), posterior.args[0]
    sds = scale.sd()

    def refit(half):
        return br.fit(merge.model, half, scale, rounds=2, polish=0)

    (h,) = half_datasets(posterior, 1, refit=refit)
    assert torch.equal(scale.sd(), sds)
    assert torch.equal(predict(posterior).K, before.K)
    both = (h.first.N > 0) & (h.second.N > 0)
    weight = both / (h.first.SIGF**2 + h.second.SIGF**2)
    assert float((weight * h.first.F**2).sum() / (weight * h.second.F**2).sum()) == pytest.approx(1, abs=0.02)
    frozen = half_datasets(posterior, 1)[0]
    assert np.corrcoef(frozen.first.F[both], h.first.F[both])[0, 1] > 0.99


def test_hold_out(obs):
    out = hold_out(obs, 0.2, seed=4)
    assert abs(float(out.double().mean()) - 0.2) < 0.03
    assert torch.equal(out, hold_out(obs, 0.2, seed=4))
    assert not torch.equal(out, hold_out(obs, 0.2, seed=5))
    for bad in (0.0, 1.0):
        with pytest.raises(br.InputError, match="between 0 and 1"):
            hold_out(obs, bad)


def dense(posterior, obs, h):
    """The columns of Predictions for reflection h by a dense grid of F, SciPy's laws and sums."""
    v = {k: x.numpy() for k, x in posterior.latents.unpack(posterior.mean).items()}
    rows = (obs.hkl_id == h).nonzero()[:, 0]
    K = posterior.args[0](torch.from_numpy(v["w"]), obs)[rows].exp().numpy()[:, None]
    I, SIGI = (x[rows].numpy()[:, None] for x in (obs.I, obs.SIGI))
    F = np.linspace(1e-6, 7, 40_001)
    loc = K * F**2
    sd = v["a"] * np.sqrt(SIGI**2 + v["b"] * obs.typical_SIGI * loc + (v["c"] * loc) ** 2)
    pi, nu = v["blank_odds"] / (1 + v["blank_odds"]), 2 + v["nu"]
    t, none = stats.t(nu, loc, sd), stats.norm(0, v["a"] * SIGI)
    p_blank = pi * none.pdf(I)
    p = (1 - pi) * t.pdf(I) + p_blank
    eps = obs.asu.epsilon[h].item()
    prior = np.exp(-(F**2) / (2 * eps)) if obs.asu.centric[h] else F * np.exp(-(F**2) / eps)
    log_full = np.log(prior) + np.log(p).sum(0)

    def mean(weight, x):
        return simpson(weight * x, F) / simpson(weight, F)

    full = np.exp(log_full - log_full.max())
    loo = np.exp(log_full - np.log(p) - (log_full - np.log(p)).max(-1, keepdims=True))
    cdf = (1 - pi) * t.cdf(I) + pi * none.cdf(I)
    slope = np.stack([np.gradient(y, x, edge_order=2) for y, x in zip(np.log(p), loc, strict=True)])
    m2 = mean(full, F**2)
    variance = mean(full, sd**2 * nu / (nu - 2)) + K[:, 0] ** 2 * mean(full, (F**2 - m2) ** 2)
    precision = mean(full, slope * (I - loc)) / mean(full, (I - loc) ** 2)
    columns = {
        "I": K[:, 0] * m2, "SIGI": np.sqrt(variance), "K": K[:, 0], "precision": np.maximum(precision, 0),
        "blank": mean(full, p_blank / p), "z": stats.norm.ppf(mean(loo, cdf)),
    }  # fmt: skip
    return rows, columns


def test_predictions_against_a_dense_grid(posterior, obs):
    p = predict(posterior)
    n = obs.counts()
    chosen = [int(n.argmax()), int((n == 1).nonzero()[0]), int((n == 2).nonzero()[0])]
    chosen += [int(obs.hkl_id[p.blank.argmax()]), int(obs.hkl_id[p.z.abs().argmax()])]
    chosen += obs.asu.centric.nonzero()[:3, 0].tolist() + (~obs.asu.centric).nonzero()[5:9, 0].tolist()
    for h in chosen:
        rows, want = dense(posterior, obs, h)
        for name, x in want.items():
            got = getattr(p, name)[rows].numpy()
            # z passes through a tail probability: nodes below a millionth of the weight are left out
            tolerance = {"z": 1e-3}.get(name, 1e-5)
            np.testing.assert_allclose(got, x, rtol=tolerance, atol=tolerance * np.abs(x).max(), err_msg=name)


def test_residuals_are_unit_normal(posterior):
    z = predict(posterior).z.numpy()
    assert np.isfinite(z).all()
    assert np.mean(z**2) == pytest.approx(1, abs=0.08)
    assert np.mean(np.abs(z) < 1.6449) == pytest.approx(0.9, abs=0.02)
    assert abs(z.mean()) < 0.06


def test_a_spot_held_out_is_the_same_as_one_left_out(posterior, obs):
    """With one spot of a reflection held out, its z is what leaving it out gives."""
    first = obs.offsets[:-1][obs.counts() > 2][::3]
    out = torch.zeros(len(obs), dtype=torch.bool)
    out[first] = True
    held = replace(posterior, obs=obs.subset(~out))
    every, apart = predict(posterior), predict(held, obs)
    np.testing.assert_allclose(apart.z[out], every.z[out], atol=2e-3)
    assert float((apart.I - every.I)[out].abs().max()) > 0
    # predicted on their own, they are found not to have been fitted
    alone = predict(held, obs.subset(out))
    for name in ("I", "SIGI", "K", "blank"):
        np.testing.assert_allclose(getattr(alone, name), getattr(apart, name)[out], rtol=1e-8, atol=1e-12)


def hand_made(obs, law):
    """Posterior of a model without latents: K = 300 exp(-60 s²), errors of SIGI."""

    def model(obs):
        with pyro.plate("hkl", len(obs.asu)):
            F = pyro.sample("F", br.dist.Wilson(obs.asu.epsilon, obs.asu.centric))
        K = 300 * torch.exp(-60 * obs.stol2)
        with pyro.plate("spot", len(obs)):
            pyro.sample("I", law(K * F[..., obs.hkl_id] ** 2, obs.SIGI), obs=obs.I)

    latents = Latents(model, (obs,))
    return Posterior(model, obs, (), latents, torch.zeros(0).double(), torch.zeros(0, 0).double(), 0.0)


def test_normal_and_other_laws(obs):
    normal = predict(hand_made(obs, dist.Normal))
    # Without a cdf in torch, z is that of the first two moments; so close to normal they agree.
    t = predict(hand_made(obs, lambda loc, sd: dist.StudentT(200.0, loc, sd)))
    assert not normal.blank.any()
    np.testing.assert_allclose(normal.precision, obs.SIGI**-2, rtol=1e-6)
    inside = normal.z.abs() < 3
    assert float((t.z - normal.z)[inside].abs().median()) < 0.05
    assert torch.isfinite(t.z).all()
    assert torch.isfinite(normal.z[inside]).all()
