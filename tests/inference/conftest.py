"""A small simulated merge that several tests share."""

from types import SimpleNamespace

import numpy as np
import pytest
import reciprocalspaceship as rs
import torch
from bayesref.models import merge, merge_normal

import bayesref as br
from bayesref.io.simulation import write_simulation


def scale_of(obs):
    return br.Product(br.Falloff(obs, n_bumps=4), br.Additive(obs, n_single=6, n_pair=0), br.ImageWise(obs))


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """Observations of about 3,000 spots, and the true amplitude of each reflection."""
    simulation = br.simulate_merge(dmin=3.6, multiplicity=5, images=20, seed=11)
    spots, truth = write_simulation(simulation, tmp_path_factory.mktemp("simulated"))
    obs = br.read_unmerged([spots[0]], metadata_keys=["BATCH", "X", "Y"])
    table = rs.read_mtz(str(truth[0]))
    F = table.loc[[tuple(h) for h in obs.asu.hkl.tolist()], "FTRUE"].to_numpy(float)
    return SimpleNamespace(obs=obs, F=F, merge=merge.model, normal=merge_normal.model, scale_of=scale_of)


@pytest.fixture(scope="session")
def fitted(simulated):
    return br.fit(simulated.merge, simulated.obs, scale_of(simulated.obs))


@pytest.fixture
def z_scores(simulated):
    """(F - F_true)/SIGF after one overall scale."""

    def of(amplitudes):
        F, s, T = amplitudes.F.numpy(), amplitudes.SIGF.numpy(), simulated.F
        k = np.sum(T * F / s**2) / np.sum(F**2 / s**2)
        return torch.tensor((k * F - T) / (k * s))

    return of
