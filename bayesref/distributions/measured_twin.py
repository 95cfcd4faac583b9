"""Evidence of the two measurements of a twinned pair of reflections around what is expected of each.

    p(y_h, y_h' | G, V, α) = ∫∫ p(F_h) p(F_h') p(y_h | J_h) p(y_h' | J_h') dF_h dF_h'
    J_h = (1 - α) F_h² + α F_h'²,      J_h' = α F_h² + (1 - α) F_h'²           h' = h T: the twin mate
    p(F | G, V) Rice or Woolfson, see `rice_woolfson`;  p(I | J) = Normal(J, SIGI)  or  p(F_obs | J) = Normal(√J, SIGF)

Nested quadrature, see `_twin_cpu`. A reflection that is its own mate is measured as if there were no twin. Derivatives
in G, V and α by Fisher's identity; ∂²/∂G² as in `measured_amplitude`.
"""

from dataclasses import dataclass

import numpy as np
import torch

from bayesref._checks import InputError, check_shape
from bayesref.distributions._legendre import gauss
from bayesref.distributions._twin_cpu import integrate
from bayesref.distributions.measured_amplitude import MeasuredAmplitude, measured_amplitude

N_PHI, N_R = 20, 16
_Y_PHI, _V_PHI = (np.ascontiguousarray(x) for x in gauss(N_PHI))
_Y_R, _V_R = (np.ascontiguousarray(x) for x in gauss(N_R))


@dataclass(frozen=True)
class MeasuredTwin:
    """What the measurements say about amplitudes and about their twin fraction.

    Attributes
    ----------
    amplitudes : MeasuredAmplitude, (hkl,) each; the log evidence of a pair is shared equally between its two
    slope_fraction : ∂/∂α of the sum of log evidence
    """

    amplitudes: MeasuredAmplitude
    slope_fraction: float


def measured_twin(G, V, centric, value, sigma, mate, fraction, kind, counted=None) -> MeasuredTwin:
    """Evidence and moments of all amplitudes, without autograd.

    Parameters
    ----------
    G, V : (hkl,) expected amplitude, and variance of the complex error (`RiceWoolfson`)
    centric : (hkl,) bool
    value, sigma : (hkl,) I and SIGI, or F and SIGF
    mate : (hkl,) int64, row of the twin mate: mate[mate] = all rows
    fraction : α, between 0 and 1
    kind : "I" or "F", which of them
    counted : (hkl,) bool, measurements that count (default: all); rows of pairs with none of them are zero

    Raises
    ------
    InputError : another kind, a fraction that is none, mates that are not mutual
    """
    if kind not in ("I", "F"):
        raise InputError(f"Measurements are of kind I or F, not {kind!r}.")
    f = float(fraction)
    if not 0 <= f <= 1:
        raise InputError(f"The twin fraction is {f:g}; it must be from 0 to 1.")
    check_shape("mate", mate, (len(G),))
    rows = torch.arange(len(G))
    if not bool((mate[mate] == rows).all()):
        raise InputError("mate[mate] must give every row back: each reflection is the mate of its own mate.")
    counted = torch.ones(len(G), dtype=torch.bool) if counted is None else counted
    out = torch.zeros(7, len(G), dtype=torch.float64)
    G, V, value, sigma = (x.detach().double().contiguous() for x in (G, V, value, sigma))
    alone = ((mate == rows) & counted).nonzero()[:, 0]
    if len(alone):
        one = measured_amplitude(G[alone], V[alone], centric[alone], value[alone], sigma[alone], kind)
        out[:, alone] = torch.stack(list(vars(one).values()))
    first = ((rows < mate) & (counted | counted[mate])).nonzero()[:, 0]
    w = torch.where(counted, 1 / sigma, 0.0)
    slope = integrate(
        first.numpy(), mate[first].numpy(), G.numpy(), V.numpy(), centric.contiguous().numpy(),
        torch.where(counted, value, 0.0).numpy(), w.numpy(), f, kind == "I", _Y_PHI, _V_PHI, _Y_R, _V_R,
        out.numpy(),
    )  # fmt: skip
    return MeasuredTwin(MeasuredAmplitude(*out), slope)


class _LogEvidence(torch.autograd.Function):
    @staticmethod
    def forward(G, V, fraction, centric, value, sigma, mate, kind, counted):
        m = measured_twin(G, V, centric, value, sigma, mate, fraction, kind, counted)
        slope = torch.as_tensor(m.slope_fraction, dtype=torch.float64)
        return m.amplitudes.log_evidence.sum(), m.amplitudes.slope_G, m.amplitudes.slope_V, slope

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx, up, *_):
        slope_G, slope_V, slope_f = ctx.saved_tensors
        return up * slope_G, up * slope_V, up * slope_f, None, None, None, None, None, None


def log_evidence_twin(G, V, fraction, centric, value, sigma, mate, kind, counted=None) -> torch.Tensor:
    """Σ log p(y | G, V, α), with first derivatives in G, V and α; arguments as `measured_twin`."""
    if counted is None:
        counted = torch.ones(len(value), dtype=torch.bool)
    return _LogEvidence.apply(G, V, fraction, centric, value, sigma, mate, kind, counted)[0]
