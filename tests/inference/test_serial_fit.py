"""Stochastic fit of stills: minibatches from memory and disk, ways of indexing and bad images within the fit."""

from dataclasses import replace

import numpy as np
import pyro
import pytest
import torch
from bayesref.models import merge
from known_truth import simulated
from scipy.integrate import quad
from scipy.stats import t as student
from serial_truth import small

import bayesref as br
from bayesref.guides.latents import Latents
from bayesref.inference.collapsed import Collapsed
from bayesref.inference.image_outliers import Images, Weighted, WeightedModel
from bayesref.inference.reindexing import closed, lattice_ways
from bayesref.inference.reindexing_start import first_consensus
from bayesref.inference.stochastic_batch import hypotheses
from bayesref.inference.stochastic_memory import Shares
from bayesref.inference.stochastic_stills import _Loop, fit_stills
from bayesref.io.stills_store import ImageStore, on_disk

D = {"dtype": torch.float64}


def normal_model(obs, scale):
    with pyro.plate("hkl", len(obs.asu)):
        F = pyro.sample("F", br.dist.Wilson(obs.asu.epsilon, obs.asu.centric))
    w = pyro.sample("w", scale.prior())
    with pyro.plate("spot", len(obs)):
        I = scale(w, obs).exp() * F[..., obs.hkl_id] ** 2
        pyro.sample("I", pyro.distributions.Normal(I, obs.SIGI), obs=obs.I)


@pytest.fixture(scope="module")
def rotation():
    return simulated(dmin=4.0, multiplicity=5, images=12, gain=0, sdadd=0, seed=3).obs


@pytest.fixture(scope="module")
def serial():
    s, obs = small()
    obs, ways = closed(obs, lattice_ways(obs.asu.cell, obs.asu.spacegroup))
    return s, obs, ways, torch.from_numpy(first_consensus(obs, ways).probability)


def make_scale(obs):
    return br.Product(br.Falloff(obs, 0), br.Additive(obs, 6, 0), br.ImageWise(obs))


def loop(obs, images=None, store=None, memory="shares", model=normal_model, seed=0):
    scale = br.Product(br.Falloff(obs, 0), br.ImageWise(obs))
    return _Loop(
        model, obs, (scale,), images or Images(obs.n_image), store, memory, (4, 4, 0.03), seed, lambda r: None
    )


def test_a_weight_counts_spots_several_times():
    law = br.dist.SpotIntensity(
        torch.tensor(5.0, **D), torch.tensor([3.0, 4.0], **D), torch.tensor([1.0, 2.0], **D), 0.1, 0.5
    )
    w, I = torch.tensor([0.3, 2.0], **D), torch.tensor([2.0, 7.0], **D)
    weighted = Weighted(law, w)
    torch.testing.assert_close(weighted.log_prob(I), w * law.log_prob(I))
    torch.testing.assert_close(torch.logaddexp(*weighted.components(I)), weighted.log_prob(I))
    torch.testing.assert_close(
        weighted.components(I)[1] - weighted.log_prob(I), law.components(I)[1] - law.log_prob(I)
    )
    assert not hasattr(Weighted(torch.distributions.Normal(w, 1.0), w), "components")


def test_images_of_weight_zero_leave_amplitudes_alone(rotation):
    scale = br.Falloff(rotation, 0)
    latents = Latents(normal_model, (rotation, scale))
    z, weight = torch.tensor([0.1, -0.05], **D), torch.ones(12, **D)
    weight[[2, 5]] = 0.0
    rest = rotation.subset((weight > 0)[rotation.image_id])
    with_weight = Collapsed(WeightedModel(normal_model, weight), rotation, (scale,), latents)
    without = Collapsed(normal_model, rest, (scale,), latents)
    assert with_weight.refresh(z) == pytest.approx(without.refresh(z), abs=1e-6)


