"""Amplitude about that of a reference: normal, Laplace or Student-t, cut off at zero; Wilson where there is none.

    p(F) = k(z)/(w S(-G/w)),   F ≥ 0,   z = (F - G)/w,   S(x) = P(Z > x) for Z with density k
    normal      k = φ(z)
    Laplace     k = ½ exp(-|z|)
    Student-t   k ∝ (1 + z²/ν)^(-(ν+1)/2),  ν even, for which S has a closed form
    unknown     Wilson's distribution with E F² = ε, the scale on which the reference must be

G (`loc`) is the amplitude of the reference and w (`scale`) the width about it. The Rice and Woolfson priors are
`RiceWoolfson`. S of Student's t: Abramowitz & Stegun (1964), 26.7.4. Heavy tails let the data overrule a wrong G.
"""

import math

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from bayesref._checks import InputError
from bayesref.distributions.wilson import Wilson

_STEPS = 80  # of bisection: the width of double precision and the heaviest tails


class _AboutReference(TorchDistribution):
    """What the three laws share; each gives `_log_kernel`, `_log_survival` and `_reach`."""

    arg_constraints = {  # noqa: RUF012  the name and type are torch's
        "loc": constraints.nonnegative,
        "scale": constraints.positive,
        "known": constraints.boolean,
        "epsilon": constraints.positive,
        "centric": constraints.boolean,
    }
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, loc, scale, known, epsilon, centric, validate_args=None):
        loc, scale, epsilon = broadcast_all(loc, scale, epsilon)
        known, centric = (torch.as_tensor(x, dtype=torch.bool, device=loc.device) for x in (known, centric))
        self.loc, self.scale, self.known, self.epsilon, self.centric = torch.broadcast_tensors(
            loc, scale, known, epsilon, centric
        )
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        new = self._get_checked_instance(type(self), _instance)
        for name in self.arg_constraints:
            setattr(new, name, getattr(self, name).expand(batch_shape))
        super(_AboutReference, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def _wilson(self):
        return Wilson(self.epsilon, self.centric, validate_args=False)

    def interval(self, drop):
        """Limits (lo, hi) of F beyond which log p is more than `drop` below its maximum, (*batch) each."""
        lo, hi = self._wilson.interval(drop)
        reach = self.scale * self._reach(drop)
        return (
            torch.where(self.known, (self.loc - reach).clamp(min=0), lo),
            torch.where(self.known, self.loc + reach, hi),
        )

    def log_prob(self, value):
        """log p(F) for F (*sample, *batch)."""
        if self._validate_args:
            self._validate_sample(value)
        near = self._log_kernel((value - self.loc) / self.scale) - self.scale.log()
        near = near - self._log_survival(-self.loc / self.scale)
        return torch.where(self.known, near, self._wilson.log_prob(value))

    def cdf(self, value):
        """P(F' < F), (*sample, *batch)."""
        above = self._log_survival((value - self.loc) / self.scale)
        near = -torch.expm1(above - self._log_survival(-self.loc / self.scale))
        return torch.where(self.known, near, self._wilson.cdf(value))

    def icdf(self, u):
        """The F with cdf(F) = u, (*sample, *batch), by bisection, with its implicit gradient in the parameters."""
        with torch.no_grad():
            lo, hi = (x.expand(u.shape).clone() for x in self.interval(80.0))
            for _ in range(_STEPS):
                middle = 0.5 * (lo + hi)
                below = self.cdf(middle) < u
                lo, hi = torch.where(below, middle, lo), torch.where(below, hi, middle)
            F = 0.5 * (lo + hi)
        cdf = self.cdf(F)
        if not cdf.requires_grad:
            return F
        return F - (cdf - cdf.detach()) / self.log_prob(F).detach().exp()

    def rsample(self, sample_shape=torch.Size()):  # noqa: B008  an immutable default, as torch has it
        """Draws by inversion, (*sample_shape, *batch)."""
        shape = self._extended_shape(sample_shape)
        u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        eps = torch.finfo(u.dtype).eps
        return self.icdf(u.clamp(eps, 1 - eps))  # F = 0 has log p = -∞ under Wilson's acentric law


class ReferenceNormal(_AboutReference):
    """Normal(G, w) cut off at zero; Wilson where `known` is False.

    Parameters
    ----------
    loc : (*batch), G, zero or above; not used where `known` is False
    scale : (*batch), w, above zero
    known : (*batch) bool, whether the reference has this reflection
    epsilon : (*batch), multiplicity
    centric : (*batch) bool
    """

    def _log_kernel(self, z):
        return -0.5 * z * z - 0.5 * math.log(2 * math.pi)

    def _log_survival(self, z):
        return torch.special.log_ndtr(-z)

    def _reach(self, drop):
        return math.sqrt(2 * drop)


class ReferenceLaplace(_AboutReference):
    """Laplace law of scale w (standard deviation √2 w) about G, cut off at zero; parameters as `ReferenceNormal`."""

    def _log_kernel(self, z):
        return -z.abs() - math.log(2)

    def _log_survival(self, z):
        left = torch.log1p(-0.5 * z.clamp(max=0).exp())
        return torch.where(z < 0, left, -z.clamp(min=0) - math.log(2))

    def _reach(self, drop):
        return drop


class ReferenceStudentT(_AboutReference):
    """Student's t about G, cut off at zero; parameters as `ReferenceNormal`, and

    Parameters
    ----------
    df : ν, an even number
    """

    def __init__(self, loc, scale, known, epsilon, centric, df=4, validate_args=None):
        if df != int(df) or df < 2 or df % 2:
            raise InputError(
                f"Student's t about a reference has df {df:g}; give 2, 4, 6 or another even number."
            )
        self.df = int(df)
        super().__init__(loc, scale, known, epsilon, centric, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        new = super().expand(batch_shape, _instance)
        new.df = self.df
        return new

    def _log_kernel(self, z):
        nu = self.df
        constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(math.pi * nu)
        return constant - 0.5 * (nu + 1) * torch.log1p(z * z / nu)

    def _log_survival(self, z):
        """log ½(1 - sin θ Σ_k c_k cos²ᵏθ), tan θ = z/√ν; S ~ z^-ν far out, where the difference has no digits left."""
        nu, sine, cos2 = self.df, z / (z * z + self.df).sqrt(), self.df / (z * z + self.df)
        total, c, term = torch.ones_like(z), 1.0, torch.ones_like(z)
        for k in range(1, nu // 2):
            c *= (2 * k - 1) / (2 * k)
            term = term * cos2
            total = total + c * term
        return (0.5 * (1 - sine * total)).clamp(min=1e-16).log()

    def _reach(self, drop):
        return math.sqrt(self.df * math.expm1(2 * drop / (self.df + 1)))
