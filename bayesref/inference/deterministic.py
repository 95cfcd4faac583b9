"""Deterministic fit: nothing random in the objective, second-order steps, a convergence test that means something.

    1. rounds: E-step; L-BFGS in the scale on the surrogate; L-BFGS in the error model on the exact likelihood;
       now and then the curvature, which preconditions the next rounds and re-estimates the prior sds of the scale
    2. polish: L-BFGS in everything on the exact likelihood, in coordinates u, z = z₀ + L u, L Lᵀ = H⁻¹
    3. posterior: Normal(m, H⁻¹); its ELBO from a few fixed draws, for which the amplitudes add no noise

In the coordinates u the objective is close to ½|u|², so that L-BFGS takes few steps, and ½|∂/∂u|² is what a Newton
step would still gain, in log units: the fit has converged when that is below `tolerance`. Fixed draws after
Giordano et al. (2024), J. Mach. Learn. Res. 25, 18 (DADVI); Newton decrement: Boyd & Vandenberghe, section 9.5.
"""

import math
import time
from dataclasses import dataclass, replace

import torch
from scipy.optimize import minimize

from bayesref.guides.latents import Latents
from bayesref.inference.collapsed import Collapsed
from bayesref.inference.curvature import inverse_root, log_det, precision, scale_sites
from bayesref.inference.evidence import adapt_scales
from bayesref.inference.posterior import Posterior


@dataclass(frozen=True)
class Identity:
    """No preconditioner, of size n."""

    n: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.n, self.n

    @property
    def T(self) -> "Identity":
        return self

    def __matmul__(self, x):
        return x


class _State:
    """Where a fit stands: z, the preconditioner of the scale, and the record of steps."""

    def __init__(self, collapsed, z, names, report):
        self.collapsed, self.z, self.names, self.report = collapsed, z, names, report
        self.mine = collapsed.latents.columns(names)
        is_rest = torch.ones(len(z), dtype=torch.bool)
        is_rest[self.mine] = False
        self.rest = is_rest.nonzero()[:, 0]
        self.root = Identity(len(self.mine))
        self.history, self.evaluations, self.start = [], 0, time.monotonic()

    def log(self, phase, value, gain=float("nan")):
        row = {
            "step": len(self.history), "phase": phase, "elbo": value, "gain": gain,
            "evaluations": self.evaluations, "seconds": time.monotonic() - self.start,
        }  # fmt: skip
        self.history.append(row)
        self.report(row)

    def minimize(self, objective, rows, root, steps):
        """L-BFGS on -objective in the coordinates u of z[rows] += root u.

        Returns the value and ½|gradient in u|² at its start.
        """
        base = self.z.clone()
        first: list[tuple[float, float]] = []

        def f(u):
            z = base.clone()
            z[rows] += root @ torch.from_numpy(u)
            value, grad = objective(z)
            self.evaluations += 1
            grad_u = -(root.T @ grad[rows])
            if not first:
                if not torch.isfinite(grad_u).all() or value != value:
                    raise FloatingPointError(self._not_finite(grad))
                first.append((value, 0.5 * float(grad_u @ grad_u)))
            return -value, grad_u.numpy()

        zero = torch.zeros(root.shape[1], dtype=self.z.dtype).numpy()
        options = {"maxiter": steps, "maxfun": 2 * steps, "maxcor": 30, "ftol": 1e-10, "gtol": 1e-3}
        result = minimize(f, zero, jac=True, method="L-BFGS-B", options=options)
        self.z = base.clone()
        self.z[rows] += root @ torch.from_numpy(result.x)
        return first[0]

    def fixed_scale(self):
        """The exact objective with the sites of the scale held where they are."""
        values = self.collapsed.latents.unpack(self.z)
        fixed = {k: values[k] for k in self.names}
        return lambda z: self.collapsed.exact(z, fixed)

    def _not_finite(self, grad):
        bad = [k for k, s in self.collapsed.latents.sites.items() if not torch.isfinite(grad[s.where]).all()]
        return f"The likelihood is not finite; the gradient fails at the site {', '.join(bad) or 'I'}."


