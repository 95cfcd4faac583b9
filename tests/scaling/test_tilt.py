"""The orientation error of each image, against the partiality of a crystal that is turned."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from serial_truth import small

import bayesref as br
from bayesref.scaling.tilt import Tilt

D = {"dtype": torch.float64}


def with_directions(obs, seed=0):
    """The observations with metadata x, s1x, s1y of our own, standardised by hand, and these as they are."""
    rng = np.random.default_rng(seed)
    raw = np.stack([rng.normal(0, 2e-4, len(obs)), *rng.normal(0.05, 0.2, (2, len(obs)))], 1)
    mean, sd = raw.mean(0), raw.std(0)
    transform = replace(obs.transform, keys=("ewald_offset", "s1x", "s1y"), mean=mean, sd=sd)
    metadata = torch.from_numpy((raw - mean) / sd)
    return replace(obs, metadata=metadata, metadata_keys=transform.keys, transform=transform), raw


def test_derivatives():
    obs, _ = with_directions(small()[1])
    scale = Tilt(obs)
    w = torch.randn(scale.n_weights, generator=torch.Generator().manual_seed(0), **D)
    some = obs.subset(slice(0, 30))
    want = torch.autograd.functional.jacobian(lambda w: scale(w, some), w)
    torch.testing.assert_close(scale.jacobian(w, some), want)
    shared, own = scale.split_jacobian(w, some)
    assert shared.shape[1] == 0
    places = scale.image_columns()[some.image_id]
    torch.testing.assert_close(own, want.gather(1, places))


def test_a_turned_crystal_is_within_reach():
    """log p after a small turn is the one before plus the term, for some weights, to first order in the turn."""
    obs, raw = with_directions(small()[1])
    scale, w2 = Tilt(obs), (2e-4) ** 2
    image = int(obs.image_id.bincount().argmax())
    mine = obs.image_id == image
    x, s1x, s1y = raw[mine.numpy()].T
    k0 = 1 / 1.3
    q = np.stack([s1x, s1y, np.sqrt((k0 + x) ** 2 - s1x**2 - s1y**2) - k0], 1)
    turned = q @ Rotation.from_rotvec([2e-5, -3e-5, 4e-5]).as_matrix().T
    x_true = np.linalg.norm(turned + np.array([0, 0, k0]), axis=1) - k0
    change = -(x_true**2 - x**2) / (2 * w2)
    _, J = scale.split_jacobian(torch.zeros(scale.n_weights, **D), obs.subset(mine))
    fit = np.linalg.lstsq(J.numpy(), change, rcond=None)[0]
    rest = change - J.numpy() @ fit
    assert np.std(change) > 0.01
    assert np.std(rest) < 0.05 * np.std(change)


def test_needs_directions():
    _, obs = small()
    with pytest.raises(br.InputError, match="s1x and s1y are not there: add to --metadata"):
        Tilt(obs)
