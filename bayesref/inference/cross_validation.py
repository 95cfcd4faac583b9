"""Cross-validation: halves of the images, spots held out, and each spot given the others.

    halves          F₁, F₂ from two random halves of the images of each file
    held out        I_pred = K E[F²] of spots that the fit did not see
    leave one out   z_i = Φ⁻¹(P(I ≤ I_i | other spots)),   p(F | other spots) ∝ p(F | all)/p(I_i | F)

Halves share the scale and the error model of all data, as careless has it, or are fitted each on its own, which also
shows what the halves have in common. An amplitude is one-dimensional, so that leaving a spot out is a division at
quadrature nodes: z is exact for every spot, and unit normal where the error model is right (Gelfand, Dey & Chang,
1992, Bayesian Statistics 4, 147). The scale itself is not fitted anew; no single spot matters to it.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from scipy.special import ndtr, ndtri, stdtr

from bayesref._checks import InputError
from bayesref.data.observations import Observations
from bayesref.guides.latents import AMPLITUDE, INTENSITY
from bayesref.inference.collapsed import Span, log_message, split
from bayesref.inference.laue import LaueCollapsed
from bayesref.inference.posterior import Amplitudes, Posterior
from bayesref.inference.tree import collapse

CHUNK = 4_000  # spots handled at a time: arrays (node, spot) of 2 MB
OUTLIER_FACTOR = 3.0  # an error with over this many times the usual sd is an outlier's
NODES = 48  # over all that the prior allows; five digits, also where one spot was nearly all that was known


@dataclass(frozen=True)
class Halves:
    """Amplitudes of both halves of one repeat; rows without a spot in a half have N = 0 there."""

    repeat: int
    first: Amplitudes
    second: Amplitudes


def half_datasets(
    posterior: Posterior,
    n_repeats: int,
    seed: int = 0,
    refit: Callable[[Observations], Posterior] | None = None,
) -> list[Halves]:
    """Merge random halves of the images of each file, `n_repeats` times.

    Parameters
    ----------
    posterior : of all spots
    seed : of the halves; repeats differ
    refit : fits one half anew; None = scales and error model of all spots

    Raises
    ------
    InputError : a file has spots on one image only, which cannot be halved
    """
    obs, g, result = posterior.obs, torch.Generator().manual_seed(seed), []
    for repeat in range(n_repeats):
        side = _sides(obs, g)
        first, second = (
            _half_amplitudes(posterior, obs.subset_images(side == k), refit, seed + 2 * repeat + k)
            for k in (0, 1)
        )
        # Fitted apart, the halves differ by the overall scale, which merged amplitudes do not have.
        result.append(Halves(repeat, first, second if refit is None else _on_scale_of(first, second)))
    return result


def _sides(obs: Observations, generator: torch.Generator) -> torch.Tensor:
    """0 or 1 for each image, half of the images of every file each, (image,)."""
    side = torch.zeros(obs.n_image, dtype=torch.int64)
    for f in obs.file_id.unique():
        images = obs.image_id[obs.file_id == f].unique()
        if len(images) < 2:
            name = obs.files[f] if obs.files else f"file {int(f)}"
            raise InputError(
                f"{name} has spots on one image only; half datasets are halves of the images, so leave them out "
                "or name the column of image numbers."
            )
        side[images[torch.randperm(len(images), generator=generator)]] = torch.arange(len(images)) % 2
    return side


def _half_amplitudes(posterior, half, refit, seed) -> Amplitudes:
    if refit is None:
        return posterior.amplitudes(half, seed=seed)
    with _priors_kept(posterior.args):
        return replace(refit(half), family=posterior.family).amplitudes(half, seed=seed)


@contextmanager
def _priors_kept(args) -> Iterator[None]:
    """Put the priors of scales back afterwards: a fit adapts them in place, and the first fit's must stay valid."""
    scales = [s for a in args for s in (a, *getattr(a, "terms", ())) if hasattr(s, "forget")]
    kept = [(s, copy.copy(s.groups)) for s in scales if not hasattr(s, "terms")]
    try:
        yield
    finally:
        for s, groups in kept:
            s.groups = groups
        for s in scales:
            s.forget()


