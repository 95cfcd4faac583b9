"""The likelihood with related amplitudes integrated out: datasets that a model ties by a `WilsonTree`.

    log p(I | θ) = Σ_families log ∫ p(F_1, F_2, ... | r) Π_rows Π_{i in row} p(I_i | F_row, θ) dF_1 dF_2 ...

Messages between the nodes of neighbours make the integral exact (`distributions.wilson_tree`). At first the datasets
are taken as independent, which costs less and brings the scale near; `tie` then makes the objective that of the tree.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch

from bayesref.distributions import legendre
from bayesref.distributions.wilson_tree import WilsonTree, family_ends
from bayesref.distributions.wilson_tree_nodes import TreePosterior, log_evidence, solve
from bayesref.guides.latents import AMPLITUDE, INTENSITY
from bayesref.inference import distributed
from bayesref.inference.collapsed import CHUNK, DROP, PEAK, Collapsed, Moments, Span, log_message
from bayesref.inference.laue import LaueCollapsed
from bayesref.inference.tree_curvature import family_number, tree_information

SEARCH = 32  # nodes with which spans are narrowed
CORE = 3.0  # widths on either side of the peak, between which nodes must resolve what ties relatives
MARGIN = 4.0  # log units of room for the scale to move before spans are found anew


@dataclass(frozen=True)
class FamilyMoments:
    """Covariances of related amplitudes, on the scale of `Amplitudes`.

    Attributes
    ----------
    first : (hkl,) int64, first row of the family
    covariance : (hkl, member), of row h with row first + member of the same family, up to itself; zero beyond
    """

    first: torch.Tensor
    covariance: torch.Tensor

    def between(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Covariance of rows a and b, one family each, (pair,)."""
        return self.covariance[torch.maximum(a, b), torch.minimum(a, b) - self.first[a]]

    def scaled(self, k) -> "FamilyMoments":
        """Of amplitudes times k."""
        return FamilyMoments(self.first, self.covariance * k**2)


