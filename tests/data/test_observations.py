"""Selecting spots and reflections keeps every spot with its reflection."""

from itertools import pairwise

import gemmi
import numpy as np
import pytest
import torch

from bayesref.crystal.asu import reciprocal_asu
from bayesref.crystal.symmetry import is_absent
from bayesref.data.observations import Observations


@pytest.fixture
def observations():
    group, cell = gemmi.SpaceGroup("P 21 21 21"), gemmi.UnitCell(30, 40, 50, 90, 90, 90)
    rng = np.random.default_rng(0)
    hkl = rng.integers(-4, 5, size=(800, 3)).astype(np.int32)
    hkl = hkl[~is_absent(hkl, group)]
    asu, hkl_id = reciprocal_asu(hkl, cell, group)
    order = torch.argsort(hkl_id, stable=True)
    n = len(hkl)
    return Observations(
        asu=asu,
        hkl_id=hkl_id[order],
        image_id=torch.from_numpy(rng.integers(0, 7, n)),
        file_id=torch.zeros(n, dtype=torch.int64),
        I=torch.from_numpy(rng.normal(size=n)),
        SIGI=torch.ones(n, dtype=torch.float64),
        hkl=torch.from_numpy(hkl.astype(np.int64))[order],
        metadata=torch.from_numpy(rng.normal(size=(n, 2))),
        metadata_keys=("X", "Y"),
        row=order,
        n_image=7,
        image_number=torch.arange(7),
    )


def indices(obs):
    """The reflection of each spot, by its Miller indices."""
    return obs.asu.hkl[obs.hkl_id]


def test_counts_and_offsets(observations):
    obs = observations
    assert int(obs.counts().sum()) == len(obs)
    for h in range(len(obs.asu)):
        assert (obs.hkl_id[obs.offsets[h] : obs.offsets[h + 1]] == h).all()
    torch.testing.assert_close(obs.stol2, 1 / (4 * obs.asu.dHKL[obs.hkl_id] ** 2))


def test_subset_by_mask_and_by_index(observations):
    obs = observations
    mask = obs.image_id == 3
    part = obs.subset(mask)
    assert len(part.asu) == len(obs.asu)
    assert (part.image_id == 3).all()
    torch.testing.assert_close(part.I, obs.I[mask])
    torch.testing.assert_close(part.metadata, obs.metadata[mask])
    shuffled = torch.randperm(len(obs))[:50]
    part = obs.subset(shuffled)
    assert (part.hkl_id.diff() >= 0).all()
    assert set(part.row.tolist()) == set(obs.row[shuffled].tolist())
    assert len(obs.subset(np.array([4, 4, 2]))) == 3
    assert len(obs.subset(slice(5, 9))) == 4


def test_compact_drops_unmeasured_reflections(observations):
    obs = observations
    part = obs.subset(obs.image_id == 3)
    small = part.compact()
    assert (small.counts() > 0).all()
    assert len(small.asu) == len(part.hkl_id.unique())
    assert torch.equal(indices(small), indices(part))
    assert small.n_image == obs.n_image


def test_slices_of_reflections_tile_the_whole(observations):
    obs = observations
    cuts = [0, 1, 10, 10, len(obs.asu)]
    parts = [obs.slice_reflections(a, b) for a, b in pairwise(cuts)]
    torch.testing.assert_close(torch.cat([p.I for p in parts]), obs.I)
    assert torch.equal(torch.cat([indices(p) for p in parts]), indices(obs))
    assert [len(p.asu) for p in parts] == [1, 9, 0, len(obs.asu) - 10]
    assert torch.equal(torch.cat([p.image_id for p in parts]), obs.image_id)
    assert parts[1].I.data_ptr() == obs.I[int(obs.offsets[1]) :].data_ptr()  # a view


def test_to_moves_floats_and_keeps_indices(observations, device):
    moved = observations.to(device, torch.float32)
    assert moved.I.dtype == moved.metadata.dtype == moved.asu.dHKL.dtype == torch.float32
    assert moved.hkl_id.dtype == moved.hkl.dtype == torch.int64
    assert moved.I.device.type == moved.image_number.device.type == device.type
    assert torch.equal(moved.counts().cpu(), observations.counts())
