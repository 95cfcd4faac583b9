"""What a fit leaves: a Gaussian posterior of the latents, and from it the posterior of every amplitude.

    z ~ Normal(m, C),     p(F | I) = E_z p(F | I, z)
    E F = mean_s E_s F,   Var F = mean_s Var_s F + var_s E_s F            s: draws of z

Merged amplitudes have no overall scale of their own: draws are brought to one scale before their variance is
taken, so that SIGF holds the errors of the scale that depend on the reflection, and not the one that does not.
"""

from dataclasses import dataclass, field, replace

import torch

from bayesref.data.observations import Observations
from bayesref.distributions.families import fit_family
from bayesref.guides.latents import Latents
from bayesref.inference import distributed
from bayesref.inference.arrow import ArrowRoot
from bayesref.inference.tree import FamilyMoments, collapse


@dataclass(frozen=True)
class Amplitudes:
    """Posterior of amplitudes, on the scale where ⟨F²⟩ = ε.

    Attributes
    ----------
    F, SIGF : (hkl,) mean and standard deviation of F
    I, SIGI : (hkl,) mean and standard deviation of F²
    N : (hkl,) int64, number of spots
    draws : (draw, hkl) float32 draws of F, or None
    SIGD : (hkl,) standard deviation of F(+) - F(-) in rows of (+) mates, else NaN; None without Friedel mates apart
    gap : (hkl,) log units of ELBO that the parametric family of the posterior loses; None where it is exact
    related : covariances of related amplitudes; None where none are
    """

    F: torch.Tensor
    SIGF: torch.Tensor
    I: torch.Tensor
    SIGI: torch.Tensor
    N: torch.Tensor
    draws: torch.Tensor | None = None
    SIGD: torch.Tensor | None = None
    gap: torch.Tensor | None = None
    related: FamilyMoments | None = None