def _on_scale_of(reference: Amplitudes, other: Amplitudes) -> Amplitudes:
    """`other` times the factor that makes the weighted rms amplitudes equal; neither half is taken as free of error."""
    both = (reference.N > 0) & (other.N > 0)
    weight = both / (reference.SIGF**2 + other.SIGF**2)
    k = ((weight * reference.F**2).sum() / (weight * other.F**2).sum()).sqrt()
    draws = None if other.draws is None else other.draws * k.float()
    SIGD = None if other.SIGD is None else other.SIGD * k
    related = None if other.related is None else other.related.scaled(k)
    return Amplitudes(
        other.F * k, other.SIGF * k, other.I * k**2, other.SIGI * k**2, other.N, draws, SIGD, other.gap, related
    )  # fmt: skip


def hold_out(obs: Observations, fraction: float, seed: int = 0) -> torch.Tensor:
    """Which spots to hold out, (spot,) bool: each with probability `fraction`, the same for the same seed.

    Raises
    ------
    InputError : `fraction` leaves none to fit, or none out
    """
    if not 0 < fraction < 1:
        raise InputError(f"The fraction to hold out is {fraction:g}; it must lie between 0 and 1.")
    g = torch.Generator().manual_seed(seed)
    return torch.rand(len(obs), generator=g) < fraction


@dataclass(frozen=True)
class Predictions:
    """What the posterior expects of each spot.

    Attributes
    ----------
    I, SIGI : (spot,) expected intensity K E[F²], given the spots that were fitted, and sd of a measurement about it:
        that of the error model, blanks apart, and that of the amplitude
    K : (spot,) scale
    precision : (spot,) λ, the weight of the spot in its amplitude, 1/I²
    blank : (spot,) probability that the spot is a blank, zero where the model knows none
    z : (spot,) unit normal where the model is right: the spot given all fitted spots but itself
    outlier : (spot,) probability that the spot is a blank, or that its error has over three times the usual sd
    """

    I: torch.Tensor
    SIGI: torch.Tensor
    K: torch.Tensor
    precision: torch.Tensor
    blank: torch.Tensor
    z: torch.Tensor
    outlier: torch.Tensor


@torch.no_grad()
def predict(posterior: Posterior, obs: Observations | None = None) -> Predictions:
    """Expected intensity of each spot of `obs` (default: those fitted), at the mean of the latents.

    Parameters
    ----------
    posterior : its own spots say what the amplitudes are
    obs : other spots of the same asu, or more; those that were fitted are recognised by file and row
    """
    fitted, obs = posterior.obs, posterior.obs if obs is None else obs
    seen = _is_among(obs, fitted)
    values = posterior.latents.unpack(posterior.mean)
    collapsed = collapse(posterior.model, fitted, posterior.args, posterior.latents)
    if isinstance(collapsed, LaueCollapsed):
        collapsed.find_spans(posterior.mean)
        fitted = replace(fitted, message=collapsed.bounded(posterior.mean))
    pieces, hkl, spot = [], 0, 0
    # Related reflections stay in one piece.
    for piece in getattr(collapsed, "cut", split)(obs, n=CHUNK):
        rows = slice(spot, spot + len(piece))
        known = fitted.slice_reflections(hkl, hkl + len(piece.asu))
        pieces.append(_predict_piece(collapsed, known, piece, seen[rows], values))
        hkl, spot = hkl + len(piece.asu), rows.stop
    return Predictions(*(torch.cat(x) for x in zip(*pieces, strict=True)))


def _is_among(obs, fitted):
    if obs is fitted:
        return torch.ones(len(obs), dtype=torch.bool)
    n = 1 + max(int(x.row.max()) if len(x) else 0 for x in (obs, fitted))
    return torch.isin(obs.file_id * n + obs.row, fitted.file_id * n + fitted.row)


