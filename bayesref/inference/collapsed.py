"""The likelihood with the amplitudes integrated out.

    log p(I | θ) = Σ_h log ∫ p(F_h) Π_{i in h} p(I_i | F_h, θ) dF_h

Given θ the amplitudes are independent, so each integral is one-dimensional, whatever the error law: Gauss-Legendre
nodes over the span where the integrand matters (`exact`). Heavy tails make spans wide and peaks narrow, so that
the nodes are even in y, F = m + s sinh y, m and s the middle and half width of the peak. With q(F | θ) the exact
conditional, the ELBO of any q(θ) is E_q[log p(I | θ) + log p(θ) - log q(θ)]: the amplitudes add no Monte Carlo noise.

Far from the optimum the spans would have to move with θ. There a normal law with the precision of each spot held
fixed stands in (`surrogate`); its integral is the normaliser of an `AmplitudePosterior`:

    p(I_i | F) ≈ Normal(K_i F², 1/λ_i),    a = Σ λ K²,  b = Σ λ K I
    λ_i = E[ψ_i (I_i - K_i F²)] / E[(I_i - K_i F²)²],   ψ = ∂ log p(I | F)/∂(K F²),   over the exact p(F | I, θ)

For a normal law with known variance λ = 1/v and nothing is approximated; for Student's t, λ is that of the scale
mixture, and alternating the two is iteratively reweighted least squares.
"""

from dataclasses import dataclass, fields

import torch

from bayesref.distributions import (
    AmplitudePosterior,
    NodePosterior,
    ReferenceLaplace,
    ReferenceNormal,
    ReferenceStudentT,
    RiceWoolfson,
    bracket,
    nodes,
)
from bayesref.guides.amplitudes import natural_parameters
from bayesref.guides.latents import AMPLITUDE, INTENSITY, Latents, trace_model, unchecked
from bayesref.inference import distributed

DROP = 14.0  # log units below the mode where a span ends; what lies beyond is a millionth
PEAK = 2.0  # log units below the mode that make the peak: two standard deviations of a normal density
EXPECTING = (ReferenceLaplace, ReferenceNormal, ReferenceStudentT, RiceWoolfson)  # priors about an amplitude
CHUNK = 12_000  # spots handled at a time, so that (node, spot) arrays stay in the processor's cache


def split(obs, n=CHUNK):
    """Observations cut between reflections into pieces of about `n` spots."""
    ends = torch.searchsorted(obs.offsets, torch.arange(n, len(obs) + n, n)).clamp(max=len(obs.asu))
    # The last reflections may have no spot; they are not a piece of their own.
    ends = torch.where(obs.offsets[ends] == len(obs), len(obs.asu), ends)
    ends = torch.cat([ends, torch.tensor([len(obs.asu)])]).unique()
    starts = [0, *ends[:-1].tolist()]
    limits = [(i, j) for i, j in zip(starts, ends.tolist(), strict=True) if j > i]
    # Observations on disk make their pieces when they are asked for.
    return obs.pieces(limits) if hasattr(obs, "pieces") else [obs.slice_reflections(i, j) for i, j in limits]


