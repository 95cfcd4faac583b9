"""Parametric laws of an amplitude, fitted to its exact posterior: what other programs report, for comparison.

    q(F; θ) ∝ exp t(F; θ),   θ* = argmax E_q[log p(F, I) - log q] = argmin KL(q ‖ p)

    truncated-normal   t = -(F - μ)²/(2σ²)                                        careless's default
    folded-normal      t = -(F - μ)²/(2σ²) + log[1 + exp(-2Fμ/σ²)]                Woolfson's distribution
    rice               t = log F - (F - μ)²/V + log[I₀(2Fμ/V) exp(-2Fμ/V)]
    gamma              t = (k - 1) log F - k F/m

The exact posterior is known on quadrature nodes F_j with masses W_j, so that the ELBO is a sum over them: nothing is
drawn. Each reflection has two parameters x. The slope of the ELBO is Cov_q(∂t, ℓ - t), ℓ = log p; with the Fisher
matrix G = Cov_q(∂t, ∂t) a natural-gradient step is G⁻¹ slope (Amari, 1998, Neural Comput. 10, 251): the regression of
what t misses of ℓ on ∂t, exact at once where ℓ has the form of t. Steps are damped until they raise the ELBO
(Levenberg & Marquardt). q is normalised on the nodes, outside which p has nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch.distributions import Gamma

from bayesref._checks import InputError
from bayesref.distributions._special import _Deficit, log_coshe, log_i0e
from bayesref.distributions.rice_woolfson import RiceWoolfson
from bayesref.distributions.truncated_normal import TruncatedNormal

REACH = 40.0  # sds by which μ may lie below the amplitude: a normal cut off so far out is exponential


@dataclass(frozen=True)
class Family:
    """A law with two parameters x (2, *batch), relative to the mean m and sd s of the posterior it is fitted to.

    Attributes
    ----------
    kernel : (F, x, m, s) -> t and ∂t/∂x, (node, *batch) and (2, node, *batch)
    law : (x, m, s) -> the distribution, normalised on F ≥ 0
    lowest : (m, s) -> the least x₀
    """

    kernel: Callable
    law: Callable
    lowest: Callable = lambda m, s: torch.full_like(m, -REACH)


def _location_scale(x, m, s):
    return m + s * x[0], s * x[1].exp()


def _even_location_scale(x, m, s):
    """μ² = m² + 2 m s x₀: densities even in μ are smooth in μ², also at μ = 0; and σ."""
    return (m * m + 2 * m * s * x[0]).clamp(min=0).sqrt().maximum(1e-4 * s), s * x[1].exp()


def _normal(F, x, m, s):
    mu, sigma = _location_scale(x, m, s)
    z = (F - mu) / sigma
    return -0.5 * z * z, torch.stack([z * s / sigma, z * z])


def _even(F, x, m, s, deficit):
    """t of the normal about μ, its slope with that of a term of derivative `deficit`(y), y = Fμ/σ²; and y."""
    mu, sigma = _even_location_scale(x, m, s)
    z, y = (F - mu) / sigma, F * mu / sigma**2
    d = deficit(y)
    slope = torch.stack([(z / sigma + d * F / sigma**2) * m * s / mu, z * z - 2 * y * d])
    return -0.5 * z * z, slope, y


def _folded(F, x, m, s):
    t, slope, y = _even(F, x, m, s, lambda y: torch.tanh(y) - 1)
    return t + log_coshe(y), slope


def _rice(F, x, m, s):
    t, slope, y = _even(F, x, m, s, _Deficit.apply)  # I₁/I₀ - 1; V = 2σ²
    return t + log_i0e(y) + F.clamp(min=torch.finfo(F.dtype).tiny).log(), slope


def _shape_rate(x, m, s):
    k = (m / s) ** 2 * torch.exp(-2 * x[1])
    return k, k / (m * torch.exp(x[0] * s / m))


def _gamma(F, x, m, s):
    k, rate = _shape_rate(x, m, s)
    log_F = F.clamp(min=torch.finfo(F.dtype).tiny).log()
    return (k - 1) * log_F - rate * F, torch.stack([rate * F * s / m, -2 * (k * log_F - rate * F)])


def _as_rice(x, m, s, centric):
    mu, sigma = _even_location_scale(x, m, s)
    return RiceWoolfson(mu, sigma**2 if centric else 2 * sigma**2, centric, validate_args=False)


FAMILIES = {
    "truncated-normal": Family(_normal, lambda x, m, s: TruncatedNormal(*_location_scale(x, m, s))),
    "folded-normal": Family(_folded, lambda x, m, s: _as_rice(x, m, s, True), lambda m, s: -0.5 * m / s),
    "rice": Family(_rice, lambda x, m, s: _as_rice(x, m, s, False), lambda m, s: -0.5 * m / s),
    "gamma": Family(_gamma, lambda x, m, s: Gamma(*_shape_rate(x, m, s))),
}


@dataclass(frozen=True)
class FittedFamily:
    """Result of `fit_family`.

    Attributes
    ----------
    law : the distribution q, batch shape (*batch)
    log_kernel : (node, *batch), t at the nodes, for moments and draws by quadrature
    gap : (*batch), KL(q ‖ p), by which the ELBO falls short of the evidence, log units
    """

    law: torch.distributions.Distribution
    log_kernel: torch.Tensor
    gap: torch.Tensor


@torch.no_grad()
def fit_family(
    name: str, F: torch.Tensor, log_weight: torch.Tensor, log_measure: torch.Tensor,
    steps: int = 200, tolerance: float = 1e-10,
) -> FittedFamily:  # fmt: skip
    """The member of a family closest to a posterior known on nodes.

    Parameters
    ----------
    name : of `FAMILIES`
    F : (node, hkl), nodes, above zero
    log_weight : (node, hkl), log of the masses W_j of the posterior, which sum to one
    log_measure : (node, hkl), log of the quadrature weights, ∫ f dF ≈ Σ_j exp(log_measure_j) f(F_j)
    steps : at most so many
    tolerance : log units that a further step may still promise

    Raises
    ------
    InputError : unknown family
    """
    if name not in FAMILIES:
        raise InputError(f"There is no family '{name}'; choose one of {', '.join(FAMILIES)}.")
    family, W = FAMILIES[name], log_weight.exp()
    m = (W * F).sum(0)
    s = (W * (F - m) ** 2).sum(0).sqrt()
    target = _Target(family, F, log_weight, log_measure, m, s)
    x = F.new_zeros(2, len(m))
    here, rows, part, damping = target.at(x), torch.arange(len(m)), target, torch.full_like(m, 1e-3)
    for _ in range(steps):
        step = here.step(damping, part.lowest)
        going = (step * here.slope).sum(0) > tolerance
        if not bool(going.any()):
            break
        if float(going.double().mean()) < 0.7:  # those that have arrived cost no further steps
            x[:, rows] = here.x
            rows, part, damping, here, step = (
                rows[going], part.rows(going), damping[going], here.rows(going), step[:, going]
            )  # fmt: skip
        new = part.at(here.x + step)
        better = new.gap <= here.gap
        damping = torch.where(better, 0.2 * damping, 5 * damping).clamp(1e-6, 1e8)
        here = here.where(better, new)
    x[:, rows] = here.x
    end = target.at(x)
    return FittedFamily(family.law(x, m, s), end.t, end.gap)


@dataclass(frozen=True)
class _Target:
    """What q is fitted to, and the bounds of x."""

    family: Family
    F: torch.Tensor
    log_weight: torch.Tensor
    log_measure: torch.Tensor
    m: torch.Tensor
    s: torch.Tensor

    @property
    def lowest(self):
        return self.family.lowest(self.m, self.s)

    def rows(self, keep):
        cut = (x[..., keep] for x in (self.F, self.log_weight, self.log_measure, self.m, self.s))
        return _Target(self.family, *cut)

    def at(self, x):
        """KL(q ‖ p) at x, within the bounds, with its downward slope and the Fisher matrix."""
        x = torch.stack([x[0].maximum(self.lowest), x[1].clamp(-5.0, 5.0)])
        t, dt = self.family.kernel(self.F, x, self.m, self.s)
        log_q = (t + self.log_measure).log_softmax(0)
        q, miss = log_q.exp(), self.log_weight - log_q
        dt = dt - (q * dt).sum(1, keepdim=True)
        fisher = torch.stack([(q * dt[i] * dt[j]).sum(0) for i, j in ((0, 0), (0, 1), (1, 1))])
        return _Point(x, t, -(q * miss).sum(0), (q * dt * miss).sum(1), fisher)


@dataclass(frozen=True)
class _Point:
    """x (2, hkl), t (node, hkl), KL(q ‖ p) (hkl,), its downward slope (2, hkl), Fisher matrix (3, hkl)."""

    x: torch.Tensor
    t: torch.Tensor
    gap: torch.Tensor
    slope: torch.Tensor
    fisher: torch.Tensor

    def step(self, damping, lowest):
        """(G + λ diag G)⁻¹ slope, (2, hkl); x₀ stays at its least where the slope would lower it."""
        a, b, c = self.fisher
        a, c = a * (1 + damping) + 1e-12, c * (1 + damping) + 1e-12
        det = (a * c - b * b).clamp(min=1e-300)
        u, v = self.slope
        held = (self.x[0] <= lowest) & (u < 0)
        first = torch.where(held, torch.zeros_like(u), (c * u - b * v) / det)
        return torch.stack([first, torch.where(held, v / c, (a * v - b * u) / det)])

    def rows(self, keep):
        return _Point(*(getattr(self, f.name)[..., keep] for f in fields(self)))

    def where(self, better, new):
        """The better of two points, reflection by reflection."""
        return _Point(
            *(torch.where(better, getattr(new, f.name), getattr(self, f.name)) for f in fields(self))
        )
