"""The rocking width of each image."""

from dataclasses import replace

import pytest
import torch
from serial_truth import small

import bayesref as br
from bayesref.scaling.rocking import Rocking


def test_derivatives_and_zero():
    _, obs = small()
    scale = Rocking(obs)
    w = torch.randn(scale.n_weights, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    some = obs.subset(slice(0, 30))
    want = torch.autograd.functional.jacobian(lambda w: scale(w, some), w)
    torch.testing.assert_close(scale.jacobian(w, some), want)
    shared, own = br.Product(br.ImageWise(obs), scale).split_jacobian(
        torch.zeros(3 * obs.n_image, dtype=torch.float64), some
    )
    assert (shared.shape[1], own.shape[1]) == (0, 3)
    torch.testing.assert_close(own[:, 2], want[torch.arange(30), some.image_id])
    # Two spots as far on either side of the sphere have the same scale.
    sd, mean = obs.transform.sd[0], obs.transform.mean[0]
    x = torch.tensor([[(3e-4 - mean) / sd], [(-3e-4 - mean) / sd]], dtype=torch.float64)
    two = replace(some.subset(slice(0, 2)), metadata=x, image_id=torch.tensor([4, 4]))
    assert float(scale(w, two).diff()) == pytest.approx(0, abs=1e-9)


def test_needs_the_offset():
    _, obs = small()
    bare = replace(obs, metadata_keys=("dHKL",))
    with pytest.raises(br.InputError, match=r"rocking needs ewald_offset among the metadata; it has dHKL"):
        Rocking(bare)
