"""A handful of parameters: the best of several starts, the Gaussian about it, and how good that is.

    z* = argmax log p(y, z),   q(z) = Normal(z*, H⁻¹),   H = -∂² log p(y, z*)/∂z²       z unconstrained
    w_s = p(y, z_s)/q(z_s), smoothed by a generalised Pareto tail: its shape k̂ says whether q will do (below 0.7)
    log p(y) ≈ log p(y, z*) + n/2 log 2π - ½ log |H|

Draws are resampled with these weights, tempered where k̂ forbids it. Starts that end apart are reported, since
posteriors of rates have several modes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyro
import scipy.optimize
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.infer.mcmc.util import initialize_model

from bayesref.guides.latents import unchecked

STEP = 1e-3  # of differences of the gradient
DF = 40.0  # of the t: tails a little wider than a Gaussian's, no more, for there are tens of parameters
NEAR = 2.0  # log units: two starts that end closer found the same optimum
MIXED = 1.1  # split r-hat of one chain
TAIL = 0.7  # k̂ above which importance weights cannot be trusted


@dataclass(frozen=True)
class Mode:
    """An optimum: z, log p(y, z), its Gaussian's covariance root, and the log evidence it accounts for."""

    z: torch.Tensor
    log_joint: float
    root: torch.Tensor
    log_evidence: float


@dataclass(frozen=True, eq=False)
class SmallPosterior:
    """Draws of a model of few parameters.

    Attributes
    ----------
    sites : {site: (draw, ...)}, deterministic ones too
    log_likelihood : (draw, observation) of the observed site
    log_evidence : log p(y), Laplace's approximation over all modes found
    k_hat : of the importance weights; NaN where none were made
    modes : the optima found, best first
    z : (draw, latent), unconstrained
    names : of the elements of z
    notes : what the user should know
    """

    sites: dict[str, torch.Tensor]
    log_likelihood: torch.Tensor
    log_evidence: float
    k_hat: float
    modes: list[Mode]
    z: torch.Tensor
    notes: list[str] = field(default_factory=list)


class _Problem:
    """A Pyro model as a function of one unconstrained vector."""

    def __init__(self, model, args, observed, seed):
        self.model, self.args, self.observed = model, args, observed
        with unchecked():
            pyro.set_rng_seed(seed)
            start, self.potential, self.transforms, _ = initialize_model(model, args)
        self.shapes = {k: v.shape for k, v in start.items()}
        self.start = self.pack(start)

    def pack(self, values):
        return torch.cat([values[k].reshape(-1).double() for k in self.shapes])

    def unpack(self, z):
        out, i = {}, 0
        for k, shape in self.shapes.items():
            n = math.prod(shape)
            out[k] = z[i : i + n].reshape(shape)
            i += n
        return out

    def draw_start(self, seed):
        """A draw of the prior."""
        with unchecked(), torch.no_grad():
            pyro.set_rng_seed(seed)
            trace = poutine.trace(self.model).get_trace(*self.args)
        return self.pack({k: self.transforms[k](trace.nodes[k]["value"]) for k in self.shapes})

    def value_and_grad(self, z):
        z = z.detach().requires_grad_()
        with unchecked():
            value = -self.potential(self.unpack(z))
        (grad,) = torch.autograd.grad(value, z)
        return float(value.detach()), grad

    def value(self, z):
        with torch.no_grad(), unchecked():
            return float(-self.potential(self.unpack(z)))

    def trace(self, z):
        values = {k: self.transforms[k].inv(v) for k, v in self.unpack(z).items()}
        with unchecked(), torch.no_grad():
            return poutine.trace(poutine.condition(self.model, data=values)).get_trace(*self.args)


