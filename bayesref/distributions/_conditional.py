"""One amplitude given its spots, for reflections of one kind: what `AmplitudePosterior` is put together from.

    p(F | a, b) ∝ p(F) exp(-a J²/2 + b J),   J = F²

    acentric Wilson   J is a Gaussian cut off at zero: closed form, c = b - 1/(εΣ)
    centric Wilson    exp(-a J²/2 + c J) on quadrature nodes, c = b - 1/(2εΣ)
    any other prior   p(F) exp(-a J²/2 + b J) on quadrature nodes between limits from `bracket`

For b > 0 the exponent is taken relative to its maximum b²/(2a), which may exceed 10¹²: the digits left
beside it would not resolve the density. `offset` is what was taken off; only `log_normalizer` adds it back.
"""

import math
from functools import cached_property

import torch

from bayesref.distributions import _half_gaussian
from bayesref.distributions.quadrature import NodePosterior, bracket, nodes

_DROP = 32.0  # e⁻³² = 10⁻¹⁴; a wider span would cost 48 nodes more digits in resolution than it gains


def _log_likelihood(J, a, c):
    """-a J²/2 + c J less its offset, and the offset."""
    high = c > 0
    root = torch.where(high, a, torch.ones_like(a)).sqrt()
    t = torch.where(high, c, torch.zeros_like(c)) / root
    c_low = torch.where(high, torch.zeros_like(c), c)
    return torch.where(high, -0.5 * (root * J - t) ** 2, -J * (0.5 * a * J - c_low)), 0.5 * t * t


@torch.no_grad()
def _span(a, c):
    """Limits of F where -a J²/2 + c J is within _DROP of its maximum over J ≥ 0."""
    high = c > 0
    width = torch.where(high, 2 * _DROP / a, torch.zeros_like(a)).sqrt()
    peak = torch.where(high, c / a, torch.zeros_like(a))
    tail = 2 * _DROP / (c.abs() + torch.sqrt(c * c + 2 * a * _DROP))
    return (peak - width).clamp(min=0).sqrt(), torch.where(high, peak + width, tail).sqrt()


class Conditional:
    """Any prior with `log_prob(F)` and `interval(drop)`; a, b (*batch)."""

    def __init__(self, prior, a, b, n_node):
        self.prior, self.a, self.b, self.n_node = prior, a, b, n_node

    def log_density(self, F):
        """Log of the unnormalised density, offset taken off; (*sample, *batch)."""
        return self.prior.log_prob(F) + _log_likelihood(F * F, self.a, self.b)[0]

    @property
    def offset(self):
        """What was taken off, (*batch)."""
        return _log_likelihood(torch.zeros_like(self.a), self.a, self.b)[1]

    def limits(self):
        """Between the mode of the prior and that of the likelihood lies every mode of their product."""
        with torch.no_grad():
            lo, hi = self.prior.interval(_DROP)
            like_lo, like_hi = _span(self.a, self.b)
            no_spots = self.a == 0
            lo, hi = (
                torch.where(no_spots, x, y) for x, y in ((lo, lo.minimum(like_lo)), (hi, hi.maximum(like_hi)))
            )
            return bracket(
                self.log_density, lo, hi, _DROP, points=17, passes=12
            )  # one mode, or two close ones

    @cached_property
    def nodes(self) -> NodePosterior:
        """The density on quadrature nodes, offset taken off."""
        lo, hi = self.limits()
        return NodePosterior(lo, hi, self.log_density(nodes(lo, hi, self.n_node)))

    @property
    def log_normalizer(self):
        """log ∫ p(F) exp(-a J²/2 + b J) dF."""
        return self.nodes.log_normalizer + self.offset

    def log_prob(self, F):
        """log p(F | a, b)."""
        return self.log_density(F) - self.nodes.log_normalizer

    def cdf(self, F):
        """P(F' < F | a, b)."""
        return self.nodes.cdf(F)

    def icdf(self, u):
        """Quantiles, with implicit gradient in the parameters."""
        return self.nodes.icdf(u)


class CentricWilson(Conditional):
    """p(F) ∝ exp(-a J²/2 + c J); V = εΣ (*batch)."""

    def __init__(self, V, a, b, n_node):
        self.V, self.a, self.c, self.n_node = V, a, b - 0.5 / V, n_node

    def log_density(self, F):
        prior = 0.5 * (math.log(2 / math.pi) - self.V.log())
        return _log_likelihood(F * F, self.a, self.c)[0] + prior

    @property
    def offset(self):
        return _log_likelihood(torch.zeros_like(self.a), self.a, self.c)[1]

    def limits(self):
        return _span(self.a, self.c)


class AcentricWilson(CentricWilson):
    """p(F) = 2F p(J), p(J) ∝ exp(-a J²/2 + c J): all but odd moments of F in closed form."""

    def __init__(self, V, a, b, n_node):
        self.V, self.a, self.c, self.n_node = V, a, b - 1 / V, n_node

    def log_density(self, F):
        return _log_likelihood(F * F, self.a, self.c)[0] + math.log(2) + F.log() - self.V.log()

    @property
    def log_normalizer(self):
        return _half_gaussian.log_integral(self.a, self.c) - self.V.log()

    def log_prob(self, F):
        return _half_gaussian.log_prob(F * F, self.a, self.c) + math.log(2) + F.log()

    def cdf(self, F):
        return -torch.expm1(_half_gaussian.log_survival(F * F, self.a, self.c))

    def icdf(self, u):
        return _half_gaussian.icdf(u, self.a, self.c).sqrt()
