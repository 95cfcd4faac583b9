"""Differences of amplitudes between two datasets of one crystal, with their uncertainty.

    d = F̂_light / K - F̂_dark,   σ² = σ_dark² + σ_light² / K²         K(h) = exp(a - b s² - sᵀ U s), traceless U
    F_light = F_dark + Δ,   Δ = (Δ∥ + i Δ⊥) e^{iφ_dark},   E|Δ|² = ε τ²(s)
    Δ∥ | data ~ Normal(w d, w σ²),   w = v / (v + σ²),   v = ε τ²/2 (centric: ε τ²);   Δ⊥ ~ Normal(0, v), unseen

w is what weights for difference maps stand for (Ursby & Bourgeois 1997, Acta Cryst. A53, 564), here with τ² found by
evidence: d ~ Normal(0, v + σ²). To first order in Δ/F, |F_light| - |F_dark| = Δ∥.

Extrapolated amplitudes, F_dark + d/α for a light-driven share α, are given as measurements: not shrunk, above zero.
"""

from dataclasses import dataclass

import scipy.optimize
import torch

from bayesref._checks import InputError
from bayesref.crystal.asu import ReciprocalASU
from bayesref.distributions.truncated_normal import TruncatedNormal
from bayesref.scaling.basis import bumps

N_BUMPS = 5
FLAT = 1.0  # spread of log τ² from one bump to the next
FAR = 6.0  # standard deviations of d: beyond, a difference is left out
STRONG = 3.0  # F/σ of amplitudes that set the scale


@dataclass(frozen=True, eq=False)
class AmplitudeDifference:
    """Differences, on the scale of the dark data.

    Attributes
    ----------
    asu : ReciprocalASU
    d, sigma : (hkl,), measured difference and its standard deviation; infinite σ where there is none
    v : (hkl,), prior variance of Δ∥ and, unless centric, of Δ⊥
    far : (hkl,) bool, outliers, which count as not measured
    scale : (hkl,), K of the light data
    """

    asu: ReciprocalASU
    d: torch.Tensor
    sigma: torch.Tensor
    v: torch.Tensor
    far: torch.Tensor
    scale: torch.Tensor

    @property
    def weight(self) -> torch.Tensor:
        """w, (hkl,); zero where nothing was measured."""
        return torch.where(self.far, 0.0, self.v / (self.v + self.sigma**2))

    @property
    def mean(self) -> torch.Tensor:
        """E[Δ∥], (hkl,)."""
        return self.weight * torch.where(torch.isfinite(self.sigma), self.d, 0.0)

    @property
    def sd(self) -> torch.Tensor:
        """Standard deviation of Δ∥, (hkl,)."""
        return ((1 - self.weight) * self.v).sqrt()

    def draw(self, g: torch.Generator) -> torch.Tensor:
        """One draw of Δ e^{-iφ_dark}, (hkl,) complex."""
        e = torch.randn(2, len(self.asu), generator=g, dtype=torch.float64)
        across = torch.where(self.asu.centric, 0.0, self.v.sqrt() * e[1])
        return torch.complex(self.mean + self.sd * e[0], across)


def amplitude_difference(asu, F, SIGF, aniso) -> AmplitudeDifference:
    """Posterior of the difference of two datasets.

    Parameters
    ----------
    asu : ReciprocalASU
    F, SIGF : (hkl, 2), dark and light; infinite SIGF where there is none
    aniso : (hkl, n), sᵀ U s for the anisotropies that symmetry allows

    Raises
    ------
    InputError : too few reflections in common
    """
    there = torch.isfinite(SIGF).all(1)
    if int(there.sum()) < 50:
        raise InputError(
            f"The two datasets have {int(there.sum())} reflections in common; expected at least 50."
        )
    K = torch.exp(_log_ratio(asu.stol2, F, SIGF, aniso, there))
    d = torch.where(there, F[:, 1] / K - F[:, 0], 0.0)
    sigma = torch.where(there, (SIGF[:, 0] ** 2 + (SIGF[:, 1] / K) ** 2).sqrt(), torch.inf)
    far = torch.zeros_like(there)
    for _ in range(3):
        v = _prior_variance(asu, d, sigma, there & ~far)
        again = there & (d.abs() > FAR * (v + sigma**2).sqrt())
        if bool((again == far).all()):
            break
        far = again
    return AmplitudeDifference(asu, d, sigma, v, far, K)


