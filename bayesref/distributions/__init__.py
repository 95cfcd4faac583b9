"""Distributions of amplitudes: priors, posteriors, and the quadrature under them."""

from bayesref.distributions.amplitude_posterior import AmplitudePosterior
from bayesref.distributions.falloff import wilson_sigma
from bayesref.distributions.french_wilson import FrenchWilson, french_wilson
from bayesref.distributions.quadrature import NodePosterior, bracket, legendre, nodes
from bayesref.distributions.reference import ReferenceLaplace, ReferenceNormal, ReferenceStudentT
from bayesref.distributions.rice_woolfson import RiceWoolfson
from bayesref.distributions.shared_error import SharedError
from bayesref.distributions.spot_intensity import SpotIntensity
from bayesref.distributions.truncated_normal import TruncatedNormal
from bayesref.distributions.wilson import Wilson
from bayesref.distributions.wilson_tree import WilsonTree

__all__ = [
    "AmplitudePosterior",
    "FrenchWilson",
    "NodePosterior",
    "ReferenceLaplace",
    "ReferenceNormal",
    "ReferenceStudentT",
    "RiceWoolfson",
    "SharedError",
    "SpotIntensity",
    "TruncatedNormal",
    "Wilson",
    "WilsonTree",
    "bracket",
    "french_wilson",
    "legendre",
    "nodes",
    "wilson_sigma",
]
