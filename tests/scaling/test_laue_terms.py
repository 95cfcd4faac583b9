"""Scale terms of Laue data against their formulas."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from known_truth import simulated

import bayesref as br
from bayesref._checks import InputError


@pytest.fixture(scope="module")
def obs():
    sim = simulated(dmin=4.0, multiplicity=3, images=6, seed=2)
    wavelength = torch.linspace(0.6, 1.6, len(sim.obs), dtype=torch.float64)
    return replace(sim.obs, wavelength=wavelength)


def differences(x):
    return x - x.mean()


def test_lorentz(obs):
    theta = np.arcsin(obs.wavelength.numpy() / (2 * obs.asu.dHKL[obs.hkl_id].numpy()))
    expected = np.log(obs.wavelength.numpy() ** 4 / np.sin(theta) ** 2)
    log_K = br.Lorentz(obs)(torch.zeros(0), obs)
    np.testing.assert_allclose(differences(log_K.numpy()), differences(expected), atol=1e-12)


def test_polarisation_of_an_unpolarised_beam(obs):
    theta = np.arcsin(obs.wavelength.numpy() / (2 * obs.asu.dHKL[obs.hkl_id].numpy()))
    expected = np.log((1 + np.cos(2 * theta) ** 2) / 2)
    log_K = br.Polarisation(obs)(torch.zeros(0), obs)
    np.testing.assert_allclose(differences(log_K.numpy()), differences(expected), atol=1e-12)


def test_polarised_beam_sees_the_component_across(obs):
    """A field along x radiates as the square of the sine of the angle between x and the diffracted beam."""
    key = [obs.metadata_keys.index(k) for k in "XY"]
    x, y = (obs.metadata[:, k].numpy() * obs.transform.sd[k] + obs.transform.mean[k] - 1000 for k in key)
    theta = np.arcsin(obs.wavelength.numpy() / (2 * obs.asu.dHKL[obs.hkl_id].numpy()))
    out = np.sin(2 * theta) * x / np.hypot(x, y)  # the diffracted beam's component along x
    log_K = br.Polarisation(obs, 1.0, ("X", "Y"), (1000.0, 1000.0))(torch.zeros(0), obs)
    np.testing.assert_allclose(differences(log_K.numpy()), differences(np.log(1 - out**2)), atol=1e-9)


def test_curve_follows_a_spectrum(obs):
    scale = br.Wavelength(obs)
    target = -0.5 * ((obs.wavelength.log() - 0.1) / 0.3) ** 2
    J = scale.jacobian(torch.zeros(scale.n_weights, dtype=torch.float64), obs)
    w = torch.linalg.lstsq(J, target[:, None]).solution[:, 0]
    torch.testing.assert_close(scale(w, obs), target, atol=0.05, rtol=0)  # of 2.0; the ends are the worst


def test_terms_multiply_with_others(obs):
    scale = br.Product(br.Falloff(obs, n_bumps=0), br.Lorentz(obs), br.Wavelength(obs, n_bumps=5))
    w = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert scale.n_weights == 7
    J = torch.func.jacrev(lambda w: scale._evaluate(w, obs))(w)
    torch.testing.assert_close(scale.jacobian(w, obs), J)


def test_what_is_missing(obs):
    plain = replace(obs, wavelength=None)
    for term in (br.Wavelength, br.Lorentz, br.Polarisation):
        with pytest.raises(InputError, match="wavelength"):
            term(plain)
    with pytest.raises(InputError, match="--beam-centre"):
        br.Polarisation(obs, 0.9)
    with pytest.raises(InputError, match="column Z"):
        br.Polarisation(obs, 0.9, ("Z", "Y"), (0.0, 0.0))
    with pytest.raises(InputError, match="between 0 and 1"):
        br.Polarisation(obs, 1.5)