def joint_difference(asu, DF: torch.Tensor, SIGDF: torch.Tensor) -> AmplitudeDifference:
    """Differences whose posterior is known, from a prior that ties both datasets; (hkl,) each, infinite SIGDF = none.

    v is the second moment of that posterior, smooth in resolution; d and σ are the measurement that would lead from
    Normal(0, v) to it.
    """
    there = torch.isfinite(SIGDF)
    if int(there.sum()) < 50:
        raise InputError(f"Found {int(there.sum())} differences; expected at least 50.")
    s2 = torch.where(there, SIGDF, 0.0) ** 2
    v = _prior_variance(asu, (DF**2 + s2).sqrt(), torch.zeros_like(DF), there)
    weight = (1 - s2 / v).clamp(min=1e-6)
    told = there & (weight > 1e-3)
    sigma = torch.where(told, (s2 / weight).sqrt(), torch.inf)
    d = torch.where(told, DF / weight, 0.0)
    return AmplitudeDifference(asu, d, sigma, v, torch.zeros_like(there), torch.ones_like(DF))


def _log_ratio(stol2, F, SIGF, aniso, there):
    """log K(h) from strong reflections, by least squares that outliers weigh little in."""
    strong = there & (F > STRONG * SIGF).all(1) & (F > 0).all(1)
    if int(strong.sum()) < 30:
        raise InputError(
            f"Found {int(strong.sum())} reflections with F > {STRONG:g} SIGF in both datasets; 30 set their scale."
        )
    X = torch.cat([torch.ones_like(stol2)[:, None], stol2[:, None], aniso], 1)
    y = (F[strong, 1] / F[strong, 0]).log()
    variance = (SIGF[strong] / F[strong]).square().sum(1)
    extra = torch.zeros((), dtype=torch.float64)
    for _ in range(10):
        w = 1 / (variance + extra)
        beta = torch.linalg.lstsq(X[strong] * w.sqrt()[:, None], (y * w.sqrt())[:, None]).solution[:, 0]
        r = y - X[strong] @ beta
        w = w / (1 + r.square() * w / 4)  # a Student t of four degrees of freedom
        beta = torch.linalg.lstsq(X[strong] * w.sqrt()[:, None], (y * w.sqrt())[:, None]).solution[:, 0]
        extra = (1.4826 * (y - X[strong] @ beta).abs().median()).square()
    return X @ beta


def _prior_variance(asu, d, sigma, rows):
    """ε τ²(s)/2, centric ε τ², for all reflections, from the evidence of `rows`."""
    s2 = asu.stol2
    phi = bumps(s2, N_BUMPS, (float(s2.min()), float(s2.max())))
    phi = phi / phi.sum(1, keepdim=True)
    factor = asu.epsilon * torch.where(asu.centric, 1.0, 0.5)
    x, y, f, s = phi[rows], d[rows].square(), factor[rows], sigma[rows].square()
    middle = float(((y - s).mean() / f.mean()).clamp(min=0.01 * float(s.mean())).log())

    def negative(w):
        w = torch.from_numpy(w).requires_grad_()
        total = f * torch.exp(x @ w + middle) + s
        value = 0.5 * (total.log() + y / total).sum() + 0.5 * (w.diff() / FLAT).square().sum()
        value = value + 0.5 * (w.mean() / 3).square()
        (grad,) = torch.autograd.grad(value, w)
        return float(value.detach()), grad.numpy()

    fit = scipy.optimize.minimize(
        negative, torch.zeros(N_BUMPS, dtype=torch.float64).numpy(), jac=True, method="L-BFGS-B"
    )
    return factor * torch.exp(phi @ torch.from_numpy(fit.x) + middle)


def extrapolated(
    difference: AmplitudeDifference, F, SIGF, alpha: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """F_dark + d/α with its standard deviation, (hkl,) each, for draws of the share α that the light drives.

    Moments over the draws, then those of the normal law cut off at zero; infinite σ where nothing was measured.
    """
    there = torch.isfinite(difference.sigma) & ~difference.far
    one, two = (1 / alpha).mean(), (1 / alpha).square().mean()
    d, s_dark = torch.where(there, difference.d, 0.0), SIGF[:, 0]
    s_light = torch.where(there, SIGF[:, 1] / difference.scale, 0.0)
    mean = F[:, 0] + d * one
    # F̂_dark enters twice: F_dark (1 - 1/α) + F_light/α
    variance = s_dark**2 * (1 - 2 * one + two) + s_light**2 * two + d**2 * (two - one**2)
    law = TruncatedNormal(mean, variance.sqrt())
    return torch.where(there, law.mean, 0.0), torch.where(there, law.variance.sqrt(), torch.inf)
