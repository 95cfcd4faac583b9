"""Amplitudes of one crystal at several times, when the errors of the model are the same at all of them.

    F_0 = G + Δ,  E|Δ|² = V            dark; G > 0 the expected amplitude, phases relative to its own
    F_t = F_0 + d_t + δ_t,  E|δ_t|² = V_t      d_t = (F_calc,t - F_calc,0) e^{-iφ}, complex; δ_t small
    F̂_0 ~ Normal(|F_0|, σ_0),   F̂_t ~ Normal(K_t |F_t|, σ_t)       acentric: Δ, δ complex normal; centric: real

    p(F̂) = ∫ d²F_0 p(F_0) Normal(F̂_0; |F_0|, σ_0) Π_t p(F̂_t | F_0 + d_t)

Δ, the largest error by far, cancels in differences; what is left of it is the unknown phase of F_0, which is
integrated over: Gauss-Legendre nodes in phase over the span that p(F_0) leaves (centric: both signs), as close as the
integrand is narrow, and at each of them nodes in |F_0| about where all measurements together put it (Gauss-Hermite;
Gauss-Legendre where an amplitude may vanish). Given F_0, |F_t| is Rice (Woolfson)
distributed; the measurement adds 2σ_t² (σ_t²) to V_t, which is exact for the radial part and moves the mean by σ²/F,
negligible where differences are measurable at all.
After Ursby & Bourgeois (1997), Acta Cryst. A53, 564, and Read (1990), Acta Cryst. A46, 900.
"""

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints

from bayesref.distributions._legendre import gauss
from bayesref.distributions._shared_error_cpu import integrate

N_AMPLITUDE, N_WEAK, N_PHASE = 4, 12, 10
LEVELS = 4  # of nodes in phase, each twice as fine
SPAN = 5.0  # standard deviations of the phase that its nodes cover
NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(N_AMPLITUDE)
LOG_WEIGHTS = np.log(_WEIGHTS) + 0.5 * NODES**2 - 0.5 * np.log(2 * np.pi)


class SharedError(TorchDistribution):
    """Measured amplitudes (dark, time 1, time 2, ...) of each reflection.

    Parameters
    ----------
    G, V : (hkl,), expected dark amplitude, and variance of the error that all times share
    d : (hkl, time) complex, change of the calculated structure factor, relative to the phase of G
    V_time : (hkl, time), variance of the error of each time alone
    sigma : (hkl, 1 + time), standard deviations of the measurements; infinite where there is none
    centric : (hkl,) bool
    scale : (hkl, time), K_t, scale of each dataset against the dark one
    """

    arg_constraints = {}  # noqa: RUF012  the name and type are torch's
    support = constraints.independent(constraints.real, 1)

    def __init__(self, G, V, d, V_time, sigma, centric, scale=1.0, validate_args=None):
        self.G, self.V, self.d, self.V_time, self.sigma, self.centric = G, V, d, V_time, sigma, centric
        self.scale = torch.as_tensor(scale, dtype=G.dtype)
        super().__init__(G.shape, sigma.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        if torch.Size(batch_shape) != self.batch_shape:
            raise NotImplementedError("One distribution for one list of reflections.")
        return self

    def log_prob(self, value):
        """log p(F̂) of each reflection, (hkl,), for amplitudes (hkl, 1 + time)."""
        K = self.scale.expand(self.d.shape)
        d = self.d
        parts = (self.G, self.V, d.real, d.imag, self.V_time, K, self.sigma, value, self.centric)
        return _LogProb.apply(*parts)[0]

    def sample(self, sample_shape=torch.Size()):  # noqa: B008  an immutable default, as torch has it
        """Measurements, (*sample_shape, hkl, 1 + time); zero where there is none."""

        def error(V):
            e = torch.randn(2, *sample_shape, *V.shape, dtype=V.dtype)
            centric = self.centric if V.ndim == 1 else self.centric[:, None]
            real = torch.where(centric, V, 0.5 * V).sqrt() * e[0]
            return torch.complex(real, torch.where(centric, 0.0, (0.5 * V).sqrt() * e[1]))

        dark = self.G + error(self.V)
        light = dark[..., None] + self.d + error(self.V_time)
        F = torch.cat([dark[..., None].abs(), self.scale * light.abs()], -1)
        there = torch.isfinite(self.sigma)
        return torch.where(there, F + torch.where(there, self.sigma, 0.0) * torch.randn_like(F), 0.0)


class _LogProb(torch.autograd.Function):
    @staticmethod
    def forward(G, V, d_real, d_imag, V_time, K, sigma, F, centric):
        y, v = (np.zeros((LEVELS, N_PHASE << (LEVELS - 1))) for _ in range(2))
        for level in range(LEVELS):
            n = N_PHASE << level
            y[level, :n], v[level, :n] = gauss(n)
        z, u = gauss(N_WEAK)
        out, grad = np.empty(len(G)), np.empty((len(G), 2 + 4 * d_real.shape[1]))
        G, V, real, imag, V_time, K, sigma, F = (
            np.ascontiguousarray(x.detach().numpy()) for x in (G, V, d_real, d_imag, V_time, K, sigma, F)
        )
        integrate(
            G, V, real + 1j * imag, V_time, sigma, F, K, centric.numpy(), NODES, LOG_WEIGHTS,
            z, u, y, v, N_PHASE, SPAN, out, grad,
        )  # fmt: skip
        return torch.from_numpy(out), torch.from_numpy(grad)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx, up, _):
        (grad,) = ctx.saved_tensors
        G, V, time = up * grad[:, 0], up * grad[:, 1], up[:, None, None] * grad[:, 2:].unflatten(1, (-1, 4))
        return G, V, *time.unbind(2), None, None, None
