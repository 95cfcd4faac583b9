"""Measured intensity of a spot: Student-t about its expectation, or a blank.

    p(I) = (1 - π) t_ν(I; loc, scale) + π Normal(I; 0, scale₀)

A blank is a spot that was predicted and integrated but is not there: misindexed, masked, shadowed, or recorded as
zero. Such spots scatter about zero with the noise of the background, scale₀, whatever the amplitude; no symmetric
error law can tell a spot that is missing from one that is too strong.
"""

import math

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints


class SpotIntensity(TorchDistribution):
    """Student-t with a fraction of blanks.

    Parameters
    ----------
    df : degrees of freedom ν
    loc : expected intensity K F²
    scale : of the Student-t, in units of I
    blank : π, the probability of a blank, in [0, 1)
    blank_scale : noise of a blank, in units of I
    """

    arg_constraints = {  # noqa: RUF012  torch's name and type
        "df": constraints.positive,
        "loc": constraints.real,
        "scale": constraints.positive,
        "blank": constraints.unit_interval,
        "blank_scale": constraints.positive,
    }
    support = constraints.real

    def __init__(self, df, loc, scale, blank, blank_scale, validate_args=None):
        args = (
            torch.as_tensor(x, dtype=scale.dtype, device=scale.device)
            for x in (df, loc, scale, blank, blank_scale)
        )
        self.df, self.loc, self.scale, self.blank, self.blank_scale = args
        shape = torch.broadcast_shapes(*(x.shape for x in self._parameters()))
        super().__init__(shape, validate_args=validate_args)

    def _parameters(self):
        return self.df, self.loc, self.scale, self.blank, self.blank_scale

    def expand(self, batch_shape, _instance=None):
        # Parameters keep their own shapes: what a plate repeats need not be computed again for every spot.
        new = self._get_checked_instance(SpotIntensity, _instance)
        new.df, new.loc, new.scale, new.blank, new.blank_scale = self._parameters()
        TorchDistribution.__init__(new, torch.Size(batch_shape), validate_args=False)
        return new

    @property
    def mean(self):
        """(1 - π) loc."""
        return (1 - self.blank) * self.loc

    @property
    def variance(self):
        """Infinite for df <= 2."""
        within = torch.where(self.df > 2, self.df / (self.df - 2), torch.inf) * self.scale**2
        p = self.blank
        return (1 - p) * (within + self.loc**2) + p * self.blank_scale**2 - self.mean**2

    def sample(self, sample_shape=torch.Size()):  # noqa: B008  an immutable default, as torch has it
        shape = self._extended_shape(sample_shape)
        with torch.no_grad():
            spot = torch.distributions.StudentT(self.df, self.loc, self.scale).expand(self.batch_shape)
            is_blank = torch.rand(shape, dtype=self.scale.dtype, device=self.scale.device) < self.blank
            noise = self.blank_scale * torch.randn(shape, dtype=self.scale.dtype, device=self.scale.device)
            return torch.where(is_blank, noise, spot.sample(sample_shape))

    def components(self, value):
        """Logs of the two terms of p(I): the spot, (1 - π) t_ν, and the blank, π Normal; each (*sample, *batch)."""
        nu = self.df
        constant = torch.lgamma((nu + 1) / 2) - torch.lgamma(nu / 2) - 0.5 * torch.log(math.pi * nu)
        z2 = ((value - self.loc) / self.scale) ** 2
        spot = constant + torch.log1p(-self.blank) - self.scale.log() - 0.5 * (nu + 1) * torch.log1p(z2 / nu)
        blank = (
            -0.5 * (value / self.blank_scale) ** 2 - torch.log(self.blank_scale) - 0.5 * math.log(2 * math.pi)
        )
        return spot, blank + self.blank.log()

    def log_prob(self, value):
        return torch.logaddexp(*self.components(value))
