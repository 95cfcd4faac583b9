"""Expectation propagation over clusters of intensities: each factor in turn under what all others say.

    cavity    q without one site: exp(-a J²/2 + b J) for an amplitude, exp(-τ' s²/2 + η' s) for the sum of a spot
    tilted    factor × cavity, with its moments by nodes
    site      the Gaussian that turns the cavity into one of these moments

All sites are updated at once, each by a part of its change: by less in clusters that do not come to rest. A tilted law
that has run off its nodes leaves its site alone until nodes are laid anew: else the nodes' own width would pass for
knowledge, make the cavities of others narrow, then their nodes, and so on.
Minka (2001), Uncertainty in Artificial Intelligence 17, 362.
"""

from dataclasses import dataclass

import torch

from bayesref.inference.overlap_clusters import Clusters, Joint

CLOSE = 1e-5  # change of a mean, in its sd, below which a fixed point is reached
SMALLEST = (
    1e-3  # of α: a centric prior, J^-½, is convex in J, but a negative site could leave q without a maximum
)
NARROW = 0.03  # least sd over the range of the nodes, which is ten sd of what they were laid for
LOST = 0.01  # share of a tilted law on the two nodes at an end, beyond which it goes on outside
FASTEST, SLOWEST = 0.8, 0.05  # share of a new site in its update: updates of all sites at once may overshoot


@dataclass(frozen=True)
class Sites:
    """Natural parameters of q: α, β (core,) of the amplitudes; τ, η (spot,) of the sums."""

    alpha: torch.Tensor
    beta: torch.Tensor
    tau: torch.Tensor
    eta: torch.Tensor

    def towards(self, new: "Sites", core: torch.Tensor, spot: torch.Tensor) -> "Sites":
        """Part of the way to `new`, `core` (core,) and `spot` (spot,) of it."""
        pairs = zip(vars(self).values(), vars(new).values(), (core, core, spot, spot), strict=True)
        return Sites(*(a + share * (b - a) for a, b, share in pairs))

    def near(self, other: "Sites") -> bool:
        """Whether amplitudes have the same sites, within a per mille of their precision."""
        scale = torch.maximum(self.alpha.abs(), other.alpha.abs())
        return bool(((self.alpha - other.alpha).abs() <= 1e-3 * scale).all())


@dataclass(frozen=True)
class Factors:
    """What is integrated: log density × quadrature weight at nodes, (node, *).

    Attributes
    ----------
    log_g, J : (node, core), of prior × single spots, and F² at the nodes
    log_law, s : (node, spot), of the error law of overlapped spots, and their sums at the nodes
    more, s_more : (2, core), (2, spot) bool, whether there is anything below the first node, and above the last;
        None: sites follow their nodes whatever these cover
    """

    log_g: torch.Tensor
    J: torch.Tensor
    log_law: torch.Tensor
    s: torch.Tensor
    more: torch.Tensor | None = None
    s_more: torch.Tensor | None = None


@dataclass(frozen=True)
class FixedPoint:
    """Where propagation ended.

    Attributes
    ----------
    sites, joint : q
    a, b : (core,), cavities of the amplitudes
    constant : log Z less Σ log ∫ g exp(-a J²/2 + b J)
    change : (core,), of the means in the last pass, in their sd
    """

    sites: Sites
    joint: Joint
    a: torch.Tensor
    b: torch.Tensor
    constant: float
    change: torch.Tensor

    @property
    def reached(self) -> bool:
        """Whether the last pass changed nothing."""
        return float(self.change.max()) <= CLOSE


