"""What every scale has in common: log K of a spot as a function of whitened weights.

    log K_i = f(x_i; sd ⊙ w),    w ~ Normal(0, 1)          x_i: what is known of spot i
    sd_g²  <- sd_g² Σ w_g² / (γ_g + sd_g/s₀),   γ_g = Σ_g (1 - var w)      for each group g of weights

The weights are one vector w with a unit prior, so that a scale is one site of a Pyro model. Its terms fall into
groups, each with its own prior standard deviation, re-estimated from the posterior (the evidence fixed point of
MacKay, 1992, Neural Comput. 4, 415) with an exponential prior of mean s₀ on the sd (Simpson et al., 2017, Statist.
Sci. 32, 1), without which the evidence cannot tell a small sd from none: a group that the data do not need vanishes.
`Product` adds the logarithms of several scales.
"""

import math
import weakref
from dataclasses import dataclass, replace

import pyro.distributions as dist
import torch

COMPLEXITY = 0.1  # s₀: a priori, a term changes log K by about 10 %


@dataclass(frozen=True)
class Group:
    """A run of weights that share one prior.

    Attributes
    ----------
    name : what the weights describe
    n : number of weights
    sd : prior standard deviation, in units of log K per unit of the basis function
    learned : sd follows the evidence
    """

    name: str
    n: int
    sd: float
    learned: bool = True


