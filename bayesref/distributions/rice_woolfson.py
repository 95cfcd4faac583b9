"""Amplitude around an expected one: Rice (acentric) and Woolfson (centric).

    acentric  p(F) = 2F/V exp[-(F² + G²)/V] I₀(2FG/V)           F = |G + z|, z complex normal, E|z|² = V
    centric   p(F) = √(2/(πV)) exp[-(F² + G²)/(2V)] cosh(FG/V)  F = |G + z|, z real normal, E z² = V
    E F² = G² + V in both;  G = 0 is Wilson's distribution with εΣ = V

G (`loc`) is D |F_calc|, or r F of a parent dataset; V (`variance` of the constructor, `scatter` here) in F².
Sim (1959), Acta Cryst. 12, 813; Woolfson (1956), Acta Cryst. 9, 804; moments: Rice (1945).
"""

import math

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from bayesref.distributions._special import log_coshe, log_i0e
from bayesref.distributions.quadrature import NodePosterior

# Var F/V of Rice in powers of V/G², from the asymptotic series of its mean; the difference V + G² - (E F)² of
# large numbers is worse than the series above _SHARP
_SHARP = 500.0
_RICE_VARIANCE = (1 / 2, -1 / 8, -1 / 16, -11 / 128, -51 / 256)


class RiceWoolfson(TorchDistribution):
    """Amplitudes F ≥ 0 of reflections of both kinds in one batch.

    Parameters
    ----------
    loc : (*batch), G, zero or above
    variance : (*batch), V = E|z|², above zero; E F² = G² + V
    centric : (*batch) bool
    """

    arg_constraints = {  # noqa: RUF012  the name and type are torch's
        "loc": constraints.nonnegative,
        "scatter": constraints.positive,
        "centric": constraints.boolean,
    }
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, loc, variance, centric, validate_args=None):
        loc, variance = broadcast_all(loc, variance)
        centric = torch.as_tensor(centric, dtype=torch.bool, device=loc.device)
        self.loc, self.scatter, self.centric = torch.broadcast_tensors(loc, variance, centric)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        new = self._get_checked_instance(RiceWoolfson, _instance)
        for name in self.arg_constraints:
            setattr(new, name, getattr(self, name).expand(batch_shape))
        super(RiceWoolfson, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean_intensity(self):
        """E F² = G² + V, (*batch)."""
        return self.loc**2 + self.scatter

    @property
    def mean(self):
        """E F, (*batch)."""
        G, V = self.loc, self.scatter
        h = 0.5 * G * G / V
        rice = (1 + 2 * h) * torch.special.i0e(h) + 2 * h * torch.special.i1e(h)
        woolfson = (2 * V / math.pi).sqrt() * torch.exp(-h) + G * torch.erf(h.sqrt())
        return torch.where(self.centric, woolfson, 0.5 * (math.pi * V).sqrt() * rice)

    @property
    def variance(self):
        """Var F, (*batch)."""
        V = self.scatter
        k = self.loc**2 / V
        sharp = k > _SHARP
        tail, u = torch.zeros_like(k), 1 / k.clamp(min=_SHARP)
        for c in reversed(_RICE_VARIANCE):
            tail = tail * u + c
        # of Woolfson's distribution only exp(-k/2) is then left at negative amplitude
        tail = torch.where(self.centric, torch.ones_like(tail), tail)
        return torch.where(sharp, tail * V, self.mean_intensity - self.mean**2)

    def interval(self, drop):
        """Limits (lo, hi) of F beyond which log p is more than `drop` below its maximum, (*batch) each."""
        V = self.scatter
        width = (torch.where(self.centric, 2 * V, V) * (drop + 3)).sqrt()  # 3: room for log F
        return (self.loc - width).clamp(min=0), self.loc + width

    def log_prob(self, value):
        """log p(F) for F (*sample, *batch)."""
        if self._validate_args:
            self._validate_sample(value)
        G, V = self.loc, self.scatter
        z = (value - G) ** 2 / V
        x = value * G / V
        # the slope of log F at F = 0 would reach centric reflections as NaN
        log_F = torch.where(self.centric, torch.ones_like(value), value).log()
        rice = math.log(2) + log_F - V.log() - z + log_i0e(2 * x)
        woolfson = 0.5 * (math.log(2 / math.pi) - V.log() - z) + log_coshe(x)
        return torch.where(self.centric, woolfson, rice)

    def rsample(self, sample_shape=torch.Size()):  # noqa: B008  an immutable default, as torch has it
        """|G + z|, differentiable in `loc` and `variance`; (*sample_shape, *batch)."""
        shape = self._extended_shape(sample_shape)
        z = torch.randn((2, *shape), dtype=self.loc.dtype, device=self.loc.device)
        width = torch.where(self.centric, self.scatter, 0.5 * self.scatter).sqrt()
        real = self.loc + width * z[0]
        imag = torch.where(self.centric, torch.zeros_like(width), width) * z[1]
        return torch.hypot(real, imag)

    def cdf(self, value):
        """P(F' < F), (*sample, *batch), by quadrature."""
        return NodePosterior.of(self.log_prob, *self.interval(32.0)).cdf(value)

    def icdf(self, u):
        """The F with cdf(F) = u, (*sample, *batch), by quadrature."""
        return NodePosterior.of(self.log_prob, *self.interval(32.0)).icdf(u)
