"""Distributions of amplitudes: priors, posteriors, and the quadrature under them."""

from bayesref.distributions.amplitude_posterior import AmplitudePosterior
from bayesref.distributions.quadrature import NodePosterior, bracket, legendre, nodes
from bayesref.distributions.wilson import Wilson

__all__ = ["AmplitudePosterior", "NodePosterior", "Wilson", "bracket", "legendre", "nodes"]