class Scale:
    """Base class. A subclass sets `groups` and defines `features` and `log_scale`.

    `scale(w, obs)` is log K of each spot, (spot,). Features of a set of observations are computed once and kept
    as long as the observations live; so is the last value, for weights that carry no gradient.
    """

    site = "w"
    linear = True

    def __init__(self, groups: list[Group]):
        self.groups = groups
        self._features: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
        self._last: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    def features(self, obs):
        """What `log_scale` needs of the observations; any tuple of tensors with first dimension spot."""
        raise NotImplementedError

    def log_scale(self, v, *features):
        """log K, (spot,), of the unwhitened weights v = sd ⊙ w, (weight,)."""
        raise NotImplementedError

    def basis(self, *features) -> torch.Tensor:
        """∂ log K/∂v of a scale linear in its weights, (spot, weight)."""
        raise NotImplementedError

    @property
    def n_weights(self) -> int:
        return sum(g.n for g in self.groups)

    def sd(self) -> torch.Tensor:
        """Prior standard deviation of each weight, (weight,)."""
        return torch.cat([torch.full((g.n,), g.sd, dtype=torch.float64) for g in self.groups])

    def prior(self):
        """Unit normal prior of the whitened weights, a Pyro distribution with event shape (weight,)."""
        zero = torch.zeros(self.n_weights, dtype=torch.float64)
        return dist.Normal(zero, torch.ones_like(zero)).to_event(1)

    def initial(self) -> torch.Tensor:
        """Whitened weights to start from, (weight,): zero, the prior mean."""
        return torch.zeros(self.n_weights, dtype=torch.float64)

    def prepared(self, obs):
        """`features(obs)`, computed once."""
        if obs not in self._features:
            self._features[obs] = self.features(obs)
        return self._features[obs]

    def __call__(self, w: torch.Tensor, obs) -> torch.Tensor:
        kept = self._last.get(obs)
        if kept is not None and kept[0] is w:
            return kept[1]
        log_K = self._evaluate(w, obs)
        if not log_K.requires_grad:
            self._last[obs] = (w, log_K)
        return log_K

    def _evaluate(self, w, obs):
        return self.log_scale(w * self.sd().to(w), *self.prepared(obs))

    def jacobian(self, w: torch.Tensor, obs) -> torch.Tensor:
        """∂ log K/∂w, (spot, weight)."""
        return self.basis(*self.prepared(obs)) * self.sd().to(w)

    def image_columns(self) -> torch.Tensor:
        """Places of weights that belong to one image each, (image, k) int64; (0, 0) where there are none."""
        return torch.zeros(0, 0, dtype=torch.int64)

    def split_jacobian(self, w: torch.Tensor, obs) -> tuple[torch.Tensor, torch.Tensor]:
        """`jacobian` in two: of the shared weights, (spot, m), and of those of the spot's own image, (spot, k)."""
        J = self.jacobian(w, obs)
        return J, J.new_zeros(len(J), 0)

    def linearized(self, w: torch.Tensor) -> "Scale":
        """A scale linear in its weights about w: itself where that is so already."""
        return self

    def forget(self) -> None:
        """Drop the values kept for repeated calls: the prior, and with it the scale, has changed."""
        self._last.clear()

    def adapt(self, w: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        """Re-estimate the learned prior standard deviations; log K stays as it is.

        Parameters
        ----------
        w, variance : (weight,), posterior mean and variance of the whitened weights

        Returns
        -------
        factor : (weight,), by which each sd grew; the caller divides w by it
        """
        factor = torch.ones_like(w)
        start = 0
        for i, g in enumerate(self.groups):
            own = slice(start, start + g.n)
            start += g.n
            if g.learned:
                f = _evidence_factor(w[own], variance[own], g.sd)
                # A prior sd below 1e-3 in log K does nothing that can be measured, and could not grow back.
                f = max(f, min(1.0, 1e-3 / g.sd))
                self.groups[i] = replace(g, sd=g.sd * f)
                factor[own] = f
        self.forget()
        return factor


def _evidence_factor(w: torch.Tensor, variance: torch.Tensor, sd: float) -> float:
    """Where the slope of log evidence + log prior in log sd vanishes: Σ w² - γ - sd/s₀ = 0."""
    gamma = float((1 - variance).clamp(min=0).sum())
    f = math.sqrt(float((w**2).sum()) / (gamma + sd / COMPLEXITY))
    return min(max(f, 0.2), 5.0)  # one step at most five-fold, since the curvature is taken at the old sd


class Product(Scale):
    """The product of several scales: their logarithms add.

    Parameters
    ----------
    terms : scales, whose weights are laid end to end
    """

    def __init__(self, *terms: Scale):
        super().__init__([])
        self.terms = terms
        self.linear = all(t.linear for t in terms)

    @property
    def groups(self):
        return [g for t in self.terms for g in t.groups]

    @groups.setter
    def groups(self, value):
        if value:
            raise AttributeError("the groups of a Product are those of its terms")

    def _split(self, w):
        return w.split([t.n_weights for t in self.terms])

    def initial(self):
        return torch.cat([t.initial() for t in self.terms])

    def _evaluate(self, w, obs):
        return sum(t._evaluate(x, obs) for t, x in zip(self.terms, self._split(w), strict=True))

    def jacobian(self, w, obs):
        return torch.cat([t.jacobian(x, obs) for t, x in zip(self.terms, self._split(w), strict=True)], 1)

    def image_columns(self):
        start, parts = 0, []
        for t in self.terms:
            if t.image_columns().numel():
                parts.append(t.image_columns() + start)
            start += t.n_weights
        return torch.cat(parts, 1) if parts else super().image_columns()

    def split_jacobian(self, w, obs):
        parts = [t.split_jacobian(x, obs) for t, x in zip(self.terms, self._split(w), strict=True)]
        shared, local = zip(*parts, strict=True)
        return torch.cat(shared, 1), torch.cat(local, 1)

    def linearized(self, w):
        if self.linear:
            return self
        return Product(*(t.linearized(x) for t, x in zip(self.terms, self._split(w), strict=True)))

    def forget(self):
        super().forget()
        for t in self.terms:
            t.forget()

    def adapt(self, w, variance):
        parts = zip(self.terms, self._split(w), self._split(variance), strict=True)
        factor = torch.cat([t.adapt(x, v) for t, x, v in parts])
        self.forget()
        return factor
