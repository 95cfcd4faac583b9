"""Overlapped Laue spots taken apart: expectation propagation, with the amplitudes and the error law kept exact.

    p(I | θ) = ∫ Π_h g_h(F_h) Π_i p(I_i | s_i) dF,    s_i = Σ_k K_ik F_k²,  g_h = p(F_h) Π(spots of h alone)
    q(J) ∝ Π_h exp(-α_h J_h²/2 + β_h J_h) Π_i exp(-τ_i s_i²/2 + η_i s_i)          J = F², i: overlapped spots

g_h and p(I_i | s_i) stand in q as Gaussians in J_h and in s_i; each has the moments of the thing itself under what the
rest of q says (its cavity, exp(-a J²/2 + b J)), by quadrature in one dimension. So the posterior of an amplitude is
g_h(F) exp(-a F⁴/2 + b F²), the family of all others, a and b its `message`. Reflections without overlap have none.
log Z of q estimates log p(I | θ); at the fixed point its gradient is that of Σ log ∫ factor × cavity, cavities held.

Mean-field messages, b from I - Σ K_l E F_l² and a = K²/v, would leave out that the other orders are uncertain, and
messages of single spots would count one uncertainty as many times as there are spots; here the orders of a ray have a
joint Gaussian. Minka (2001), Uncertainty in Artificial Intelligence 17, 362; Seeger (2005), EPFL report.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from bayesref._checks import InputError
from bayesref.guides.latents import AMPLITUDE
from bayesref.inference import distributed
from bayesref.inference.collapsed import Collapsed, Span, find_span
from bayesref.inference.laue_curvature import gauss_newton
from bayesref.inference.laue_parts import Probe, log_mass, only, pick
from bayesref.inference.overlap_clusters import Clusters
from bayesref.inference.propagation import (
    Factors,
    FixedPoint,
    Sites,
    cavity,
    joint_of,
    propagate,
    spot_cavity,
)

OVERLAP = "I_overlap"  # the site of overlapped spots
NODES = 24
FAR = 8.0  # standard deviations: how far from I a sum may be, unless other spots know it to be farther
TURNS = 8  # of laying nodes anew and passing messages
KEPT = ("K_orders", "s_low")  # of what `find_spans` leaves, needed to go on from a checkpoint
UNSETTLED = 0.1  # change of a mean, in its sd, at which a message is of no use


def require_one_process() -> None:
    """Several processes have reflections of their own, whatever ray these belong to."""
    if distributed.size() > 1:
        raise InputError(
            "Overlapped spots tie reflections together and need one process; leave --wavelength-range out."
        )


class LaueCollapsed(Collapsed):
    """As `Collapsed`, of observations with overlaps.

    Parameters
    ----------
    tied : False = single spots alone until `tie`, which costs less and brings the scale near

    Raises
    ------
    InputError : no spot holds one order only, the model has no site "I_overlap", or there are several processes
    """

    def __init__(self, model, obs, args, latents, tied: bool = True):
        if not len(obs):
            raise InputError(
                "Every spot holds several harmonics, so nothing fixes their scales; give a wider range."
            )
        require_one_process()
        self.message = torch.zeros(2, len(obs.asu), dtype=obs.I.dtype)
        super().__init__(model, replace(obs, message=self.message), args, latents)
        orders = obs.overlaps.orders
        self.overlaps, self.probe = obs.overlaps, Probe(obs.overlaps)
        self.clusters = Clusters(orders.hkl_id, obs.overlaps.spot)
        # A plate cannot be empty, so one other spot stays.
        self.shell = replace(obs.subset(slice(0, 1)), overlaps=self.probe, message=None)
        self.core = only(obs, self.clusters.core)
        self.sites: Any = None
        self.settled: Any = None
        self.order_K = torch.zeros(0)
        self.cavities: tuple = ()
        self.s_low, self.s_top, self.top = torch.zeros(3, 0).unbind(0)
        self.s_span: Any = None
        self.own: list[Span] = []  # of the amplitudes without messages
        self.K_orders = torch.zeros(0)
        self.tied = False
        if tied:
            self.tie()

    # Running the model over the overlapped spots

    def _overlap(self, values, s=None):
        """Trace at sums s (node, spot), with K (order,) of the orders in `probe.parts`."""
        self.probe.answering(s)
        trace = self.run(self.shell, values)
        if OVERLAP not in trace.nodes:
            raise InputError(
                f"The model has no site '{OVERLAP}' for spots that several harmonics share; see models/merge_laue.py, "
                "or leave --wavelength-range out."
            )
        return trace

    def _order_K(self, values):
        self._overlap(values)
        return self.probe.parts

    def _law(self, values, s):
        """log p(I | s), (node, spot). Sums are never negative, q does not know it: below zero the law is shifted."""
        law = self._overlap(values, s.clamp(min=0)).nodes[OVERLAP]["fn"]
        return law.log_prob(self.overlaps.I - s.clamp(max=0))

    # Spans

    @torch.no_grad()
    def moved(self, n, values):
        """As for single spots, but overlapped ones also tell how far amplitudes move with the scale."""
        if not self.tied:
            return super().moved(n, values)
        values = {k: v.detach() for k, v in values.items()}
        start = sum(len(p.asu) for p in self.pieces[:n])
        piece, orders = self.pieces[n], self.overlaps.orders
        here = (orders.hkl_id >= start) & (orders.hkl_id < start + len(piece.asu))
        K = torch.cat([self.run(piece, values).nodes["I"]["fn"].loc, self._order_K(values)[here]])
        old = torch.cat([self.K[n], self.K_orders[here]])
        row = torch.cat([piece.hkl_id, orders.hkl_id[here] - start])
        weight = (K / torch.cat([piece.SIGI, orders.SIGI[here]])) ** 2
        total, change = torch.zeros(2, len(piece.asu), dtype=K.dtype).unbind(0)
        total = total.index_add(0, row, weight).clamp(min=1e-300)
        change = change.index_add(0, row, weight * (K / old).log()) / total
        return self.spans[n].scaled((-0.5 * change).exp())

    def tie(self):
        """From now on with the overlapped spots, and the curvature that belongs to them."""
        self.tied, self.more = True, (self._spot_term,)
        self.gauss_newton = partial(gauss_newton, self)

    @torch.no_grad()
    def find_spans(self, z, warm=False):
        """Spans of amplitudes and of sums, and the messages, at z: they depend on each other, so in turns."""
        if not self.tied:
            return super().find_spans(z, warm)
        values = self.latents.unpack(z)
        self.message.zero_()
        self.spans = self.own
        super().find_spans(z, warm and bool(self.own))
        self.own, self.K_orders = self.spans, self._order_K(values)
        if self.sites is None:
            self._begin(values)
        else:
            self.cavities = cavity(joint_of(self.clusters, self.sites, self.K_orders), self.sites)
        for turn in range(TURNS):
            before = self.sites
            self._find_core_spans(values)
            self._find_s_span(values)
            done = self._settle(values, passes=6 if turn + 1 < TURNS else 40, anew=True)
            self.sites = self.settled.sites
            if done and before.near(self.sites):
                break

    def _alone(self):
        """F at which some overlapped spot would have the amplitude alone, at the most, (core,)."""
        I = self.overlaps.I.clamp(min=0) + FAR * self.overlaps.SIGI
        F = (I[self.clusters.spot] / self.K_orders).sqrt()
        return torch.zeros_like(self.clusters.core, dtype=F.dtype).scatter_reduce(
            0, self.clusters.row, F, "amax"
        )

    def _largest(self, a, b):
        """What F may be at most, (core,).

        A message is a Gaussian that may still rise where no spot would have the amplitude, and the tails of the error
        law, a blank's above all, would follow it there. So it ends there, unless own spots say that F is larger.
        """
        own = {k: torch.cat([getattr(s, k) for s in self.own])[self.clusters.core] for k in ("middle", "hi")}
        alone = self._alone()
        rising = (b > a * alone**2) & (own["middle"] < alone)
        return torch.where(rising, alone, torch.maximum(own["hi"], alone))

    def _find_core_spans(self, values):
        """Spans of the amplitudes with messages, put among the others."""
        a, b = self.cavities
        top = self.top = self._largest(a, b)

        def log_density(F):
            return self.log_density(self.core, values, F) + F**2 * (b - 0.5 * a * F**2)

        span, start, spans = find_span(log_density, torch.zeros_like(top), top), 0, []
        for piece, own in zip(self.pieces, self.own, strict=True):
            stop = start + len(piece.asu)
            mine = (self.clusters.core >= start) & (self.clusters.core < stop)
            rows = self.clusters.core[mine] - start
            parts = {k: getattr(own, k).index_copy(0, rows, x[mine]) for k, x in vars(span).items()}
            spans.append(Span(**parts))
            start = stop
        self.spans = spans

    def _begin(self, values):
        """Sites to start from: spots by their SIGI, amplitudes by their prior."""
        prior = self.run(self.core, values).nodes[AMPLITUDE]["fn"]
        mean = (prior.mean**2 + prior.variance).expand(len(self.core.asu))
        I, SIGI = self.overlaps.I, self.overlaps.SIGI
        self.sites = Sites(1 / mean**2, 1 / mean, 1 / SIGI**2, I / SIGI**2)
        self.cavities = cavity(joint_of(self.clusters, self.sites, self.K_orders), self.sites)

    def _tell(self, point: FixedPoint):
        """Messages to the amplitudes; none to those that do not come to rest, which keep their own spots."""
        known = torch.stack([point.a, point.b])
        self.message[:, self.clusters.core] = torch.where(point.change > UNSETTLED, 0.0, known)

    def _find_s_span(self, values):
        """Nodes of the sums, counted from `s_low`, beyond which no law puts a sum.

        An amplitude that nothing but its prior and one spot know has a cavity like exp(-J), as a Gaussian one far
        below zero; the tails of the error law must not follow it there.
        """
        joint = joint_of(self.clusters, self.sites, self.K_orders)
        tau, eta = spot_cavity(joint, self.sites)
        I, room = self.overlaps.I, FAR * self.overlaps.SIGI
        self.s_low = I.clamp(max=0) - room
        most = self.overlaps.total(self.K_orders * self._largest(*self.cavities)[self.clusters.row] ** 2)
        high = torch.maximum(
            torch.minimum(joint.s_mean + 8 * joint.s_variance.sqrt(), most), I.clamp(min=0) + room
        )

        def log_density(u):
            s = u + self.s_low
            return self._law(values, s) + s * (eta - 0.5 * tau * s)

        self.s_top = high - self.s_low
        self.s_span = find_span(log_density, torch.zeros_like(high), self.s_top)

    def _s_nodes(self):
        u, slope = self.s_span.nodes(NODES)
        return u + self.s_low, slope

    # The fixed point

    @torch.no_grad()
    def _settle(self, values, passes=40, room=0.0, n_node=20, anew=False):
        """The fixed point at these values, from the sites of the last E-step on. Returns whether it was reached.

        With `anew`, nodes are about to be laid anew, and what runs off them can wait.
        """
        values = {k: v.detach() for k, v in values.items()}
        span = pick([self.moved(n, values) for n in range(len(self.pieces))], self.clusters.core, room)
        F, slope = span.nodes(n_node)
        log_g = log_mass(span.posterior(self.log_density(self.core, values, F), slope))
        s, slope = self._s_nodes()
        log_law = log_mass(self.s_span.posterior(self._law(values, s), slope))
        self.order_K = self._order_K(values)
        more = s_more = None
        if anew:
            more = torch.stack([span.lo > 0, span.hi < 0.999 * self.top])
            s_more = torch.stack([self.s_span.lo > 0, self.s_span.hi < 0.999 * self.s_top])
        factors = Factors(log_g, F**2, log_law, s, more, s_more)
        self.settled = propagate(self.clusters, factors, self.sites, self.order_K, passes)
        self.cavities = self.settled.a, self.settled.b
        self._tell(self.settled)
        return self.settled.reached

    def _spot_term(self, values):
        """Σ log ∫ p(I | s) Normal(s; cavity) ds as a function of K and the error law; its value is `constant`."""
        sites, joint, spot = self.settled.sites, self.settled.joint, self.clusters.spot
        rest = 1 - sites.tau * joint.s_variance  # q without the spot: rank one less
        shift = ((sites.tau * joint.s_mean - sites.eta) / rest)[spot]
        s, slope = self._s_nodes()
        law, K = self._law(values, s), self.probe.parts
        mean = self.overlaps.total(K * (joint.mean[self.clusters.row] + joint.along * shift))
        pull = 2 * joint.along / rest[spot]  # ∂ variance/∂K, all that the gradient needs
        variance = joint.s_variance / rest + self.overlaps.total((K - self.order_K) * pull)
        # A Gaussian in s but for a constant; where sites of other amplitudes are negative, its variance may be.
        cavity = s * (mean - 0.5 * s) / variance
        value = self.s_span.posterior(law + cavity, slope).log_normalizer
        value = (value - 0.5 * variance.abs().log() - 0.5 * mean**2 / variance).sum()
        return value - value.detach() + self.settled.constant

    # What `Collapsed` offers

    def refresh(self, z, n_node=20, warm=False):
        value = super().refresh(z, n_node, warm)
        return value + self.settled.constant if self.tied else value

    def surrogate(self, z):
        return self.exact(z) if self.tied else super().surrogate(z)

    def exact(self, z, fixed=None, n_node=20):
        if self.tied:
            self._settle(self.latents.unpack(z) | (fixed or {}))
        return super().exact(z, fixed, n_node)

    @torch.no_grad()
    def value(self, z, n_node=20):
        if not self.tied:
            return super().value(z, n_node)
        self._settle(self.latents.unpack(z))
        return super().value(z, n_node) + self.settled.constant

    def at(self, z):
        self._settle(self.latents.unpack(z), room=2.0)
        return self.message.clone()

    def bounded(self, z):
        """Messages that do not rise beyond the largest amplitude possible, for use where nothing else bounds it."""
        self._settle(self.latents.unpack(z))
        a, b = self.message.clone()
        core = self.clusters.core
        a[core] = torch.maximum(a[core], b[core] / self._alone() ** 2)
        return torch.stack([a, b])

    def use(self, message):
        self.message.copy_(message)

    def state(self):
        if not self.tied or self.sites is None:
            return super().state()
        span = {f"s_{k}": v for k, v in vars(self.s_span).items()}
        return super().state() | vars(self.sites) | span | {k: getattr(self, k) for k in KEPT}

    def restore(self, state):
        own = {k: state[k] for k in ("alpha", "beta", "tau", "eta") if k in state}
        super().restore(state)
        if own:
            self.tie()
            self.sites = Sites(**own)
            for k in KEPT:
                setattr(self, k, state[k])
            self.s_span = Span(**{k: state[f"s_{k}"] for k in ("lo", "hi", "middle", "width")})