def propagate(clusters: Clusters, factors: Factors, sites: Sites, K: torch.Tensor, passes: int) -> FixedPoint:
    """Passes over all sites, from `sites` on, until nothing changes; K (order,)."""
    share = torch.full((clusters.n,), FASTEST, dtype=K.dtype)
    last, before = None, torch.full_like(share, torch.inf)
    for k in range(passes):
        joint = joint_of(clusters, sites, K)
        a, b = cavity(joint, sites)
        tau, eta = spot_cavity(joint, sites)
        _, mean_h, var_h, ends_h = tilted(factors.log_g, factors.J, a, b)
        log_s, mean_s, var_s, ends_s = tilted(factors.log_law, factors.s, tau, eta)
        lost_h, lost_s = _lost(ends_h, factors.more), _lost(ends_s, factors.s_more)
        change = torch.ones_like(a) if last is None else (mean_h - last).abs() / var_h.sqrt()
        change = torch.where(_any_of_cluster(clusters, lost_h, lost_s), torch.ones_like(a), change)
        if k == passes - 1 or float(change.max()) <= CLOSE:
            break
        if k > 1:
            worst = torch.zeros_like(share).scatter_reduce(0, clusters.label, change, "amax")
            share = torch.where(worst > 0.9 * before, 0.7 * share, 1.1 * share).clamp(SLOWEST, FASTEST)
            before = worst
        last = mean_h
        new = Sites(*site(mean_h, var_h, a, b, SMALLEST), *site(mean_s, var_s, tau, eta, 0.0))
        sites = sites.towards(new, share[clusters.label] * ~lost_h, share[clusters.spot_label] * ~lost_s)
    constant = (
        float(log_s.sum()) + joint.log_normalizer
        - float(log_gauss(a + sites.alpha, b + sites.beta).sum())
        - float(log_gauss(tau + sites.tau, eta + sites.eta).sum())
    )  # fmt: skip
    return FixedPoint(sites, joint, a, b, constant, change)


def joint_of(clusters: Clusters, sites: Sites, K: torch.Tensor) -> Joint:
    """Moments of q."""
    return clusters.joint(sites.alpha, sites.beta, sites.tau, sites.eta, K)


def cavity(joint: Joint, sites: Sites):
    """a, b: what q says of each J without its own site."""
    a = (1 / joint.variance - sites.alpha).clamp(min=0)
    return a, joint.mean / joint.variance - sites.beta


def spot_cavity(joint: Joint, sites: Sites):
    """τ', η': what q says of each s without its own site."""
    return 1 / joint.s_variance - sites.tau, joint.s_mean / joint.s_variance - sites.eta


def _lost(ends: torch.Tensor, more: torch.Tensor | None) -> torch.Tensor:
    return torch.zeros_like(ends[0]) if more is None else (ends & more).any(0)


def _any_of_cluster(clusters: Clusters, core: torch.Tensor, spot: torch.Tensor) -> torch.Tensor:
    """(core,), whether anything is marked in the cluster of each."""
    marked = torch.zeros(clusters.n, dtype=torch.bool)
    marked[clusters.label[core]] = True
    marked[clusters.spot_label[spot]] = True
    return marked[clusters.label]


def tilted(log_mass, x, a, b):
    """log ∫, mean and variance of x under log_mass - a x²/2 + b x, (*batch,) each, and whether an end is reached."""
    w = log_mass + x * (b - 0.5 * a * x)
    log_Z = w.logsumexp(0)
    w = (w - log_Z).exp()
    mean = (w * x).sum(0)
    # Where a cavity has left the nodes, one node holds everything, for the moment.
    least = (NARROW * (x[-1] - x[0])) ** 2
    ends = torch.stack([w[:2].sum(0), w[-2:].sum(0)]) > LOST
    return log_Z, mean, torch.maximum((w * (x - mean) ** 2).sum(0), least), ends


def site(mean, variance, a, b, smallest):
    """The Gaussian that makes of a cavity these moments; where it would be too wide, at least its mean."""
    alpha = (1 / variance - a).clamp(min=smallest)
    return alpha, mean * (a + alpha) - b


def log_gauss(a, b):
    """log ∫ exp(-a x²/2 + b x) dx over the real line."""
    return 0.5 * (2 * torch.pi / a).log() + 0.5 * b**2 / a