@dataclass(frozen=True)
class Span:
    """Where the amplitudes of one piece lie, and the nodes that cover it.

    Attributes
    ----------
    lo, hi : (hkl,), limits of F
    middle, width : (hkl,), of the peak
    """

    lo: torch.Tensor
    hi: torch.Tensor
    middle: torch.Tensor
    width: torch.Tensor

    def limits(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Limits of y, (hkl,) each."""
        lo, hi = (torch.asinh((x - self.middle) / self.width) for x in (self.lo, self.hi))
        return lo, hi

    def nodes(self, n: int):
        """F at `n` nodes and log dF/dy there, (node, hkl) each."""
        y = nodes(*self.limits(), n)
        return self.F(y), (self.width * y.cosh()).log()

    def F(self, y):
        """F at y; at the lower limit rounding must not make it negative."""
        return (self.middle + self.width * y.sinh()).clamp(min=0)

    def posterior(self, log_density, log_slope) -> NodePosterior:
        """Of y, from the log density of F at `nodes` and what `nodes` returned beside them."""
        return NodePosterior(*self.limits(), log_density + log_slope)

    def scaled(self, r):
        """All of it times r (hkl,)."""
        return Span(self.lo * r, self.hi * r, self.middle * r, self.width * r)

    def where(self, keep, other):
        """This span where `keep` (hkl,) is true, `other` elsewhere."""
        mine, theirs = vars(self), vars(other)
        return Span(**{k: torch.where(keep, mine[k], theirs[k]) for k in mine})

    def widened(self):
        """Limits half as wide again on either side, to search from when the scale has moved."""
        room = 0.5 * (self.hi - self.lo)
        return (self.lo - room).clamp(min=0), self.hi + room


def log_message(obs, F):
    """Log of what else is known of the amplitudes F (node, hkl), -a F⁴/2 + b F²; zero where that is nothing."""
    return 0.0 if obs.message is None else F**2 * (obs.message[1] - 0.5 * obs.message[0] * F**2)


def _likelihood_share(prior, span):
    """How much of the curvature of log p(F | I) at its peak the prior does not give, from 0 to 1, (hkl,).

    Wilson's distribution is never narrow. One about an expected amplitude may hold F where it is, whatever K does.
    """
    if not isinstance(prior, EXPECTING):
        return 1.0
    h = span.width.minimum(0.5 * span.middle)
    below, here, above = prior.log_prob(span.middle + h * torch.tensor([[-1.0], [0.0], [1.0]], dtype=h.dtype))
    return (1 - (2 * here - below - above) * (span.width / h) ** 2).clamp(0, 1)


def find_span(log_density, lo, hi, passes=6) -> Span:
    """Span of a density within `lo`, `hi` (hkl,), by `bracket` at DROP and again at PEAK."""
    lo, hi = bracket(log_density, lo, hi, drop=DROP, points=17, passes=passes)
    left, right = bracket(log_density, lo, hi, drop=PEAK, points=17, passes=passes)
    return Span(lo, hi, 0.5 * (left + right), 0.25 * (right - left).clamp(min=1e-12))


@dataclass(frozen=True)
class Moments:
    """What an E-step leaves beside the span of each amplitude.

    Attributes
    ----------
    precision : (spot,), λ
    m2, m4 : (hkl,), E F² and E F⁴
    """

    precision: torch.Tensor
    m2: torch.Tensor
    m4: torch.Tensor


class Collapsed:
    """A model over one set of observations, its amplitudes integrated out.

    Parameters
    ----------
    model : Pyro model with sites "F" and "I"
    obs : Observations, the model's first argument
    args : its other arguments
    latents : Latents of the model
    """

    def __init__(self, model, obs, args, latents: Latents):
        self.model, self.args, self.latents = model, args, latents
        self.pieces = split(distributed.my_reflections(obs))
        self.spans: list[Span] = []
        self.K: list[torch.Tensor] = []  # of the spots of each piece, where the spans were found
        self.moments: list[Moments] = []
        self.more: tuple = ()  # further terms of log p(I | θ), functions of the values of the sites

    def at(self, z: torch.Tensor):
        """(2, hkl), the `message` of the observations at z, where reflections share spots; None where they do not."""
        return None

    def use(self, message) -> None:
        """Put what `at` returned in force."""

    def run(self, piece, values, F=None):
        """Trace of the model over a piece, at F (node, hkl) or at F = 1, where the expected intensity is K."""
        F = torch.ones(len(piece.asu), dtype=piece.I.dtype) if F is None else F
        return trace_model(self.model, (piece, *self.args), {**values, AMPLITUDE: F})

    def log_density(self, piece, values, F, trace=None):
        """log p(F) + Σ log p(I | F) of each reflection at F (node, hkl), same shape."""
        trace = trace or self.run(piece, values, F)
        spot = trace.nodes[INTENSITY]["fn"].log_prob(piece.I)
        total = torch.zeros_like(F).index_add(-1, piece.hkl_id, spot)
        return total + trace.nodes[AMPLITUDE]["fn"].log_prob(F) + log_message(piece, F)

    def find_span(self, piece, values, near: Span | None = None) -> Span:
        """Where the amplitudes of a piece lie; from `near`, a span at a similar scale, in fewer steps."""

        def log_density(F):
            return self.log_density(piece, values, F)

        if near is not None:
            lo, hi = near.widened()
            span = find_span(log_density, lo, hi, passes=2)
            inside = ((span.lo > lo) | (lo == 0)) & (span.hi < hi)
            if bool(inside.all()):
                return span
        lo, hi = self.run(piece, values).nodes[AMPLITUDE]["fn"].interval(3 * DROP)
        anew = find_span(log_density, lo, hi, passes=6)
        # Each reflection on its own, so that nothing depends on how reflections are cut into pieces.
        return anew if near is None else span.where(inside, anew)

    @torch.no_grad()
    def moved(self, n: int, values) -> Span:
        """The span of piece n where the scale has moved since it was found: F goes as K^-½, if its prior lets it."""
        piece, values = self.pieces[n], {k: v.detach() for k, v in values.items()}
        trace = self.run(piece, values)
        K = trace.nodes[INTENSITY]["fn"].loc
        share = _likelihood_share(trace.nodes[AMPLITUDE]["fn"], self.spans[n])
        weight = (K / piece.SIGI) ** 2
        total, change = torch.zeros(2, len(piece.asu), dtype=K.dtype).unbind(0)
        total = total.index_add(0, piece.hkl_id, weight).clamp(min=1e-300)
        change = change.index_add(0, piece.hkl_id, weight * (K / self.K[n]).log()) / total
        return self.spans[n].scaled((-0.5 * share * change).exp())

    @torch.no_grad()
    def find_spans(self, z: torch.Tensor, warm: bool = False) -> None:
        """Where the amplitudes lie at z, for every piece."""
        values = self.latents.unpack(z)
        cold: list[Span | None] = [None] * len(self.pieces)
        near = [self.moved(n, values) for n in range(len(self.pieces))] if warm and self.spans else cold
        self.spans = [self.find_span(p, values, s) for p, s in zip(self.pieces, near, strict=True)]
        self.K = [self.run(p, values).nodes[INTENSITY]["fn"].loc for p in self.pieces]

    @torch.no_grad()
    def refresh(self, z: torch.Tensor, n_node: int = 20, warm: bool = False) -> float:
        """E-step at z: new spans, moments and precisions. Returns log p(I | θ).

        `warm` starts from the last spans: faster, and safe where the scale has moved by less than a span.
        """
        self.find_spans(z, warm)
        values = self.latents.unpack(z)
        steps = [self._e_step(p, s, values, n_node) for p, s in zip(self.pieces, self.spans, strict=True)]
        self.moments = [m for _, m in steps]
        return distributed.total(float(sum(value for value, _ in steps)))

    def state(self) -> dict[str, torch.Tensor]:
        """What the last E-step left, in the order of the observations: all that a step from here depends on."""
        parts = [
            (vars(s) | {"K": K} | vars(m)) for s, K, m in zip(self.spans, self.K, self.moments, strict=True)
        ]
        return {k: distributed.joined(torch.cat([p[k] for p in parts])) for k in (parts[0] if parts else ())}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Put a `state` back, from however many processes it came."""
        if not state:
            return
        n_hkl, n_spot = [len(p.asu) for p in self.pieces], [len(p) for p in self.pieces]

        def cut(k):
            sizes = n_spot if k in ("K", "precision") else n_hkl
            return distributed.my_part(state[k], sum(sizes)).split(sizes)

        spans, moments = ([cut(f.name) for f in fields(kind)] for kind in (Span, Moments))
        self.spans = [Span(*x) for x in zip(*spans, strict=True)]
        self.moments = [Moments(*x) for x in zip(*moments, strict=True)]
        self.K = list(cut("K"))

    def _e_step(self, piece, span, values, n_node):
        F, slope = span.nodes(n_node)
        with torch.enable_grad():
            trace = self.run(piece, values, F.requires_grad_())
            law = trace.nodes[INTENSITY]["fn"]
            (psi,) = torch.autograd.grad(law.log_prob(piece.I).sum(), law.loc, retain_graph=True)
        p = span.posterior(self.log_density(piece, values, F, trace), slope)
        weight, r = p.weight[:, piece.hkl_id], piece.I - law.loc
        precision = (weight * psi * r).sum(0) / (weight * r**2).sum(0).clamp(min=1e-300)
        moments = Moments(precision.clamp(min=0), p.expectation(F**2), p.expectation(F**4))
        return float(p.log_normalizer.sum()), moments

    def exact(self, z: torch.Tensor, fixed=None, n_node: int = 20) -> tuple[float, torch.Tensor]:
        """log p(I, z) with its gradient, (latent,), by nodes over the spans of the last E-step.

        `fixed` gives the values of sites whose gradient is not wanted (and comes back zero).
        """
        return self._sum(
            z,
            lambda piece, n, values: self._exact_piece(piece, self.moved(n, values), values, n_node),
            fixed,
            self.more,
        )

    @torch.no_grad()
    def value(self, z: torch.Tensor, n_node: int = 20) -> float:
        """log p(I, z) as `exact` has it, without the gradient."""
        values, total = self.latents.unpack(z), 0.0
        for n, piece in enumerate(self.pieces):
            log_Z, trace = self._exact_piece(piece, self.moved(n, values), values, n_node)
            total += log_Z.item()
            priors = {k: trace.nodes[k]["fn"] for k in values}
        return distributed.total(total) + self.latents.log_prior(z, values, priors).item()

    def _exact_piece(self, piece, span, values, n_node):
        F, slope = span.nodes(n_node)
        trace = self.run(piece, values, F)
        return span.posterior(self.log_density(piece, values, F, trace), slope).log_normalizer.sum(), trace

    def surrogate(self, z: torch.Tensor) -> tuple[float, torch.Tensor]:
        """log p(I, z) with the precisions of the last E-step held fixed, and its gradient, (latent,)."""
        return self._sum(z, self._surrogate_piece)

    def _surrogate_piece(self, piece, n, values):
        trace = self.run(piece, values)
        K = trace.nodes[INTENSITY]["fn"].loc
        a, b = natural_parameters(piece, K, self.moments[n].precision)
        prior = trace.nodes[AMPLITUDE]["fn"]
        return AmplitudePosterior(prior, a, b, n_node=32, validate_args=False).log_normalizer.sum(), trace

    def _sum(self, z, piece_value, fixed=None, more=()):
        """Σ over pieces + log p(z), and its gradient in z; each piece's graph is freed before the next.

        `more` are further terms, functions of the values of the sites.
        """
        z = z.detach().requires_grad_()
        values = self.latents.unpack(z)
        leaves = {k: v.detach().requires_grad_() for k, v in values.items() if k not in (fixed or {})}
        total, grads = 0.0, [torch.zeros_like(v) for v in leaves.values()]
        for n, piece in enumerate(self.pieces):
            value, trace = piece_value(piece, n, {**leaves, **(fixed or {})})
            got = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
            grads = [a if g is None else a + g for a, g in zip(grads, got, strict=True)]
            total += value.item()
            if n == 0:
                priors = {k: trace.nodes[k]["fn"] for k in values}
        for term in more:
            value = term({**leaves, **(fixed or {})})
            got = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
            grads = [a if g is None else a + g for a, g in zip(grads, got, strict=True)]
            total += value.item()
        total, *grads = _summed(total, grads)
        with unchecked():  # a step that went too far has a value that is not finite, and is taken back
            log_prior = self.latents.log_prior(z, values, priors)
        likelihood = sum((g * values[k]).sum() for k, g in zip(leaves, grads, strict=True))
        (grad,) = torch.autograd.grad(log_prior + likelihood, z)
        for k in fixed or {}:
            grad[self.latents.sites[k].where] = 0
        return total + log_prior.item(), grad


def _summed(value: float, grads: list[torch.Tensor]) -> list:
    """Value and gradients, summed over the processes at one go."""
    if distributed.size() == 1:
        return [value, *grads]
    flat = torch.cat([torch.tensor([value], dtype=torch.float64), *(g.reshape(-1) for g in grads)])
    first, *parts = distributed.total(flat).split([1, *(g.numel() for g in grads)])
    return [first.item(), *(p.reshape(g.shape) for p, g in zip(parts, grads, strict=True))]