def test_evidence_of_one_spot_against_quadrature():
    """One spot on an image, three things it may be: two reflections with known (a, b), or an unknown one."""
    _, obs = small()
    acentric = (~obs.asu.centric & (obs.asu.epsilon == 1)).nonzero()[:2, 0]
    one = replace(obs.subset(slice(0, 1)), asu=obs.asu.subset(acentric), hkl_id=torch.tensor([0]))
    one = replace(one, I=torch.tensor([150.0], **D), SIGI=torch.tensor([40.0], **D))
    others = torch.tensor([[3.0, 40.0], [2.0, 30.0]], **D)

    def model(obs, K):
        with pyro.plate("hkl", len(obs.asu)):
            F = pyro.sample("F", br.dist.Wilson(obs.asu.epsilon, obs.asu.centric))
        with pyro.plate("spot", len(obs)):
            I = K * F[..., obs.hkl_id] ** 2
            pyro.sample("I", pyro.distributions.StudentT(5.0, I, obs.SIGI), obs=obs.I)

    ways, used = torch.tensor([[0], [1]]), torch.arange(2)
    got = hypotheses(model, one, (100.0,), {}, ways, others, used, torch.tensor([0]), 1)[0]
    for value, (a, b) in zip(got.tolist(), [(3.0, 2.0), (40.0, 30.0), (0.0, 0.0)], strict=True):

        def q(J, a=a, b=b):
            return np.exp(-J - 0.5 * a * J**2 + b * J - (b - 1) ** 2 / (2 * a) if a else -J)

        def joint(J, q=q):
            return q(J) * student.pdf(150, 5, 100 * J, 40)

        top = quad(joint, 0, 30, points=[0.5, 0.7, 1.5], limit=400)[0]
        assert value == pytest.approx(np.log(top / quad(q, 0, 30, points=[0.7], limit=400)[0]), abs=1e-2)


@pytest.mark.parametrize("memory", ["shares", "running"])
def test_natural_parameters_at_one_scale(rotation, memory):
    """Normal errors of known variance: (a, b) = Σ (K², K I)/σ²; a running mean of batches comes near on average."""
    s = loop(rotation, memory=memory)
    s.own, s.is_shared[:] = torch.zeros(0, 0, dtype=torch.int64), False  # the scale stays as it is
    K = s.scale(s.z, rotation).exp()
    want = torch.zeros(2, len(rotation.asu), **D)
    want.index_add_(1, rotation.hkl_id, torch.stack([K**2, K * rotation.I]) / rotation.SIGI**2)
    for epoch in range(2 if memory == "shares" else 12):
        s.epoch(min(epoch, 1))
    got = s.memory.total
    if memory == "shares":
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-12)
    else:
        assert float(torch.corrcoef(torch.stack([got[1], want[1]]))[0, 1]) > 0.9
        assert float(got[0].sum() / want[0].sum()) == pytest.approx(1, abs=0.15)


def test_what_the_others_say_of_a_batch(rotation):
    memory = Shares(len(rotation.asu), len(rotation), 12)
    store = ImageStore(rotation)
    g = torch.Generator().manual_seed(0)
    for images in torch.arange(12).split(5):
        places, piece = store.batch(images)
        memory.renew(images, places, piece.hkl_id, piece.hkl_id, torch.rand(2, len(places), generator=g, **D))
    images = torch.tensor([7, 1])
    places, piece = store.batch(images)
    used, rows = torch.unique(piece.hkl_id, return_inverse=True)
    others = memory.others(images, places, rows, used)
    every, whole = store.batch(torch.tensor([i for i in range(12) if i not in (1, 7)]))
    want = torch.zeros(2, len(rotation.asu), **D).index_add(1, whole.hkl_id, memory.share[every].T)
    torch.testing.assert_close(others, want[:, used])


def test_a_batch_is_the_same_from_disk(rotation, tmp_path):
    disk = on_disk(rotation, tmp_path / "a")
    here, there = ImageStore(rotation), ImageStore(disk, tmp_path / "b")
    images = torch.tensor([9, 0, 4])
    (places, a), (same, b) = here.batch(images), there.batch(images)
    assert (places == same).all()
    for name in ("hkl_id", "image_id", "I", "SIGI", "hkl", "metadata", "row"):
        assert (getattr(a, name) == getattr(b, name)).all()
    assert a.image_id.unique_consecutive().tolist() == [9, 0, 4]
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == sorted(
        p.name for p in (tmp_path / "a").iterdir()
    )