def fit_small(
    model, args, *, observed: str = "F_obs", n_starts: int = 6, n_draws: int = 400, method: str = "laplace",
    seed: int = 0, report: Callable = lambda text: None,
) -> SmallPosterior:  # fmt: skip
    """Posterior of a model whose latent sites are few.

    Parameters
    ----------
    model, args : Pyro model without amplitudes to integrate; `observed` names its observed site
    n_starts : optimisations, the first from the middle of the prior, the others from draws of it
    method : "laplace" (with importance weights), or "nuts"
    """
    problem = _Problem(model, args, observed, seed)
    modes = _modes(problem, n_starts, seed, report)
    k_hat = float("nan")
    if method == "nuts":
        z, notes = _nuts(problem, modes[0], n_draws, seed, report)
    else:
        z, k_hat, notes = _importance(problem, modes, n_draws, seed)
    if len(modes) > 1 and modes[1].log_evidence > modes[0].log_evidence - 5:
        share = math.exp(modes[1].log_evidence - np.logaddexp.reduce([m.log_evidence for m in modes]))
        notes.append(
            f"there is more than one mode: {len(modes)} were found, the second holds {100 * share:.0f} %"
        )
    traces = [problem.trace(x) for x in z]
    names = [k for k, s in traces[0].nodes.items() if k in problem.shapes or _deterministic(s)]
    sites = {k: torch.stack([t.nodes[k]["value"].detach() for t in traces]) for k in names}
    log_likelihood = torch.stack([
        t.nodes[observed]["fn"].log_prob(t.nodes[observed]["value"]).detach() for t in traces
    ])  # fmt: skip
    evidence = float(np.logaddexp.reduce([m.log_evidence for m in modes]))
    return SmallPosterior(sites, log_likelihood, evidence, k_hat, modes, z, notes)


def _deterministic(site):
    """Whether a site was made by `pyro.deterministic`."""
    return site["type"] == "sample" and site["infer"].get("_deterministic", False)


def _modes(problem, n_starts, seed, report) -> list[Mode]:
    found: list[Mode] = []
    for i in range(n_starts):
        z0 = problem.start if i == 0 else problem.draw_start(seed + i)
        result = scipy.optimize.minimize(
            lambda x: tuple(-np.asarray(v) for v in _numpy(problem, x)), z0.numpy(), jac=True, method="L-BFGS-B",
            options={"maxiter": 300, "maxcor": 20, "ftol": 1e-11, "gtol": 1e-4},
            bounds=scipy.optimize.Bounds(z0.numpy() - 30, z0.numpy() + 30),
        )  # fmt: skip
        z, value = torch.from_numpy(result.x), -float(result.fun)
        report(f"start {i + 1} of {n_starts}: log p(data, parameters) = {value:,.1f}")
        if not np.isfinite(value) or any(abs(value - m.log_joint) < NEAR and _close(z, m) for m in found):
            continue
        z, value, root, values = _polished(problem, z, value)
        evidence = value + 0.5 * len(z) * math.log(2 * math.pi) - 0.5 * float(values.log().sum())
        found.append(Mode(z, value, root, evidence))
    if not found:
        raise FloatingPointError("No start ended at a finite probability; check the data and the priors.")
    return sorted(found, key=lambda m: -m.log_evidence)


def _polished(problem, z, value):
    """The optimum to a hundredth of a standard deviation by Newton's steps; there, H^-½ and the eigenvalues of H.

    L-BFGS ends where the probability hardly changes, which in tens of parameters may be half a deviation away.
    """
    for _ in range(3):
        values, vectors = torch.linalg.eigh(_hessian(problem, z))
        values = values.clamp(min=1e-4)  # flat directions: a spread of a hundred, cut by the weights
        root, largest = vectors / values.sqrt(), 0.0
        for _ in range(4):
            u = root.T @ problem.value_and_grad(z)[1]
            new = problem.value(z + root @ u)
            if not new >= value:
                break
            z, value = z + root @ u, new
            largest = max(largest, float(u.norm()))
            if float(u.norm()) < 0.01:
                break
        if largest < 0.5:
            break
    return z, value, root, values


def _numpy(problem, x):
    value, grad = problem.value_and_grad(torch.from_numpy(x))
    if not np.isfinite(value):
        return -1e30, np.zeros_like(x)
    return value, grad.numpy()


def _close(z, mode):
    """Within a few standard deviations of a mode."""
    u = torch.linalg.lstsq(mode.root, (z - mode.z)[:, None]).solution
    return float(u.norm()) < 3 + 0.5 * len(z) ** 0.5


def _hessian(problem, z):
    rows = []
    for i in range(len(z)):
        e = torch.zeros_like(z)
        e[i] = STEP
        rows.append((problem.value_and_grad(z - e)[1] - problem.value_and_grad(z + e)[1]) / (2 * STEP))
    H = torch.stack(rows)
    return 0.5 * (H + H.T)


