"""Σ(s) = ⟨I/ε⟩ as a smooth function of resolution, from noisy merged intensities.

    log Σ(s) = Σ_m β_m B_m(s) [+ quadratic form in the vector s]     cubic B-splines, uniform in s = 1/(2d)
    log p(I | β) = Σ_h log Z_h(a_h, b_h, Σ(s_h)) + const,  a = 1/SIGI², b = I/SIGI²       I_h = F_h² + noise
    log p(β) = -½ λ ‖Pβ‖² - ½ ρ ‖D¹β‖²,  Pβ = D²β less its mean

Z is that of the amplitude posterior under Wilson's prior, so weak and negative intensities count for what
they are. The penalty leaves a parabola in s free, hence the Wilson plot log Σ = log k - 2Bs². λ is set by the
data with the fixed point of Wood & Fasiolo (2017), Biometrics 73, 1071:

    λ ← [rank P - λ tr(H⁻¹ PᵀP)] / ‖Pβ‖²,       H = -∂² log p(I, β)/∂β²
"""

import torch

from bayesref._checks import InputError, check_finite, check_positive, check_shape
from bayesref.distributions.amplitude_posterior import AmplitudePosterior
from bayesref.distributions.wilson import Wilson

_RIDGE = 1.0  # ρ: over one interval Σ changes by a factor of e or less; matters where data are few or weak
_STEPS = 40
_OUTLIER = (
    1e-6  # probability of E² under Wilson below which an intensity is put aside; Read (1999), D55, 1759
)


def _splines(x, n_interval):
    """Cubic B-splines on n_interval equal intervals of [0, 1]: (hkl,) -> (hkl, n_interval + 3)."""
    x = (x * n_interval).clamp(0, n_interval * (1 - 1e-12))
    first = x.floor().long()
    u = x - first
    weights = torch.stack([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], 1)
    basis = x.new_zeros(len(x), n_interval + 3)
    return basis.scatter(1, first[:, None] + torch.arange(4, device=x.device), weights / 6)


def _traceless(s):
    """The five quadratic forms of a scattering vector (hkl, xyz) that vanish on average: (hkl, 5)."""
    s = s / s.norm(dim=1).max()
    x, y, z = s.unbind(1)
    return torch.stack([x * x - z * z, y * y - z * z, 2 * x * y, 2 * x * z, 2 * y * z], 1)


def _slope_curvature(eta, a, b, epsilon, centric):
    """First and second derivative of each log Z in η = log Σ, (hkl,) each."""
    eta = eta.detach().requires_grad_()
    with torch.enable_grad():
        prior = Wilson(epsilon, centric, eta.exp(), validate_args=False)
        log_Z = AmplitudePosterior(prior, a, b, validate_args=False).log_normalizer
        (slope,) = torch.autograd.grad(log_Z.sum(), eta, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), eta)
    return slope.detach(), curvature


def _fit(basis, smooth, ridge, start, data):
    """β of the maximum of log p(I, β), with λ updated on the way."""
    beta, lam = start, torch.ones_like(start[0])
    rank = torch.linalg.matrix_rank(smooth)
    for _ in range(_STEPS):
        slope, curvature = _slope_curvature(basis @ beta, *data)
        penalty = lam * smooth + ridge
        H = basis.T @ (basis * (-curvature).clamp(min=0)[:, None]) + penalty
        step = torch.linalg.solve(H, basis.T @ slope - penalty @ beta)
        step = step * (2.0 / (basis @ step).abs().max().clamp(min=2.0))  # at most a factor e² per step
        beta = beta + step
        edf = rank - lam * torch.trace(torch.linalg.solve(H, smooth))
        lam = (edf.clamp(min=1e-3) / (beta @ smooth @ beta).clamp(min=1e-9)).clamp(1e-3, 1e6)
        if float((basis @ step).abs().max()) < 1e-4:
            break
    return beta


def wilson_sigma(I, SIGI, stol2, epsilon, centric, n_interval=24, s=None):
    """Σ = ⟨I/ε⟩ of each reflection, smooth in resolution.

    Parameters
    ----------
    I, SIGI : (hkl,), merged intensities of any sign, and their standard deviations
    stol2 : (hkl,), s² = 1/(4d²) in Å⁻²
    epsilon : (hkl,), multiplicity
    centric : (hkl,) bool
    n_interval : intervals of the spline; the penalty, not this number, sets how smooth Σ is
    s : (hkl, xyz), scattering vectors in Å⁻¹, Cartesian; given them, Σ may depend on direction too

    Returns
    -------
    Sigma : (hkl,), in units of I

    Raises
    ------
    InputError : shapes that differ, values that are not finite, SIGI or epsilon not above zero, no intensity
    """
    scale = _check(I, SIGI, stol2, epsilon, centric, s)
    I, SIGI = I / scale, SIGI / scale
    basis, smooth, ridge = _design(stol2, n_interval, s)
    beta, used = torch.zeros_like(basis[0]), torch.ones_like(centric)
    for _ in range(3):
        data = ((1 / SIGI**2)[used], (I / SIGI**2)[used], epsilon[used], centric[used])
        beta = _fit(basis[used], smooth, ridge, beta, data)
        Sigma = (basis @ beta).exp()
        E2 = (I - 3 * SIGI).clamp(min=0) / (epsilon * Sigma)  # 3: noise alone does not make an outlier
        tail = torch.where(centric, torch.erfc((0.5 * E2).sqrt()), torch.exp(-E2))
        before, used = used, tail > _OUTLIER
        if bool((used == before).all()):
            break
    return Sigma * scale


def _check(I, SIGI, stol2, epsilon, centric, s):
    """Raise `InputError` on bad columns; returns the mean of |I|/ε."""
    n = len(I)
    for name, x in {"I": I, "SIGI": SIGI, "stol2": stol2, "epsilon": epsilon, "centric": centric}.items():
        check_shape(name, x, (n,))
        check_finite(name, x)
    for name, x in {"SIGI": SIGI, "stol2": stol2, "epsilon": epsilon}.items():
        check_positive(name, x)
    if s is not None:
        check_shape("s", s, (n, 3))
        check_finite("s", s)
    scale = (I / epsilon).abs().mean() if n else 0
    if not scale > 0:
        raise InputError(
            f"No intensity to take a mean of: {n} reflections, all zero. Check columns I and SIGI."
        )
    return scale


def _design(stol2, n_interval, s):
    """Basis (hkl, m), and the matrices (m, m) of the two penalties."""
    length = stol2.sqrt()
    low, span = length.min(), (length.max() - length.min()).clamp(min=1e-6)
    basis = _splines((length - low) / span, n_interval)
    identity = torch.eye(basis.shape[1], dtype=basis.dtype, device=basis.device)
    D1, P = identity.diff(dim=0), identity.diff(n=2, dim=0)
    P = P - P.mean(0)
    smooth, ridge = P.T @ P, _RIDGE * D1.T @ D1
    if s is not None:
        basis = torch.cat([basis, _traceless(s)], 1)
        smooth = torch.nn.functional.pad(smooth, (0, 5, 0, 5))
        ridge = torch.block_diag(ridge, _RIDGE * identity[:5, :5])
    # with nothing but noise the level itself is undetermined
    return basis, smooth, ridge + 1e-4 * torch.eye(len(ridge), dtype=basis.dtype, device=basis.device)
