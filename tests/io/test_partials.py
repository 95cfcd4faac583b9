"""Summing the parts of partially recorded reflections."""

import numpy as np
import pytest
import torch

from bayesref.io.partials import sum_partials
from bayesref.io.unmerged import read_unmerged


def test_parts_on_neighbouring_images_are_summed():
    #                 complete      no first part   two sweeps over one reflection   full
    hkl = np.array([[1, 2, 3]] * 3 + [[2, 2, 2]] * 2 + [[4, 0, 1]] * 4 + [[1, 2, 3]])
    image = np.array([3, 1, 2, 5, 6, 7, 8, 9, 10, 40])
    part = np.array([303, 301, 302, 302, 303, 201, 202, 201, 202, 0])
    fraction = np.array([0.1, 0.2, 0.7, 0.3, 0.3, 0.4, 0.6, 0.9, 0.1, 1.0])
    I = np.array([1.0, 2.0, 7.0, 3.0, 3.0, 4.0, 6.0, 9.0, 1.0, 5.0])
    SIGI = np.full(10, 2.0)
    partial = np.arange(10) < 9
    summed, sigma, flagged = sum_partials(hkl, image, I, SIGI, partial, part, fraction)
    assert np.flatnonzero(flagged["incomplete partial"]).tolist() == [3, 4]
    assert np.flatnonzero(flagged["summed with other parts"]).tolist() == [0, 1, 5, 8]
    np.testing.assert_allclose(summed[[2, 6, 7, 9]], [10, 10, 10, 5])
    np.testing.assert_allclose(sigma[[2, 6, 7, 9]] ** 2, [12, 8, 8, 4])
    assert I[2] == 7  # the input is left alone


def test_a_gap_between_images_separates_reflections():
    hkl, image = np.array([[1, 1, 1]] * 4), np.array([1, 2, 4, 5])
    fraction = np.array([0.4, 0.6, 0.7, 0.3])
    _, _, flagged = sum_partials(hkl, image, fraction * 10, np.ones(4), np.ones(4, bool), fraction=fraction)
    assert not flagged["incomplete partial"].any()
    assert flagged["summed with other parts"].tolist() == [True, False, False, True]


@pytest.mark.data
def test_mosflm_file(data_dir):
    obs = read_unmerged(data_dir / "unmerged" / "brap_pk_6A.mtz", anomalous=True)
    (report,) = obs.report.files
    assert report.n_read == 17864 == len(obs) + sum(report.left_out.values())
    assert 4000 < len(obs) < 6000
    # Sums of symmetry mates agree; single parts of them would not.
    mean = torch.zeros(len(obs.asu), dtype=torch.float64).index_add(0, obs.hkl_id, obs.I) / obs.counts()
    assert float((obs.I - mean[obs.hkl_id]).abs().sum() / obs.I.sum()) < 0.1


def test_stills_are_not_summed(make_mtz):
    path = make_mtz(columns=make_mtz.spots(**{"M/ISYM": ("Y", np.full(200, 257))}))
    assert len(read_unmerged(path)) == 200
