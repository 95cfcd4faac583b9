"""The amortised scale: what it reads of an image, its derivative, and that it finds scales of images."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from known_truth import simulated

import bayesref as br

D = {"dtype": torch.float64}


@pytest.fixture(scope="module")
def obs():
    return simulated(dmin=4.0, multiplicity=8, images=30, image_noise=0.8, seed=3).obs


def random_weights(scale, seed=1):
    return torch.randn(scale.n_weights, generator=torch.Generator().manual_seed(seed), **D)


def test_the_jacobian_is_that_of_autograd(obs):
    scale = br.Amortised(obs, width=3, depth=2, n_embed=2, n_sample=5)
    w, some = random_weights(scale), obs.subset(slice(0, 40))
    want = torch.autograd.functional.jacobian(lambda w: scale(w, some), w)
    torch.testing.assert_close(scale.jacobian(w, some), want)


def test_starts_at_one(obs):
    scale = br.Amortised(obs)
    assert (scale(scale.initial(), obs) == 0).all()


def test_a_spot_has_the_same_scale_wherever_its_image_is_read(obs):
    """Pieces of the data, in any order, know the whole image."""
    scale = br.Amortised(obs)
    w = random_weights(scale)
    rows = torch.randperm(len(obs), generator=torch.Generator().manual_seed(0))[:50].sort().values
    torch.testing.assert_close(scale(w, obs.subset(rows)), scale(w, obs)[rows])


def test_all_spots_of_a_small_image_are_pooled(obs):
    scale = br.Amortised(obs, n_embed=2, n_sample=10_000)
    (A, a), *_ = scale._layers(random_weights(scale) * scale.sd())
    e, _, _ = scale._pooled(A, a, torch.tensor([4]))
    mine = obs.image_id == 4
    assert int(scale.count[4]) == int(mine.sum())
    t = scale.table[4, : int(mine.sum())]
    torch.testing.assert_close(e[0], torch.tanh(t @ A + a).mean(0))


def test_reads_the_scale_of_images_that_it_has_no_weights_for(obs):
    """Images of scales e^±0.8: the network tells most of them from the intensities alone."""
    strength = torch.zeros(30, **D).index_add(0, obs.image_id, obs.I) / torch.bincount(obs.image_id)

    def model(obs, scale):
        with pyro.plate("hkl", len(obs.asu)):
            F = pyro.sample("F", br.dist.Wilson(obs.asu.epsilon, obs.asu.centric))
        w = pyro.sample("w", scale.prior())
        with pyro.plate("spot", len(obs)):
            I = scale(w, obs).exp() * F[..., obs.hkl_id] ** 2
            pyro.sample("I", dist.Normal(I, (obs.SIGI**2 + (0.1 * obs.I) ** 2).sqrt()), obs=obs.I)

    scale = br.Product(br.Falloff(obs, 0), br.Amortised(obs, width=4, n_embed=3))
    p = br.fit(model, obs, scale, rounds=8, polish=2)
    log_K = scale(p.latents.unpack(p.mean)["w"], obs)
    mean = torch.zeros(30, **D).index_add(0, obs.image_id, log_K) / torch.bincount(obs.image_id)
    assert float(torch.corrcoef(torch.stack([mean, strength.log()]))[0, 1]) > 0.9
    assert torch.isfinite(p.amplitudes(n_draws=2).SIGF).all()
