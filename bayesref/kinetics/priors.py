"""Priors of kinetic parameters, in the words of an experiment.

k ~ LogNormal(-ln τ, ln f)       a time constant τ, known within a factor f (one standard deviation)
σ ~ LogNormal(ln w, ln f)        width of the response
η, α ~ Beta(m s, (1 - m) s)      mean m, worth s observations
"""

import math

import pyro.distributions as dist
import torch

from bayesref._checks import InputError
from bayesref.kinetics.units import seconds


def rate_prior(time: str | float, factor: float = 10.0) -> dist.Distribution:
    """Prior of a rate, 1/s, from the expected time constant ("10us", or s) and the factor it is known to."""
    return _log_normal("time", -1, time, factor)


def width_prior(width: str | float, factor: float = 1.5) -> dist.Distribution:
    """Prior of the width, s, of the response from its expected value ("100fs", or s) and a factor."""
    return _log_normal("width", 1, width, factor)


def fraction_prior(mean: float = 0.5, strength: float = 2.0) -> dist.Distribution:
    """Prior of an efficiency or activation; strength 2 at mean 0.5 is uniform."""
    if not 0 < mean < 1 or strength <= 0:
        raise InputError(
            f"Found a mean of {mean} and a strength of {strength}; expected a mean between 0 and 1, a strength above 0."
        )
    a = torch.tensor([mean * strength, (1 - mean) * strength], dtype=torch.float64)
    return dist.Beta(a[0], a[1])


def _log_normal(what, sign, value, factor):
    value = seconds(value)
    if not 0 < value < math.inf or not 1 < factor < math.inf:
        raise InputError(
            f"Found a {what} of {value} s and a factor of {factor}; expected {what} > 0, factor > 1."
        )
    m, s = (torch.tensor(math.log(x), dtype=torch.float64) for x in (value, factor))
    return dist.LogNormal(sign * m, s)