def split_families(obs, parent: torch.Tensor, n: int = CHUNK, shared: bool = False) -> list:
    """Observations cut between families into pieces of about `n` spots; with `shared` those of this process."""
    ends = family_ends(parent)
    spots = obs.offsets[ends]

    def cuts(targets):
        return ends[torch.searchsorted(spots, targets).clamp(max=len(ends) - 1)].tolist()

    size, rank = (distributed.size(), distributed.rank()) if shared else (1, 0)
    mine = [0, *cuts(torch.arange(1, size) * len(obs) // size), len(obs.asu)]
    start, stop = mine[rank], mine[rank + 1]
    low, high = int(obs.offsets[start]), int(obs.offsets[stop])
    inner = [i for i in cuts(torch.arange(low + n, max(high, low + n), n)) if start < i < stop]
    return [obs.slice_reflections(i, j) for i, j in pairwise(sorted({start, *inner, stop}))]


class TreeCollapsed(Collapsed):
    """As `Collapsed`, for a model whose site "F" is a `WilsonTree`.

    Parameters
    ----------
    tied : False = datasets independent until `tie`
    """

    def __init__(self, model, obs, args, latents, tied: bool = True):
        super().__init__(model, obs, args, latents)
        self.tied = False
        parent = self._parent(obs)
        self.pieces = split_families(obs, parent, shared=True)
        ends = family_ends(parent)
        self.first, self.most = ends[family_number(parent)], int(ends.diff().max())
        self._kept: tuple | None = None
        self._last: tuple | None = None
        self.covariances: dict[int, list[torch.Tensor]] = {}
        if tied:
            self.tie()

    def cut(self, obs, n: int = CHUNK) -> list:
        """Pieces of some observations, families whole."""
        return split_families(obs, self._parent(obs), n)

    @torch.no_grad()
    def _parent(self, obs):
        return self.run(obs, self.latents.unpack(self.latents.start())).tree.parent

    def tie(self) -> None:
        """From now on the likelihood is that of the tree, and so is the curvature."""
        self.tied = True
        self.gauss_newton = partial(tree_information, self)

    @contextmanager
    def _apart(self):
        tied, self.tied = self.tied, False
        try:
            yield
        finally:
            self.tied = tied

    def run(self, piece, values, F=None):
        """As in `Collapsed`; the trace has the prior of each row on its own at "F", and all of it as `tree`."""
        trace = super().run(piece, values, F)
        trace.tree = trace.nodes[AMPLITUDE]["fn"]
        trace.nodes[AMPLITUDE]["fn"] = trace.tree.marginal
        return trace

    def log_likelihood(self, piece, F, trace):
        """Σ log p(I | F) of each row at F (node, hkl), same shape."""
        spot = trace.nodes[INTENSITY]["fn"].log_prob(piece.I)
        return torch.zeros_like(F).index_add(-1, piece.hkl_id, spot) + log_message(piece, F)

    def log_density(self, piece, values, F, trace=None):
        """log p(F, all spots of the family | θ) of each row at F (node, hkl), up to a constant; same shape."""
        if not self.tied:
            return super().log_density(piece, values, F, trace)
        trace = trace or self.run(piece, values, F)
        return self.log_likelihood(piece, F, trace) + self.family(piece, values).log_prior(F)

    @torch.no_grad()
    def family(self, piece, values, n_node: int = 24) -> TreePosterior:
        """Messages of a piece at these values of the sites; kept until others are asked for."""
        return self._solved(piece, values, n_node)[0]

    def _solved(self, piece, values, n_node=24):
        """The messages, and what they came from: the tree, log L and the span."""
        kept = self._kept
        if kept is None or kept[0] is not piece or kept[1] is not values:
            number = next((n for n, p in enumerate(self.pieces) if p is piece), None)
            if number is not None and number < len(self.spans):
                span = self.moved(number, values)
            else:
                span = self._found(piece, values)
            F, _ = span.nodes(n_node)
            trace = self.run(piece, values, F)
            log_L = self.log_likelihood(piece, F, trace)
            posterior = solve(trace.tree, log_L, SpanNodes(span), 2)
            if number is not None:
                self.covariances.setdefault(number, []).append(posterior.covariance)
            self._kept = kept = (piece, values, (posterior, trace.tree, log_L, span))
        return kept[2]

    @torch.no_grad()
    def samples(self, piece, values, u) -> torch.Tensor:
        """Joint draws of the amplitudes of a piece from uniform numbers u (sample, hkl), same shape."""
        posterior, tree, log_L, span = self._solved(piece, values)
        lo, hi = span.limits()

        def at(y, rows):
            y = lo[rows] + 0.5 * (hi - lo)[rows] * (y + 1)
            return (span.middle[rows] + span.width[rows] * y.sinh()).clamp(min=1e-150)

        return posterior.sample(tree, log_L, SpanNodes(span), at, u)

    def related(self, EF, factor) -> FamilyMoments:
        """Covariances after the moments of every piece have been taken at several draws of z.

        Parameters
        ----------
        EF : (draw, hkl), means, on the common scale
        factor : (draw, 1) that brought them there
        """
        pieces = [torch.stack(self.covariances[n]) for n in range(len(self.pieces))]
        within = torch.cat([_padded(c, self.most) for c in pieces], 1)
        within = (distributed.joined(within, 1) * factor[..., None] ** 2).mean(0)
        member = torch.arange(len(self.first)) - self.first
        between = torch.zeros_like(within)
        if len(EF) > 1:
            centred = EF - EF.mean(0)
            for m in range(self.most):
                other = (self.first + m).clamp(max=len(self.first) - 1)
                between[:, m] = (centred * centred[:, other]).sum(0) / (len(EF) - 1)
        own = torch.arange(self.most) <= member[:, None]
        return FamilyMoments(self.first, torch.where(own, within + between, 0.0))

    def find_spans(self, z, warm=False):
        self._kept, self.covariances = None, {}
        super().find_spans(z, warm)

    def find_span(self, piece, values, near=None):
        """Where the amplitudes of a piece lie given all of their families."""
        with self._apart():
            own = super().find_span(piece, values, None if self.tied else near)
        span = self._narrowed(piece, own, values) if self.tied else own
        self._last = (piece, values, span)
        return span

    def _found(self, piece, values):
        """`find_span`, or what it returned last."""
        last = self._last
        return last[2] if last and last[0] is piece and last[1] is values else self.find_span(piece, values)

    @torch.no_grad()
    def _narrowed(self, piece, own, values, passes: int = 3):
        """From spans of single rows to those of the rows within their families.

        First as wide as the span of the whole family, since relatives may contradict a row's own spots.
        """
        parent = self.run(piece, values).tree.parent
        family = family_number(parent)
        n = int(family[-1]) + 1
        lo = own.lo.new_full((n,), torch.inf).scatter_reduce(0, family, own.lo, "amin")[family]
        hi = own.hi.new_zeros(n).scatter_reduce(0, family, own.hi, "amax")[family]
        span = Span(0.5 * lo, hi, own.middle, own.width)
        for _ in range(passes):
            F, _ = span.nodes(SEARCH)
            trace = self.run(piece, values, F)
            log_L = self.log_likelihood(piece, F, trace)
            log_p = log_L + solve(trace.tree, log_L, SpanNodes(span), 1).log_prior(F)
            span = _span_of(F, log_p, span)
        return span

    def surrogate(self, z):
        """As in `Collapsed`; once tied, the exact value, for which there is no normal stand-in."""
        return self.exact(z) if self.tied else super().surrogate(z)

    def _exact_piece(self, piece, span, values, n_node):
        if not self.tied:
            return super()._exact_piece(piece, span, values, n_node)
        F, _ = span.nodes(n_node)
        trace = self.run(piece, values, F)
        return log_evidence(trace.tree, self.log_likelihood(piece, F, trace), SpanNodes(span)), trace

    def _e_step(self, piece, span, values, n_node):
        if not self.tied:
            return super()._e_step(piece, span, values, n_node)
        F, _ = span.nodes(n_node)
        with torch.enable_grad():
            trace = self.run(piece, values, F.requires_grad_())
            law = trace.nodes[INTENSITY]["fn"]
            log_L = self.log_likelihood(piece, F, trace)
            (psi,) = torch.autograd.grad(law.log_prob(piece.I).sum(), law.loc, retain_graph=True)
        posterior = solve(trace.tree, log_L.detach(), SpanNodes(span), 1)
        W = posterior.weight
        weight, r = W[:, piece.hkl_id], piece.I - law.loc
        precision = (weight * psi * r).sum(0) / (weight * r**2).sum(0).clamp(min=1e-300)
        moments = Moments(
            precision.clamp(min=0).detach(), (W * F**2).sum(0).detach(), (W * F**4).sum(0).detach()
        )
        return posterior.log_Z, moments


def _padded(x, n):
    return torch.nn.functional.pad(x, (0, n - x.shape[-1]))


@dataclass(frozen=True)
class SpanNodes:
    """Nodes and log quadrature weights of a span, as `wilson_tree_nodes.solve` asks for them."""

    span: Span

    def __call__(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        lo, hi = self.span.limits()
        F, slope = self.span.nodes(n)
        w = legendre(n, lo)[1].reshape(-1, 1)
        return F, slope + w.log() + (0.5 * (hi - lo)).log()

    @property
    def core(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Limits of F between which most of the posterior lies."""
        s = self.span
        return s.middle - CORE * s.width, s.middle + CORE * s.width


def _span_of(F, log_p, old) -> Span:
    """The nodes within DROP of the largest density and one more on either side; the peak likewise, between nodes."""
    log_p = torch.nan_to_num(log_p, nan=-torch.inf, neginf=-1e30)
    top = log_p.amax(0)
    n = len(F)

    def ends(drop):
        keep = log_p > top - drop
        first, last = keep.to(torch.uint8).argmax(0), n - 1 - keep.flip(0).to(torch.uint8).argmax(0)
        return first, last

    def at(k):
        return F.gather(0, k[None])[0]

    first, last = ends(DROP + MARGIN)
    lo = torch.where(first == 0, old.lo, at((first - 1).clamp(min=0)))
    hi = torch.where(last == n - 1, old.hi, at((last + 1).clamp(max=n - 1)))
    first, last = ends(PEAK)
    left, right = (_crossing(F, log_p, k, step, top - PEAK) for k, step in ((first, -1), (last, 1)))
    width = 0.25 * (right - left)
    return Span(lo, hi, 0.5 * (left + right), torch.minimum(width, hi - lo).clamp(min=1e-12))


def _crossing(F, log_p, k, step, level):
    """Where log p falls to `level` between node k and the next, by a straight line."""
    other = (k + step).clamp(0, len(F) - 1)
    (F0, F1), (p0, p1) = ([x.gather(0, i[None])[0] for i in (k, other)] for x in (F, log_p))
    share = torch.where(p0 > p1, (p0 - level) / (p0 - p1).clamp(min=1e-30), 0.0)
    return F0 + share.clamp(0, 1) * (F1 - F0)


def collapse(model, obs, args, latents, tied: bool = True) -> Collapsed:
    """The likelihood of these observations with the amplitudes integrated out, whether or not they are related."""
    if obs.overlaps:
        return LaueCollapsed(model, obs, args, latents, tied)
    if isinstance(latents.amplitudes, WilsonTree):
        return TreeCollapsed(model, obs, args, latents, tied)
    return Collapsed(model, obs, args, latents)
