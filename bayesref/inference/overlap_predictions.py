"""What the posterior expects of overlapped Laue spots: the sum, each order's part of it, and each spot given others.

    Ipred_i = Σ_k K_ik E J_k,     SIGIpred² = noise + Var s_i          J = F², s_i: the sum, given the fitted spots
    z_i = Φ⁻¹(P(I ≤ I_i | others)),     P = ∫ p(s | others) P(I ≤ I_i | s) ds

q(J) of `inference.laue` gives mean and variance of s_i. A Gaussian fitted to what a spot said cannot forget it, if
little else is known of its orders; so for z a fitted spot is left out in earnest: overlapped spots in five parts,
the messages of `inference.laue` once for each part without it. p(s | others) is Gamma's law with the mean and variance
of s: never negative, exact for one acentric order that nothing is known of, and nearly normal where much is.
"""

from dataclasses import dataclass, replace

import torch

from bayesref._checks import InputError
from bayesref.data.observations import Observations
from bayesref.inference.collapsed import find_span
from bayesref.inference.cross_validation import NODES, noise_variance, unit_normal, wide_error
from bayesref.inference.laue import OVERLAP, LaueCollapsed
from bayesref.inference.overlap_clusters import Clusters
from bayesref.inference.posterior import Posterior
from bayesref.inference.propagation import Sites
from bayesref.inference.tree import collapse

PARTS = 5


@dataclass(frozen=True)
class OverlapPredictions:
    """What the posterior expects of each overlapped spot.

    Attributes
    ----------
    I, SIGI : (spot,) expected intensity given the fitted spots, and sd of a measurement about it
    z : (spot,) unit normal where the model is right: given the spots of one order, and four fifths of the overlapped
    outlier : (spot,) probability that the spot is a blank, or that its error has over three times the usual sd
    K : (order,) scale
    order_I, order_SIGI : (order,) part of each order, K E J, and its sd
    """

    I: torch.Tensor
    SIGI: torch.Tensor
    z: torch.Tensor
    outlier: torch.Tensor
    K: torch.Tensor
    order_I: torch.Tensor
    order_SIGI: torch.Tensor


def hold_out_overlaps(obs: Observations, fraction: float, seed: int = 0) -> torch.Tensor:
    """Which overlapped spots to hold out, (spot,) bool, as `hold_out` does with spots of one order.

    Raises
    ------
    InputError : all of them
    """
    # Numbers of its own, so that neither kind of spots depends on how many there are of the other.
    g = torch.Generator().manual_seed(seed + 1)
    held = torch.rand(len(obs.overlaps or ()), generator=g) < fraction
    if len(held) and bool(held.all()):
        raise InputError(f"All {len(held)} overlapped spots would be held out; hold out a smaller fraction.")
    return held


def without(obs: Observations, spots: torch.Tensor) -> Observations:
    """Observations without these overlapped spots, (spot,) bool."""
    keep, all_ = ~spots, obs.overlaps
    kept = all_.select(keep[all_.spot]) if all_ is not None and bool(keep.any()) else None
    return replace(obs, overlaps=kept)


@torch.no_grad()
def predict_overlaps(posterior: Posterior, obs: Observations, held: torch.Tensor) -> OverlapPredictions:
    """Expected intensity of each overlapped spot of `obs`, at the mean of the latents.

    Parameters
    ----------
    posterior : of `obs` without the spots held out
    obs : all observations, with overlaps
    held : (spot,) bool of `obs.overlaps`, spots that the fit did not see

    Raises
    ------
    InputError : there are none
    """
    values, overlaps = posterior.latents.unpack(posterior.mean), obs.overlaps
    if overlaps is None:
        raise InputError(
            "There are no overlapped spots to predict; give observations read with a wavelength range."
        )
    every = LaueCollapsed(posterior.model, obs, posterior.args, posterior.latents, tied=False)
    K = every._order_K(values)
    clusters = Clusters(overlaps.orders.hkl_id, overlaps.spot)

    def told(seen):
        sites = _sites(
            posterior, replace(posterior.obs, overlaps=without(obs, ~seen).overlaps), clusters, seen
        )
        return clusters.joint(sites.alpha, sites.beta, sites.tau, sites.eta, K)

    joint = told(~held)
    mean, variance = overlaps.total(K * joint.mean[clusters.row]), joint.s_variance.clone()
    others = torch.stack([mean, variance])
    part = torch.arange(len(held)) % PARTS
    for k in part[~held].unique().tolist():
        mine = ~held & (part == k)
        less = told(~held & ~mine)
        others = torch.where(mine, torch.stack([less.s_mean, less.s_variance]), others)
    s, log_weight = _nodes(*others)
    law = every._overlap(values, s).nodes[OVERLAP]["fn"]
    log_p = law.log_prob(overlaps.I)
    given, complete = log_weight.exp(), (log_weight + log_p).softmax(0)
    noise = (torch.where(held, given, complete) * noise_variance(law)).sum(0)
    blank = torch.zeros_like(mean)
    if hasattr(law, "components"):
        blank = (complete * (law.components(overlaps.I)[1] - log_p).exp()).sum(0)
    return OverlapPredictions(
        mean, (noise + variance).sqrt(), unit_normal(law, given, overlaps.I),
        blank + (1 - blank) * wide_error(law, complete, overlaps.I - law.loc),
        K, K * joint.mean[clusters.row], K * joint.variance[clusters.row].sqrt(),
    )  # fmt: skip


def _sites(posterior: Posterior, obs: Observations, clusters: Clusters, seen: torch.Tensor) -> Sites:
    """Of the amplitudes and sums of `clusters` given `obs`; spots that are not `seen` say nothing.

    An amplitude that no overlapped spot of `obs` holds has the mean and variance that its own spots and its prior give.
    """
    known = collapse(posterior.model, obs, posterior.args, posterior.latents)
    known.refresh(posterior.mean)
    m2, m4 = (torch.cat([getattr(m, k) for m in known.moments]) for k in ("m2", "m4"))
    variance = (m4 - m2**2).clamp(min=1e-12)
    alpha, beta = 1 / variance, m2 / variance
    tau, eta = torch.zeros(2, len(seen), dtype=alpha.dtype).unbind(0)
    if isinstance(known, LaueCollapsed):
        core, mine = known.clusters.core, known.sites
        alpha, beta = alpha.index_copy(0, core, mine.alpha), beta.index_copy(0, core, mine.beta)
        tau, eta = tau.masked_scatter(seen, mine.tau), eta.masked_scatter(seen, mine.eta)
    return Sites(alpha[clusters.core], beta[clusters.core], tau, eta)


def _nodes(mean, variance):
    """Nodes of Gamma's law with these moments (node, spot), and the logs of their weights."""
    mean = mean.clamp(min=1e-6 * variance.sqrt())
    shape = (mean**2 / variance).clamp(min=1.0)  # below one, the density would have no bound at zero
    top = mean + 40 * (mean / shape).maximum(mean / shape.sqrt())

    def log_density(s):
        return (shape - 1) * s.clamp(min=1e-300).log() - shape * s / mean

    span = find_span(log_density, torch.zeros_like(top), top)
    s, slope = span.nodes(NODES)
    return s, span.posterior(log_density(s), slope).log_weight