def _predict_piece(collapsed, known, piece, seen, values):
    """The columns of `Predictions` for one piece, amplitudes given the spots `known`."""
    F, slope, span = _wide_nodes(collapsed, known, values)
    with torch.enable_grad():
        trace = collapsed.run(piece, values, F.requires_grad_())
        law = trace.nodes[INTENSITY]["fn"]
        log_p = law.log_prob(piece.I)
        (psi,) = torch.autograd.grad(log_p.sum(), law.loc, retain_graph=True)
    if int(seen.sum()) == len(known):
        density = _log_prior(collapsed, known, values, F, trace).index_add(1, piece.hkl_id, seen * log_p)
    else:
        density = collapsed.log_density(known, values, F)
    density = span.posterior(density, slope).log_weight[:, piece.hkl_id]
    given, others = density.exp(), (density - seen * log_p).softmax(0)
    complete = (density + ~seen * log_p).softmax(0)
    F2 = F[:, piece.hkl_id] ** 2
    m2 = (given * F2).sum(0)
    K = (given * law.loc).sum(0) / m2
    variance = (given * noise_variance(law)).sum(0) + K**2 * (given * (F2 - m2) ** 2).sum(0)
    r = piece.I - law.loc
    precision = (complete * psi * r).sum(0) / (complete * r**2).sum(0).clamp(min=1e-300)
    blank = torch.zeros_like(K)
    if hasattr(law, "components"):
        blank = (complete * (law.components(piece.I)[1] - log_p).exp()).sum(0)
    outlier = blank + (1 - blank) * wide_error(law, complete, r)
    return (
        K * m2,
        variance.sqrt(),
        K,
        precision.clamp(min=0),
        blank,
        unit_normal(law, others, piece.I),
        outlier,
    )


def _log_prior(collapsed, known, values, F, trace):
    """Of each amplitude, given the spots of others where these are related to it."""
    if hasattr(collapsed, "family"):
        return collapsed.family(known, values).log_prior(F)
    return trace.nodes[AMPLITUDE]["fn"].log_prob(F) + log_message(known, F)


def wide_error(law, weight, r):
    """P(τ < 1/9 | r), (spot,): Student's t is a normal of precision τ/scale², τ ~ Gamma(ν/2, ν/2).

    τ given the residual is Gamma((ν+1)/2, (ν + r²/scale²)/2); r²/scale² at its mean over the nodes, (node, spot).
    """
    if not hasattr(law, "df"):
        return torch.zeros_like(r[0])
    z2 = (weight * (r / law.scale) ** 2).sum(0)
    nu = law.df.expand_as(r)[0]
    return torch.special.gammainc((nu + 1) / 2, (nu + z2) / 2 / OUTLIER_FACTOR**2)


def _wide_nodes(collapsed, known, values):
    """Nodes over all that the prior allows, dense where the amplitudes are: room for them to move without a spot."""
    span = collapsed.find_span(known, values)
    lo, hi = collapsed.run(known, values).nodes[AMPLITUDE]["fn"].interval(30.0)
    span = Span(lo.minimum(span.lo), hi.maximum(span.hi), span.middle, span.width)
    return *span.nodes(NODES), span


def noise_variance(law):
    """Variance of a measurement about `loc`, blanks apart."""
    if not hasattr(law, "components"):
        return law.variance
    return law.scale**2 * torch.where(law.df > 2, law.df / (law.df - 2), torch.inf)


def unit_normal(law, weight, I):
    """Φ⁻¹ of the cdf of I under the mixture over nodes of laws, (spot,)."""
    try:
        below, above = _tails(law, weight, I)
    except NotImplementedError:  # torch has no cdf of this law: its first two moments must do
        mean = (weight * law.loc).sum(0)
        return (I - mean) / (weight * (noise_variance(law) + (law.loc - mean) ** 2)).sum(0).sqrt()
    # From the smaller tail, so that neither rounds to 1.
    sign = torch.where(below < above, 1.0, -1.0)
    return sign * torch.from_numpy(ndtri(torch.minimum(below, above).numpy()))


def _tails(law, weight, I):
    """P(I' < I) and P(I' > I) under the mixture, (spot,) each."""
    if not hasattr(law, "components"):
        below = (weight * law.cdf(I)).sum(0)
        return below, 1 - below
    # Student's cdf is dear; nodes that carry less than a millionth are left out, and the rest is renormalised.
    matters = weight > 1e-6
    weight = torch.where(matters, weight, 0.0)
    weight = weight / weight.sum(0)
    t = ((I - law.loc) / law.scale)[matters]
    tail = torch.from_numpy(stdtr(law.df.expand(law.loc.shape)[matters].numpy(), -t.abs().numpy()))
    blank = torch.from_numpy(ndtr((torch.stack([I, -I]) / law.blank_scale).numpy()))
    result = []
    for sign, missing in zip((1, -1), blank, strict=True):
        spot = torch.zeros_like(weight)
        spot[matters] = torch.where(sign * t < 0, tail, 1 - tail)
        result.append((1 - law.blank) * (weight * spot).sum(0) + law.blank * missing)
    return result