def test_streaming_equals_memory(serial, tmp_path):
    _, obs, ways, start = serial
    fits = []
    for store in (None, tmp_path):
        images = Images(obs.n_image, ways, True, True, start.clone())
        p = fit_stills(merge.model, obs, (make_scale(obs),), images=images, store=store, epochs=5, polish=1)
        fits.append((p.mean, images.probability, images.quality_weight, p.amplitudes(n_draws=2).F))
    for a, b in zip(*fits, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_ambiguity_and_bad_images_within_the_fit(serial):
    """From a start with one image in six turned the wrong way: the fit turns them back."""
    s, obs, ways, start = serial
    wrong = start.clone()
    wrong[::6] = start[::6][:, [1, 0, 2]]
    images = Images(obs.n_image, ways, outliers=True, probability=wrong)
    p = fit_stills(merge.model, obs, (make_scale(obs),), images=images, epochs=10, polish=2)
    good, choice = ~s.bad, images.choice.numpy()
    same = (choice == s.operator)[good]
    assert max(same.mean(), 1 - same.mean()) > 0.97
    bad = images.probability[:, -1].numpy() > 0.5
    assert (bad & s.bad).sum() >= s.bad.sum() - 1
    assert (bad & good).sum() <= 12
    # Amplitudes in the setting of the majority.
    R = ways.matrices[0 if same.mean() > 0.5 else 1]
    true = {tuple(h): f for h, f in zip(s.hkl.tolist(), s.F.tolist(), strict=True)}
    from bayesref.crystal.symmetry import to_asu

    mapped, _ = to_asu(p.obs.asu.hkl.numpy() @ R, obs.asu.spacegroup)
    F = np.array([true[tuple(h)] for h in mapped.tolist()])
    assert np.corrcoef(F, p.amplitudes(n_draws=2).F)[0, 1] > 0.97


def test_a_noisy_image_counts_less(rotation):
    """Ten times the error on one image, which SIGI does not tell."""
    noise = torch.randn(len(rotation), generator=torch.Generator().manual_seed(0), **D)
    SIGI = 10 * rotation.SIGI  # large enough to hide what this scale leaves
    I = rotation.I + SIGI * noise * torch.where(rotation.image_id == 3, 10.0, 1.0)
    images = Images(12, quality=True)
    obs = replace(rotation, I=I, SIGI=SIGI, typical_SIGI=600.0)
    scale = br.Product(br.Falloff(obs, 0), br.ImageWise(obs))
    fit_stills(normal_model, obs, (scale,), images=images, epochs=6, polish=0)
    assert int(images.quality_weight.argmin()) == 3
    assert float(images.quality_weight[3]) < 0.1
    assert float(images.quality_weight[torch.arange(12) != 3].min()) > 0.4


def test_the_end_is_that_of_the_deterministic_fit(rotation):
    p = fit_stills(normal_model, rotation, (br.Falloff(rotation, 0),), epochs=3)
    best = br.fit(normal_model, rotation, br.Falloff(rotation, 0))
    assert p.converged
    assert p.log_joint == pytest.approx(best.log_joint, abs=0.01)


def test_a_fit_goes_on_from_its_state(rotation):
    whole, first = loop(rotation), loop(rotation)
    for epoch in range(3):
        whole.epoch(epoch)
    first.epoch(0)
    first.epoch(1)
    tensors, state = first.capture()
    second = loop(rotation, seed=9)
    second.restore(tensors, state)
    second.epoch(2)
    assert (second.z == whole.z).all()
    assert (second.memory.total == whole.memory.total).all()
    assert [r["elbo"] for r in second.history] == [r["elbo"] for r in whole.history]


def test_interrupt_leaves_a_posterior(rotation):
    def report(row):
        if row["step"] == 1:
            raise KeyboardInterrupt

    p = fit_stills(normal_model, rotation, (br.Falloff(rotation, 0),), report=report)
    assert "interrupted" in p.reason
    assert torch.isfinite(p.amplitudes(n_draws=2).SIGF).all()


def test_an_unknown_memory(rotation):
    with pytest.raises(br.InputError, match=r"no memory 'none' .* choose shares or running"):
        br.fit(normal_model, rotation, br.Falloff(rotation, 0), method="stills", memory="none")