def _importance(problem, modes, n_draws, seed):
    """Draws of the mixture of t distributions about the modes, resampled with smoothed weights."""
    g = np.random.default_rng(seed)
    share = np.array([m.log_evidence for m in modes])
    share = np.exp(share - share.max())
    share = np.maximum(share / share.sum(), 0.02)
    share /= share.sum()
    size = 2 * n_draws
    which = g.choice(len(modes), size=size, p=share)
    n = len(modes[0].z)
    chi = np.sqrt(DF / g.chisquare(DF, size))
    e = torch.from_numpy(g.standard_normal((size, n)) * chi[:, None])
    z = torch.stack([modes[m].z + modes[m].root @ x for m, x in zip(which, e, strict=True)])
    log_q = torch.logsumexp(
        torch.stack([_log_t(z, m) + math.log(s) for m, s in zip(modes, share, strict=True)]), 0
    )
    log_p = torch.tensor([problem.value(x) for x in z], dtype=torch.float64)
    log_w, k_hat = pareto_smoothed((log_p - log_q).numpy())
    notes = []
    if k_hat > TAIL:  # a few draws would stand for all: temper the weights until a sixth of them count
        note = f"the Gaussian is a rough stand-in (k-hat {k_hat:.2f}, {TAIL} allowed); --method nuts is exact"
        log_w, notes = _tempered(log_w, size / 6), [note]
    weight = np.exp(log_w - np.logaddexp.reduce(log_w))
    rows = g.choice(size, size=n_draws, p=weight / weight.sum())
    return z[torch.from_numpy(rows)], k_hat, notes


def _tempered(log_w: np.ndarray, effective: float) -> np.ndarray:
    """β log w with the largest β ≤ 1 that leaves so many effective draws, (Σ w^β)²/Σ w^2β."""
    low, high = 0.0, 1.0
    for _ in range(40):
        beta = 0.5 * (low + high)
        w = np.exp(beta * (log_w - log_w.max()))
        low, high = (beta, high) if w.sum() ** 2 / (w**2).sum() > effective else (low, beta)
    return low * log_w


def _log_t(z, mode, df=DF):
    n = len(mode.z)
    u = torch.linalg.solve(mode.root, (z - mode.z).T)
    constant = math.lgamma((df + n) / 2) - math.lgamma(df / 2) - 0.5 * n * math.log(df * math.pi)
    log_det = float(torch.linalg.slogdet(mode.root).logabsdet)
    return constant - log_det - 0.5 * (df + n) * torch.log1p((u**2).sum(0) / df)


def pareto_smoothed(log_w: np.ndarray) -> tuple[np.ndarray, float]:
    """Importance weights with the largest replaced by quantiles of a fitted Pareto tail, and its shape k̂."""
    from arviz.stats import psislw

    smoothed, k = psislw(np.asarray(log_w, dtype=float).copy())
    return np.asarray(smoothed), float(k)


def _nuts(problem, mode, n_draws, seed, report):
    """Draws by NUTS in the coordinates u of z = z* + root u, in which the posterior is nearly standard normal."""
    pyro.set_rng_seed(seed)
    report("drawing by NUTS")

    def potential(params):
        return problem.potential(problem.unpack(mode.z + mode.root @ params["u"]))

    start = {"u": torch.zeros(len(mode.z), dtype=torch.float64)}
    with unchecked():
        kernel = NUTS(potential_fn=potential, full_mass=False, max_tree_depth=6)
        mcmc = MCMC(kernel, n_draws, max(100, n_draws // 4), initial_params=start, disable_progbar=True)
        mcmc.run()
    u = mcmc.get_samples()["u"]
    # Two halves of the chain against each other: Gelman & Rubin's ratio for one chain.
    halves = torch.stack([u[: n_draws // 2], u[n_draws // 2 : 2 * (n_draws // 2)]])
    between, within = halves.mean(1).var(0), halves.var(1).mean(0)
    r_hat = float((1 + between / within).sqrt().max())
    notes = (
        [] if r_hat < MIXED else [f"NUTS has not mixed well (split r-hat {r_hat:.2f}); ask for more draws"]
    )
    return mode.z + u @ mode.root.T, notes
