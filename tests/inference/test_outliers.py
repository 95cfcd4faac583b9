"""Probability that a spot's error is wide, against numerical integration over the precision."""

import torch
from scipy.integrate import quad
from scipy.stats import gamma, norm

from bayesref.distributions.spot_intensity import SpotIntensity
from bayesref.inference.cross_validation import wide_error


def test_wide_error_against_quadrature():
    nu, scale, r = 4.0, 2.0, torch.tensor([0.0, 3.0, 12.0, 40.0]).double()
    one = torch.ones(1, 4).double()
    law = SpotIntensity(torch.tensor(nu).double(), 5 * one, scale * one, 0 * one, one)
    found = wide_error(law, one, r[None])
    for x, p in zip(r.tolist(), found.tolist(), strict=True):

        def joint(tau, x=x):
            return gamma.pdf(tau, nu / 2, scale=2 / nu) * norm.pdf(x, scale=scale / tau**0.5)

        want = quad(joint, 0, 1 / 9)[0] / quad(joint, 0, 50, limit=500, points=[0.01, 0.1, 1])[0]
        assert abs(p - want) < 1e-6
    assert found[-1] > 0.9 > 0.1 > found[0]