def fit_deterministic(
    model, obs, args, *, rounds=30, polish=8, tolerance=0.5, n_draws=4, seed=0, report=lambda row: None
) -> Posterior:
    """Maximise the collapsed posterior and give it a Gaussian shape; see the module's text.

    Parameters
    ----------
    model, obs, args : Pyro model, called as `model(obs, *args)`
    rounds : at most so many rounds before the polish
    polish : at most so many polishing runs
    tolerance : log units that a further Newton step may still promise
    n_draws : fixed draws of the ELBO
    report : called with each row of the history
    """
    latents = Latents(model, (obs, *args))
    z = latents.initial(args)
    collapsed = Collapsed(model, obs, args, latents)
    if not latents.n:
        value = collapsed.refresh(z)
        return Posterior(
            model, obs, args, latents, z, z.new_zeros(0, 0), value, value, 0.0, reason="nothing to fit"
        )
    s = _State(collapsed, z, scale_sites(collapsed, z), report)
    converged, root = False, None
    try:
        _rounds(s, rounds)
        converged, gain, root = _polish(s, polish, tolerance)
        reason = f"a Newton step would gain {gain:.2g} log units" + ("" if converged else ", more than asked")
    except KeyboardInterrupt:
        reason = "interrupted; this is the best so far"
    collapsed.refresh(s.z, warm=True)
    if root is None:
        root = inverse_root(precision(collapsed, s.z, s.names))
    log_joint, _ = collapsed.exact(s.z)
    posterior = Posterior(
        model, obs, args, latents, s.z, root, log_joint, history=s.history, reason=reason, converged=converged
    )
    return with_elbo(posterior, n_draws, seed)


def _rounds(s: _State, rounds: int) -> float:
    """Alternate scale, error model and prior sds until a round gains less than a log unit per thousand spots.

    The polish does better from there: it moves scale and error model together.
    """
    last, n = -float("inf"), sum(len(p) for p in s.collapsed.pieces)
    eye = Identity(len(s.rest))
    for k in range(rounds):
        value = s.collapsed.refresh(s.z, warm=k > 1)
        s.log("round", value, value - last)
        if k > 4 and value - last < 1e-3 * n:
            break
        last = value
        if len(s.rest):
            s.minimize(s.fixed_scale(), s.rest, eye, 4)
        if k in (1, 3) or (k > 4 and k % 3 == 0):
            s.z, s.root = adapt_scales(s.collapsed, s.z, s.names)
        if len(s.mine):
            s.minimize(s.collapsed.surrogate, s.mine, s.root, 12)
    return value - last


def _polish(s: _State, runs: int, tolerance: float):
    """L-BFGS in all latents on the exact likelihood, until the Newton decrement is small.

    Returns whether it is, the decrement, and the root of the posterior covariance.
    """
    every = torch.arange(len(s.z))
    gain, root = float("inf"), None
    linear = all(getattr(a, "linear", True) for a in s.collapsed.args)
    for _ in range(runs):
        s.collapsed.refresh(s.z, warm=root is not None)
        # The curvature moves with the optimum; it need not be taken again for the last few log units,
        # except of a scale that is not linear, whose Jacobian moves with it.
        if root is None or gain > 100 or not linear:
            root = inverse_root(precision(s.collapsed, s.z, s.names))
        value, gain = s.minimize(s.collapsed.exact, every, root, 12)
        s.log("polish", value, gain)
        if gain < tolerance:
            break
    if not linear:
        s.collapsed.refresh(s.z, warm=True)
        root = inverse_root(precision(s.collapsed, s.z, s.names))
    return gain < tolerance, gain, root


def with_elbo(posterior: Posterior, n_draws: int, seed: int) -> Posterior:
    """E_q[log p(I, z)] + entropy from antithetic fixed draws, whose spread gives the error."""
    lin = posterior.linearized()
    collapsed = Collapsed(lin.model, lin.obs, lin.args, lin.latents)
    collapsed.refresh(posterior.mean)
    draws = posterior.draw(max(1, n_draws // 2), seed)
    pairs = [0.5 * (collapsed.value(z) + collapsed.value(2 * posterior.mean - z)) for z in draws]
    value = torch.tensor(pairs, dtype=torch.float64)
    entropy = 0.5 * len(posterior.mean) * (1 + math.log(2 * math.pi)) + log_det(posterior.root)
    error = float(value.std() / len(value) ** 0.5) if len(value) > 1 else float("nan")
    return replace(posterior, elbo=float(value.mean()) + entropy, elbo_error=error)
