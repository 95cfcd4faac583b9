"""Normal distribution cut off below, stable however deep the cut-off lies in its tail.

    p(x) = φ((x - μ)/σ) / (σ Φ(t)),   x ≥ low,   t = (μ - low)/σ
    E x = low + σ g₁,   Var x = σ² g₁ (g₂ - g₁)

g₁, g₂ are the ratios of successive moments of the same Gaussian cut off at zero, in units of σ, from a
continued fraction that has no cancellation. For t → -∞ the distribution is exponential with mean σ/|t|.
Johnson, Kotz & Balakrishnan (1994), Continuous univariate distributions 1, 13.10.
"""

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from bayesref.distributions import _half_gaussian


class TruncatedNormal(TorchDistribution):
    """Normal(μ, σ) on [low, ∞).

    Parameters
    ----------
    loc, scale : (*batch), μ and σ of the distribution before the cut
    low : (*batch), the cut
    """

    arg_constraints = {  # noqa: RUF012  the name and type are torch's
        "loc": constraints.real,
        "scale": constraints.positive,
        "low": constraints.real,
    }
    has_rsample = True

    def __init__(self, loc, scale, low=0.0, validate_args=None):
        self.loc, self.scale, self.low = broadcast_all(loc, scale, low)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        new = self._get_checked_instance(TruncatedNormal, _instance)
        for name in self.arg_constraints:
            setattr(new, name, getattr(self, name).expand(batch_shape))
        super(TruncatedNormal, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self):
        """[low, ∞)."""
        return constraints.greater_than_eq(self.low)

    @property
    def _unit(self):
        """a = 1 and c = t of the Gaussian in units of σ."""
        t = (self.loc - self.low) / self.scale
        return torch.ones_like(t), t

    @property
    def mean(self):
        """E x, (*batch)."""
        return self.low + self.scale * _half_gaussian.ratio(*self._unit)

    @property
    def variance(self):
        """Var x, (*batch)."""
        return self.scale**2 * _half_gaussian.variance(*self._unit)

    def log_prob(self, value):
        """log p(x) for x (*sample, *batch)."""
        if self._validate_args:
            self._validate_sample(value)
        return _half_gaussian.log_prob((value - self.low) / self.scale, *self._unit) - self.scale.log()

    def cdf(self, value):
        """P(x' < x), (*sample, *batch)."""
        return -torch.expm1(_half_gaussian.log_survival((value - self.low) / self.scale, *self._unit))

    def icdf(self, u):
        """The x with cdf(x) = u, (*sample, *batch), with its gradient in u and the parameters."""
        return self.low + self.scale * _half_gaussian.icdf(u, *self._unit)

    def rsample(self, sample_shape=torch.Size()):  # noqa: B008  an immutable default, as torch has it
        """Draws by inversion, (*sample_shape, *batch)."""
        u = torch.rand(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        eps = torch.finfo(u.dtype).eps
        return self.icdf(u.clamp(eps / 4, 1 - eps / 2))  # 0 and 1 would map to the ends of the support