@dataclass(frozen=True, eq=False)
class Posterior:
    """Result of `fit`.

    Attributes
    ----------
    model, obs, args : what was fitted
    latents : Latents, the meaning of z
    mean : (latent,) m
    root : (latent, latent), C = root rootᵀ; an `ArrowRoot` where there are very many images
    log_joint : log p(I, m)
    elbo : E_q[log p(I, z) - log q(z)], from the draws that `elbo_error` belongs to
    history : one dict per step: step, phase, elbo, seconds, evaluations
    reason : why the fit stopped
    converged : whether it stopped because nothing more was to be gained
    family : law of the amplitudes that `amplitudes` reports, "exact" or one of `distributions.families`
    """

    model: object
    obs: Observations
    args: tuple
    latents: Latents
    mean: torch.Tensor
    root: torch.Tensor | ArrowRoot
    log_joint: float
    elbo: float = float("nan")
    elbo_error: float = float("nan")
    history: list = field(default_factory=list)
    reason: str = ""
    converged: bool = True
    family: str = "exact"

    def draw(self, n: int, seed: int = 0) -> torch.Tensor:
        """Draws of z, (draw, latent)."""
        g = torch.Generator().manual_seed(seed)
        return (
            self.mean + (self.root @ torch.randn(n, len(self.mean), generator=g, dtype=self.mean.dtype).T).T
        )

    def sites(self, n: int = 200, seed: int = 0) -> dict[str, torch.Tensor]:
        """Draws of each latent site in its own units, {name: (draw, ...)}."""
        draws = [self.latents.unpack(z) for z in self.draw(n, seed)]
        return {k: torch.stack([d[k] for d in draws]) for k in self.latents.sites}

    def linearized(self) -> "Posterior":
        """The same posterior of a model whose scales are linear about m, for which a Gaussian is meant."""
        values = self.latents.unpack(self.mean)
        args = tuple(a.linearized(values[a.site]) if hasattr(a, "linearized") else a for a in self.args)
        return replace(self, args=args)

    @torch.no_grad()
    def amplitudes(self, obs=None, n_draws=16, n_samples=0, n_node=24, seed=0) -> Amplitudes:
        """Posterior of the amplitudes given these observations (default: those fitted).

        Parameters
        ----------
        obs : Observations with the same asu, or any that the scale understands
        n_draws : draws of z; 1 = only its mean, no uncertainty of the scale
        n_samples : draws of F to keep, spread over the draws of z
        """
        obs = self.obs if obs is None else obs
        me = self.linearized()
        zs = self.draw(n_draws, seed) if n_draws > 1 else self.mean[None]
        collapsed = collapse(me.model, obs, me.args, me.latents)
        g = torch.Generator().manual_seed(seed + 1)
        u = torch.rand(len(zs), -(-n_samples // len(zs)), len(obs.asu), generator=g)
        u = distributed.my_part(u, sum(len(p.asu) for p in collapsed.pieces), dim=-1)
        us = u.split([len(p.asu) for p in collapsed.pieces], -1)
        collapsed.find_spans(self.mean)
        messages = [collapsed.at(z) for z in zs]
        columns = [
            _piece_moments(collapsed, n, zs, messages, n_node, us[n], self.family)
            for n in range(len(collapsed.pieces))
        ]
        # Each process has integrated reflections of its own.
        EF, VF, EI, VI, samples, gap = (
            distributed.joined(torch.cat(c, -1), -1) for c in zip(*columns, strict=True)
        )
        factor = _common_scale(EF, VF, obs.counts() > 0)
        EF, VF, EI, VI = EF * factor, VF * factor**2, EI * factor**2, VI * factor**4
        draws = None
        if n_samples:
            draws = (samples * factor.to(samples)[:, None]).flatten(0, 1)[:n_samples]
        between = (lambda x: x.var(0)) if len(zs) > 1 else (lambda x: 0.0)
        related = collapsed.related(EF, factor) if hasattr(collapsed, "related") else None
        lost = None if self.family == "exact" else gap.mean(0)
        return Amplitudes(
            EF.mean(0), (VF.mean(0) + between(EF)).sqrt(), EI.mean(0), (VI.mean(0) + between(EI)).sqrt(),
            obs.counts(), draws, _difference_sd(obs.asu, EF, VF, related), lost, related,
        )  # fmt: skip


def _piece_moments(collapsed, n, zs, messages, n_node, us, family="exact"):
    """E F, Var F, E F², Var F² of each draw of z, (draw, hkl), samples (draw, sample, hkl) in float32, and the gap.

    us : uniform numbers for the samples, (draw, sample, hkl)
    """
    piece, rows = collapsed.pieces[n], []
    for z, message, u in zip(zs, messages, us, strict=True):
        collapsed.use(message)
        values = collapsed.latents.unpack(z)
        span = collapsed.moved(n, values)
        # Spots of one reflection move by different amounts; there must be room for that.
        span = replace(span, lo=(span.lo - 2 * span.width).clamp(min=0), hi=span.hi + 2 * span.width)
        F, slope = span.nodes(n_node)
        p = span.posterior(collapsed.log_density(piece, values, F), slope)
        p, gap = (p, torch.zeros_like(span.lo)) if family == "exact" else _closest(family, p, span, F, slope)
        samples = F.new_zeros(0, len(span.lo))
        if len(u):
            joint = hasattr(collapsed, "samples")
            samples = collapsed.samples(piece, values, u) if joint else span.F(p.icdf(u.to(F)))
        moments = (p.expectation(F), p.central(F), p.expectation(F**2), p.central(F**2))
        rows.append((*moments, samples.float(), gap))
    return tuple(torch.stack(x) for x in zip(*rows, strict=True))


def _closest(family, p, span, F, slope):
    """The member of a parametric family closest to p, on the same nodes, and KL(q ‖ p)."""
    measure = p.log_weight + p.log_normalizer - p.log_density + slope  # dF of each node
    q = fit_family(family, F, p.log_weight, measure)
    return span.posterior(q.log_kernel, slope), q.gap


def _difference_sd(asu, EF, VF, related=None):
    """sd of F(+) - F(-): mates share the errors of the scale, which their own SIGF hold and a difference does not."""
    if not asu.anomalous:
        return None
    mates = asu.friedel_mates()
    plus = (mates >= 0).nonzero()[:, 0]
    minus = mates[plus]
    D, V = EF[:, plus] - EF[:, minus], VF[:, plus] + VF[:, minus]
    variance = V.mean(0) + (D.var(0) if len(D) > 1 else 0.0)
    if related is not None:
        sums = VF.mean(0) + (EF.var(0) if len(EF) > 1 else 0.0)
        variance = sums[plus] + sums[minus] - 2 * related.between(plus, minus)
    return torch.full_like(EF[0], torch.nan).index_copy(0, plus, variance.clamp(min=0).sqrt())


def _common_scale(EF, VF, measured):
    """Factor that brings each draw's amplitudes to the scale of their mean, (draw, 1)."""
    target = EF.mean(0)
    weight = measured / VF.mean(0).clamp(min=1e-300)
    return ((weight * target * EF).sum(1) / (weight * EF**2).sum(1).clamp(min=1e-300))[:, None]
