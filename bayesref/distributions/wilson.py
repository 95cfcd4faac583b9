"""Wilson's distributions of an amplitude, the prior of a reflection when nothing is known of the structure.

    acentric  p(F) = 2F/(εΣ) exp(-F²/(εΣ))              F² exponential
    centric   p(F) = √(2/(π εΣ)) exp(-F²/(2εΣ))         F half-normal
    E F² = εΣ in both

ε is the multiplicity of the reflection (`epsilon`), Σ = ⟨F²/ε⟩ (`Sigma`) in units of F².
Wilson (1949), Acta Cryst. 2, 318.
"""

import math

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all


class Wilson(TorchDistribution):
    """Amplitudes F ≥ 0 of reflections of both kinds in one batch.

    Parameters
    ----------
    epsilon : (*batch), multiplicity, above zero
    centric : (*batch) bool
    Sigma : (*batch), mean of F²/ε, above zero, in units of F²
    """

    arg_constraints = {  # noqa: RUF012  the name and type are torch's
        "epsilon": constraints.positive,
        "centric": constraints.boolean,
        "Sigma": constraints.positive,
    }
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, epsilon, centric, Sigma=1.0, validate_args=None):
        epsilon, Sigma = broadcast_all(epsilon, Sigma)
        self.centric = torch.as_tensor(centric, dtype=torch.bool, device=epsilon.device)
        self.epsilon, self.Sigma, self.centric = torch.broadcast_tensors(epsilon, Sigma, self.centric)
        super().__init__(self.epsilon.shape, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        new = self._get_checked_instance(Wilson, _instance)
        for name in self.arg_constraints:
            setattr(new, name, getattr(self, name).expand(batch_shape))
        super(Wilson, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean_intensity(self):
        """E F² = εΣ, (*batch)."""
        return self.epsilon * self.Sigma

    @property
    def mean(self):
        """E F, (*batch): √(π εΣ)/2 acentric, √(2 εΣ/π) centric."""
        V = self.mean_intensity
        return torch.where(self.centric, (2 / math.pi * V).sqrt(), (math.pi / 4 * V).sqrt())

    @property
    def variance(self):
        """Var F, (*batch)."""
        V = self.mean_intensity
        return torch.where(self.centric, (1 - 2 / math.pi) * V, (1 - math.pi / 4) * V)

    def interval(self, drop):
        """Limits (lo, hi) of F beyond which log p is more than `drop` below its maximum, (*batch) each."""
        V = self.mean_intensity
        width = torch.where(self.centric, 2 * V, V) * (drop + 3)  # 3: room for log F
        return torch.zeros_like(V), width.sqrt()

    def log_prob(self, value):
        """log p(F) for F (*sample, *batch)."""
        if self._validate_args:
            self._validate_sample(value)
        V = self.mean_intensity
        z = value * value / V
        # the slope of log F at F = 0 would reach centric reflections as NaN
        log_F = torch.where(self.centric, torch.ones_like(value), value).log()
        acentric = math.log(2) + log_F - V.log() - z
        half_normal = 0.5 * (math.log(2 / math.pi) - V.log() - z)
        return torch.where(self.centric, half_normal, acentric)

    def rsample(self, sample_shape=torch.Size()):  # noqa: B008  an immutable default, as torch has it
        """Draws by inversion, differentiable in `epsilon` and `Sigma`; (*sample_shape, *batch)."""
        u = torch.rand(self._extended_shape(sample_shape), dtype=self.Sigma.dtype, device=self.Sigma.device)
        eps = torch.finfo(u.dtype).eps
        return self.icdf(u.clamp(eps / 4, 1 - eps / 2))  # F = 0 has log p = -∞

    def cdf(self, value):
        """P(F' < F), (*sample, *batch)."""
        V = self.mean_intensity
        return torch.where(self.centric, torch.erf(value / (2 * V).sqrt()), -torch.expm1(-value * value / V))

    def icdf(self, u):
        """The F with cdf(F) = u, (*sample, *batch)."""
        V = self.mean_intensity
        acentric = -torch.log1p(-torch.where(self.centric, torch.full_like(u, 0.5), u))
        return torch.where(self.centric, torch.erfinv(u) * (2 * V).sqrt(), (acentric * V).sqrt())
