"""Wilson's prior of related amplitudes: a tree of datasets, or of Friedel mates, for every reflection.

    root           F ~ Wilson(ε)
    child          F = |r F' + z| given its parent F',   E|z|² = ε (1 - r²)
    acentric       p(F | F') = Rice:      2F/V exp[-(F² + r²F'²)/V] I₀(2rFF'/V),          V = ε (1 - r²)
    centric        p(F | F') = Woolfson:  √(2/(πV)) exp[-(F² + r²F'²)/(2V)] cosh(rFF'/V)

Every amplitude alone is then Wilson's with ⟨F²⟩ = ε (Σ = 1 for each dataset: the fall-off is in the scale); r is the
correlation of the structure factors, r² about that of the intensities. With likelihoods L(F) of the spots of each row,

    Z = ∫ Π_roots p(F) Π_children p(F | F') Π L(F) dF

is exact by messages between quadrature nodes of neighbours in the tree (Pearl, 1988, Probabilistic reasoning in
intelligent systems, 4.2), and so are the marginals, the joint of any two rows, and ∂ log Z/∂r = Σ E ∂ log p(F|F')/∂r.
The prior: Hekstra, Wang, Klureza, Greisman & Dalton (2025), Acta Cryst. D81, 199 (double Wilson).
"""

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints

from bayesref.distributions.rice_woolfson import RiceWoolfson
from bayesref.distributions.wilson import Wilson


class WilsonTree(TorchDistribution):
    """Amplitudes F ≥ 0 of all rows together; event shape (hkl,).

    Parameters
    ----------
    epsilon : (hkl,), multiplicity
    centric : (hkl,) bool
    parent : (hkl,) int64, row of the parent, which comes before its children; -1 for a root
    r : (hkl,), correlation with the parent, 0 ≤ r < 1; that of a root is ignored
    """

    arg_constraints = {"epsilon": constraints.positive, "r": constraints.half_open_interval(0, 1)}  # noqa: RUF012
    support = constraints.independent(constraints.nonnegative, 1)
    has_rsample = True

    def __init__(self, epsilon, centric, parent, r, validate_args=None):
        self.epsilon, self.centric, self.parent = epsilon, centric, parent
        self.r = torch.where(parent < 0, torch.zeros_like(epsilon), r)
        super().__init__(torch.Size(), epsilon.shape, validate_args=validate_args)

    @property
    def marginal(self) -> Wilson:
        """Of each row on its own, batch shape (hkl,)."""
        return Wilson(self.epsilon, self.centric, validate_args=False)

    def interval(self, drop):
        """Limits (lo, hi) of F beyond which the density of a row alone is more than `drop` below its maximum."""
        return self.marginal.interval(drop)

    def given(self, parent_F) -> RiceWoolfson:
        """Of each row given the amplitudes of the parents, (*sample, hkl); those of roots are ignored."""
        V = self.epsilon * (1 - self.r**2)
        return RiceWoolfson(self.r * parent_F, V.expand_as(parent_F), self.centric, validate_args=False)

    def log_prob(self, value):
        """log p(F) for F (*sample, hkl), summed over rows."""
        if self._validate_args:
            self._validate_sample(value)
        return self.given(value[..., self.parent.clamp(min=0)]).log_prob(value).sum(-1)

    def rsample(self, sample_shape=torch.Size()):  # noqa: B008  an immutable default, as torch has it
        """Draws, one generation after the other, differentiable in r; (*sample_shape, hkl)."""
        F = self.marginal.rsample(sample_shape)
        for rows in self.generations()[1:]:
            V = self.epsilon[rows] * (1 - self.r[rows] ** 2)
            G = self.r[rows] * F[..., self.parent[rows]]
            F = F.index_copy(-1, rows, RiceWoolfson(G, V.expand_as(G), self.centric[rows]).rsample())
        return F

    def generations(self) -> list[torch.Tensor]:
        """Rows of the roots, of their children, of theirs, ..., int64 each."""
        depth = torch.full_like(self.parent, -1)
        rows, found = (self.parent < 0).nonzero()[:, 0], []
        while len(rows):
            found.append(rows)
            depth[rows] = len(found) - 1
            is_child = (self.parent >= 0) & (depth < 0) & (depth[self.parent.clamp(min=0)] >= 0)
            rows = is_child.nonzero()[:, 0]
        return found


def family_ends(parent: torch.Tensor) -> torch.Tensor:
    """Where the list of rows can be cut without parting a child from its parent, 0 and the end included, int64."""
    n = len(parent)
    row = torch.arange(n)
    reach = torch.where(parent < 0, row, parent).flip(0).cummin(0).values.flip(0)
    return torch.cat([(reach >= row).nonzero()[:, 0], torch.tensor([n])])
