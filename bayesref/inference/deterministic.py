"""Deterministic fit: nothing random in the objective, second-order steps, a convergence test that means something.

    1. rounds: E-step; L-BFGS in the scale on the surrogate; L-BFGS in the error model on the exact likelihood;
       now and then the curvature, which preconditions the next rounds and re-estimates the prior sds of the scale
       (related datasets independent; `inference.tree` ties them at the end of the rounds)
    2. polish: L-BFGS in everything on the exact likelihood, in coordinates u, z = z₀ + L u, L Lᵀ = H⁻¹
    3. posterior: Normal(m, H⁻¹); its ELBO from a few fixed draws, for which the amplitudes add no noise

In the coordinates u the objective is close to ½|u|², so that L-BFGS takes few steps, and ½|∂/∂u|² is what a Newton
step would still gain, in log units: the fit has converged when that is below `tolerance`. Fixed draws after
Giordano et al. (2024), J. Mach. Learn. Res. 25, 18 (DADVI); Newton decrement: Boyd & Vandenberghe, section 9.5.
"""

import math
from dataclasses import replace

import torch

from bayesref.guides.latents import Latents
from bayesref.inference import distributed
from bayesref.inference.checkpoint import Checkpoint
from bayesref.inference.curvature import inverse_root, log_det, precision, scale_sites
from bayesref.inference.fit_state import FitState, Identity
from bayesref.inference.posterior import Posterior
from bayesref.inference.tree import collapse


def fit_deterministic(
    model, obs, args, *, rounds=30, polish=8, tolerance=0.5, n_draws=4, seed=0, report=lambda row: None,
    checkpoint: Checkpoint | None = None,
) -> Posterior:  # fmt: skip
    """Maximise the collapsed posterior and give it a Gaussian shape; see the module's text.

    Parameters
    ----------
    model, obs, args : Pyro model, called as `model(obs, *args)`
    rounds : at most so many rounds before the polish
    polish : at most so many polishing runs
    tolerance : log units that a further Newton step may still promise
    n_draws : fixed draws of the ELBO
    report : called with each row of the history
    checkpoint : where to save the fit as it goes, and what to resume
    """
    latents = Latents(model, (obs, *args))
    z = distributed.from_first(lambda: latents.initial(args))
    collapsed = collapse(model, obs, args, latents, tied=False)
    if not latents.n:
        value = collapsed.refresh(z)
        return Posterior(
            model, obs, args, latents, z, z.new_zeros(0, 0), value, value, 0.0, reason="nothing to fit"
        )
    s = FitState(collapsed, z, scale_sites(collapsed, z), report, checkpoint)
    converged = False
    try:
        s.open()
        _rounds(s, rounds)
        _tie(s)
        converged, gain = _polish(s, polish, tolerance)
        reason = f"a Newton step would gain {gain:.2g} log units" + ("" if converged else ", more than asked")
        s.do(lambda: collapsed.refresh(s.z, warm=True))
        s.journal.flush()
    except distributed.ProcessLost:
        s.journal.flush()
        raise
    except KeyboardInterrupt as e:
        s.journal.flush()
        # With several processes, each was interrupted elsewhere; a kind of interrupt of its own means to end at once.
        if distributed.size() > 1 or type(e) is not KeyboardInterrupt:
            raise
        reason, s.whole = "interrupted; this is the best so far", None
        collapsed.refresh(s.z, warm=True)
    root = inverse_root(precision(collapsed, s.z, s.names)) if s.whole is None else s.whole
    log_joint, _ = collapsed.exact(s.z)
    posterior = Posterior(
        model, obs, args, latents, s.z, root, log_joint, history=s.history, reason=reason, converged=converged
    )
    return with_elbo(posterior, n_draws, seed)


def _rounds(s: FitState, rounds: int) -> None:
    """Alternate scale, error model and prior sds until a round gains less than a log unit per thousand spots.

    The polish does better from there: it moves scale and error model together.
    """
    last, n = -float("inf"), s.n_spot
    eye = Identity(len(s.rest))
    for k in range(rounds):
        value = s.refresh(last, warm=k > 1)
        if k > 4 and value - last < 1e-3 * n:
            break
        last = value
        if len(s.rest):
            s.minimize(s.fixed_scale(), s.rest, eye, 4)
        if k in (1, 3) or (k > 4 and k % 3 == 0):
            s.adapt()
        if len(s.mine):
            s.minimize(s.collapsed.surrogate, s.mine, s.root, 12)


def _tie(s: FitState, rounds: int = 2) -> None:
    """Related datasets, independent so far, become so: what ties them first, then all else from there."""
    if not hasattr(s.collapsed, "tie"):
        return
    s.collapsed.tie()
    for _ in range(rounds):
        s.refresh(float("nan"), warm=False)
        if len(s.rest):
            s.minimize(s.fixed_scale(), s.rest, Identity(len(s.rest)), 10)
        s.adapt()


def _polish(s: FitState, runs: int, tolerance: float) -> tuple[bool, float]:
    """L-BFGS in all latents on the exact likelihood, until the Newton decrement is small.

    Returns whether it is, and the decrement; leaves the root of the posterior covariance in the state.
    """
    every = torch.arange(len(s.z))
    gain = float("inf")
    linear = all(getattr(a, "linear", True) for a in s.collapsed.args)
    for k in range(runs):
        # The curvature moves with the optimum; it need not be taken again for the last few log units,
        # except of a scale that is not linear, whose Jacobian moves with it.
        s.look(curvature=k == 0 or gain > 100 or not linear, warm=k > 0)
        gain = s.minimize(s.collapsed.exact, every, s.whole, 12, phase="polish")
        if gain < tolerance:
            break
    if not linear:
        s.look(curvature=True, warm=True)
    return gain < tolerance, gain


def with_elbo(posterior: Posterior, n_draws: int, seed: int) -> Posterior:
    """E_q[log p(I, z)] + entropy from antithetic fixed draws, whose spread gives the error."""
    lin = posterior.linearized()
    collapsed = collapse(lin.model, lin.obs, lin.args, lin.latents)
    collapsed.refresh(posterior.mean)
    draws = posterior.draw(max(1, n_draws // 2), seed)
    pairs = [0.5 * (collapsed.value(z) + collapsed.value(2 * posterior.mean - z)) for z in draws]
    value = torch.tensor(pairs, dtype=torch.float64)
    entropy = 0.5 * len(posterior.mean) * (1 + math.log(2 * math.pi)) + log_det(posterior.root)
    error = float(value.std() / len(value) ** 0.5) if len(value) > 1 else float("nan")
    return replace(posterior, elbo=float(value.mean()) + entropy, elbo_error=error)
