"""The likelihood with the amplitudes integrated out.

    log p(I | θ) = Σ_h log ∫ p(F_h) Π_{i in h} p(I_i | F_h, θ) dF_h

Given θ the amplitudes are independent, so each integral is one-dimensional, whatever the error law: Gauss-Legendre
nodes over the span where the integrand matters (`exact`). With q(F | θ) the exact conditional, the ELBO of any
q(θ) is E_q[log p(I | θ) + log p(θ) - log q(θ)]: no Monte Carlo noise comes from the amplitudes.

Far from the optimum the spans would have to move with θ. There a normal law with the precision of each spot held
fixed stands in (`surrogate`); its integral is the normaliser of an `AmplitudePosterior`:

    p(I_i | F) ≈ Normal(K_i F², 1/λ_i),    a = Σ λ K²,  b = Σ λ K I
    λ_i = E[ψ_i (I_i - K_i F²)] / E[(I_i - K_i F²)²],   ψ = ∂ log p(I | F)/∂(K F²),   over the exact p(F | I, θ)

For a normal law with known variance λ = 1/v and nothing is approximated; for Student's t, λ is that of the scale
mixture, and alternating the two is iteratively reweighted least squares.
"""

from dataclasses import dataclass

import torch

from bayesref.distributions import AmplitudePosterior, NodePosterior, bracket, nodes
from bayesref.inference.latents import AMPLITUDE, INTENSITY, Latents, trace_model

DROP = 18.0  # log units below the mode where a span ends: ± 6 standard deviations
CHUNK = 25_000  # spots handled at a time, so that (node, spot) arrays stay in the processor's cache


def split(obs, n=CHUNK):
    """Observations cut between reflections into pieces of about `n` spots."""
    ends = torch.searchsorted(obs.offsets, torch.arange(n, len(obs) + n, n)).clamp(max=len(obs.asu)).unique()
    starts = [0, *ends[:-1].tolist()]
    return [obs.slice_reflections(i, j) for i, j in zip(starts, ends.tolist(), strict=True) if j > i]


@dataclass
class Spans:
    """What an E-step leaves: where each amplitude lies, and how precise each spot is.

    Attributes
    ----------
    lo, hi : (hkl,), span of the amplitude
    precision : (spot,), λ
    m2, m4 : (hkl,), E F² and E F⁴
    """

    lo: torch.Tensor
    hi: torch.Tensor
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
        self.pieces = split(obs)
        self.spans: list[Spans] = []

    def _run(self, piece, values, F):
        return trace_model(self.model, (piece, *self.args), {**values, AMPLITUDE: F})

    def log_density(self, piece, values, F, trace=None):
        """log p(F) + Σ log p(I | F) of each reflection at F (node, hkl), same shape."""
        trace = trace or self._run(piece, values, F)
        spot = trace.nodes[INTENSITY]["fn"].log_prob(piece.I)
        total = torch.zeros_like(F).index_add(-1, piece.hkl_id, spot)
        return total + trace.nodes[AMPLITUDE]["fn"].log_prob(F)

    @torch.no_grad()
    def refresh(self, z: torch.Tensor, n_node: int = 20) -> float:
        """E-step at z: new spans and precisions. Returns log p(I | θ)."""
        values = self.latents.unpack(z)
        total, self.spans = 0.0, []
        for piece in self.pieces:
            lo, hi = self._bracket(piece, values)
            F = nodes(lo, hi, n_node)
            with torch.enable_grad():
                trace = self._run(piece, values, F.detach().requires_grad_())
                law = trace.nodes[INTENSITY]["fn"]
                spot = law.log_prob(piece.I)
                (psi,) = torch.autograd.grad(spot.sum(), law.loc, retain_graph=True)
            posterior = NodePosterior(lo, hi, self.log_density(piece, values, F, trace))
            total += float(posterior.log_normalizer.sum())
            weight = posterior.weight[:, piece.hkl_id]
            r = piece.I - law.loc
            precision = (weight * psi * r).sum(0) / (weight * r**2).sum(0).clamp(min=1e-300)
            self.spans.append(Spans(lo, hi, precision.clamp(min=0), posterior.moment(2), posterior.moment(4)))
        return total

    def _bracket(self, piece, values, drop=DROP):
        prior = self._run(piece, values, torch.ones(len(piece.asu), dtype=piece.I.dtype)).nodes[AMPLITUDE]["fn"]
        lo, hi = prior.interval(drop)
        return bracket(lambda F: self.log_density(piece, values, F), lo, hi, drop=drop, points=25, passes=6)

    def exact(self, z: torch.Tensor, n_node: int = 16) -> tuple[float, torch.Tensor]:
        """log p(I, z) with its gradient, (latent,), by nodes over the spans of the last E-step."""
        return self._sum(z, lambda piece, span, values: self._exact_piece(piece, span, values, n_node))

    def _exact_piece(self, piece, span, values, n_node):
        F = nodes(span.lo, span.hi, n_node)
        trace = self._run(piece, values, F)
        return NodePosterior(span.lo, span.hi, self.log_density(piece, values, F, trace)).log_normalizer.sum(), trace

    def surrogate(self, z: torch.Tensor) -> tuple[float, torch.Tensor]:
        """log p(I, z) with the precisions of the last E-step held fixed, and its gradient, (latent,)."""
        return self._sum(z, self._surrogate_piece)

    def _surrogate_piece(self, piece, span, values):
        trace = self._run(piece, values, torch.ones(len(piece.asu), dtype=piece.I.dtype))
        K = trace.nodes[INTENSITY]["fn"].loc
        a, b = natural_parameters(piece, K, span.precision)
        prior = trace.nodes[AMPLITUDE]["fn"]
        return AmplitudePosterior(prior, a, b, n_node=32, validate_args=False).log_normalizer.sum(), trace

    def _sum(self, z, piece_value):
        z = z.detach().requires_grad_()
        values = self.latents.unpack(z)
        leaves = {k: v.detach().requires_grad_() for k, v in values.items()}
        total, grads = 0.0, {k: torch.zeros_like(v) for k, v in values.items()}
        for n, (piece, span) in enumerate(zip(self.pieces, self.spans, strict=True)):
            value, trace = piece_value(piece, span, leaves)
            got = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
            for k, g in zip(leaves, got, strict=True):
                if g is not None:
                    grads[k] += g
            total += float(value)
            if n == 0:
                first = {k: trace.nodes[k]["fn"] for k in leaves}
        log_prior = self._log_prior(z, values, first)
        outside = sum((grads[k] * v).sum() for k, v in values.items())
        (grad,) = torch.autograd.grad(log_prior + outside, z)
        return total + float(log_prior), grad

    def _log_prior(self, z, values, priors):
        total = z.new_zeros(())
        for k, s in self.latents.sites.items():
            total = total + priors[k].log_prob(values[k]).sum()
            total = total + s.transform.log_abs_det_jacobian(z[s.where].reshape(s.shape), values[k]).sum()
        return total


def natural_parameters(piece, K, precision):
    """a = Σ λ K² and b = Σ λ K I of each reflection, (hkl,) each."""
    zero = K.new_zeros(len(piece.asu))
    a = zero.index_add(0, piece.hkl_id, precision * K**2)
    return a, zero.index_add(0, piece.hkl_id, precision * K * piece.I)
