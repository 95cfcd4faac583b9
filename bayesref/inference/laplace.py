"""A handful of parameters: the best of several starts, the Gaussian about it, and how good that is.

    y* = argmax log p(data, y),   q(y) = Normal(y* + H⁻¹ g, H⁻¹) within bounds,   g, H: slopes and curvature at y*
    w_s = p(data, y_s)/q(y_s), smoothed by a generalised Pareto tail: its shape k̂ says whether q will do (below 0.7)
    log p(data) ≈ log p(data, y*) + ½ gᵀH⁻¹g + n/2 log 2π - ½ log |H| + log P(within bounds)

y: natural coordinates, see `small_problem`; g is zero unless y* lies at a bound. Of many numbers q is `SkewedGaussian`.
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
from pyro.infer import MCMC, NUTS

from bayesref.guides.latents import unchecked
from bayesref.inference.skewed_gaussian import SkewedGaussian
from bayesref.inference.small_problem import SmallProblem
from bayesref.inference.truncated_gaussian import TruncatedGaussian

STEP = 1e-3  # of differences of the gradient
WIDER = 1.1  # standard deviations of what draws come from, against those of the Gaussian
# Of more numbers the variance of log w, n/2 (wider² - 1)² from the width alone, and their skewness leave few draws.
MANY, WIDER_OF_MANY = 40, 1.05
PROPOSED, PROPOSED_OF_MANY = 2, 6  # for each draw that is asked for
CONVERGED = 0.02  # standard deviations
NEAR = 2.0  # log units: two starts that end closer found the same optimum
WARM_UP = 60  # draws of NUTS, which set its step
MIXED = 1.1  # split r-hat of one chain
TAIL = 0.7  # k̂ above which importance weights cannot be trusted


@dataclass(frozen=True)
class Mode:
    """An optimum: y, log p(data, y), the Gaussian's mean and covariance, and the log evidence it accounts for."""

    y: torch.Tensor
    log_joint: float
    mean: torch.Tensor
    covariance: torch.Tensor
    log_evidence: float


@dataclass(frozen=True, eq=False)
class SmallPosterior:
    """Draws of a model of few parameters.

    Attributes
    ----------
    sites : {site: (draw, ...)}, deterministic ones too
    log_likelihood : (draw, observation) of the observed site, or of several, one after the other
    log_evidence : log p(data), Laplace's approximation over all modes found
    k_hat : of the importance weights; NaN where none were made
    modes : the optima found, best first
    y : (draw, latent), natural coordinates
    log_prior : {site: (draw,)}
    replicates : (n, ...), draws of what might have been observed, one for each of the first draws; {site: (n, ...)}
        where several sites are observed
    notes : what the user should know
    """

    sites: dict[str, torch.Tensor]
    log_likelihood: torch.Tensor
    log_evidence: float
    k_hat: float
    modes: list[Mode]
    y: torch.Tensor
    log_prior: dict[str, torch.Tensor]
    replicates: torch.Tensor | dict[str, torch.Tensor] | None = None
    notes: list[str] = field(default_factory=list)


def fit_small(
    model, args, *, observed: str | tuple[str, ...] = "F_obs", n_starts: int = 6, n_draws: int = 400,
    method: str = "laplace", n_replicates: int = 0, seed: int = 0, report: Callable = lambda text: None,
) -> SmallPosterior:  # fmt: skip
    """Posterior of a model whose latent sites are few.

    Parameters
    ----------
    model, args : Pyro model without amplitudes to integrate; `observed` names its observed site, or sites
    n_starts : optimisations, the first from the middle of the prior, the others from draws of it
    method : "laplace" (with importance weights), or "nuts"
    n_replicates : how many replicates of the observations to draw
    """
    problem = SmallProblem(model, args, seed)
    modes = _modes(problem, n_starts, seed, report)
    k_hat = float("nan")
    if method == "nuts":
        y, notes = _nuts(problem, modes[0], n_draws, seed, report)
        kept = [problem.evaluate(x, observed) for x in y]
    else:
        y, kept, k_hat, notes = _importance(problem, modes, n_draws, observed, seed)
    if len(modes) > 1 and modes[1].log_evidence > modes[0].log_evidence - 5:
        share = math.exp(modes[1].log_evidence - np.logaddexp.reduce([m.log_evidence for m in modes]))
        notes.append(
            f"there is more than one mode: {len(modes)} were found, the second holds {100 * share:.0f} %"
        )
    replicates = None
    if n_replicates:
        with unchecked():
            pyro.set_rng_seed(seed + 1)
            drawn = [problem.replicate(x, observed) for x in y[:n_replicates]]
        replicates = (
            torch.stack(drawn)
            if isinstance(observed, str)
            else {k: torch.stack([d[k] for d in drawn]) for k in observed}
        )
    return SmallPosterior(
        {k: torch.stack([r[0][k] for r in kept]) for k in kept[0][0]},
        torch.stack([r[2] for r in kept]),
        float(np.logaddexp.reduce([m.log_evidence for m in modes])),
        k_hat,
        modes,
        y,
        {k: torch.stack([r[1][k] for r in kept]) for k in kept[0][1]},
        replicates,
        notes,
    )


def _modes(problem, n_starts, seed, report) -> list[Mode]:
    found: list[Mode] = []
    starts = problem.draws(24 + n_starts, seed)
    unit = starts.std(0).numpy()  # spreads of the prior, in which the search is better scaled
    for i in range(n_starts):
        z0 = starts.median(0).values if i == 0 else starts[i]
        result = scipy.optimize.minimize(
            lambda x: _negative(problem, x, unit), z0.numpy() / unit, jac=True, method="L-BFGS-B",
            options={"maxiter": 300, "maxcor": 20, "ftol": 1e-11, "gtol": 1e-4},
        )  # fmt: skip
        y, value = problem.natural(torch.from_numpy(result.x * unit)), -float(result.fun)
        report(f"start {i + 1} of {n_starts}: log p(data, parameters) = {value:,.1f}")
        if not np.isfinite(value) or any(_same(m, y, value) for m in found):
            continue
        mode = _gaussian(problem, y)
        if mode is not None and not any(_same(m, mode.y, mode.log_joint) for m in found):
            found.append(mode)
    if not found:
        raise FloatingPointError("No start ended at an optimum; check the data and the priors.")
    return sorted(found, key=lambda m: -m.log_evidence)


def _negative(problem, x, unit):
    value, grad = problem.value_and_grad(torch.from_numpy(x * unit), problem.natural)
    if not np.isfinite(value):
        return 1e30, np.zeros_like(x)
    return -value, -grad.numpy() * unit


def _same(mode, y, value):
    """Whether an optimum is that of a mode: as probable, and within a few standard deviations of it."""
    if abs(value - mode.log_joint) > NEAR:
        return False
    d = y - mode.y
    return float(d @ torch.linalg.solve(mode.covariance, d)) < (3 + 0.5 * len(y) ** 0.5) ** 2


def _newton(problem, y):
    """Newton's steps from near an optimum, short of what the curvature of saddles and bounds would allow.

    L-BFGS ends where the probability hardly changes, which in tens of parameters may be half a deviation away.

    Returns
    -------
    y, its value, slopes and curvature, and the norm of the step left, in standard deviations
    """
    y = problem.inside(y)
    value, g = problem.value_and_grad(y)
    left = math.inf
    for _ in range(8):
        H = _hessian(problem, y)
        free = problem.free(y, g)
        for _ in range(6):
            values, vectors = torch.linalg.eigh(H[free][:, free])
            u = (vectors.T @ g[free]) / values.abs().clamp(min=1e-4).sqrt()
            left = float(u.norm())
            step = torch.zeros_like(y)
            step[free] = vectors @ (u / values.abs().clamp(min=1e-4).sqrt()) * min(1.0, 5 / max(left, 1e-9))
            y, value, g, better = _along(problem, y, value, g, step)
            if not better or left < CONVERGED:
                break
        if left < CONVERGED or not better:
            break
    return y, value, g, H, left


def _along(problem, y, value, g, step):
    """The first of y + step, y + step/2, ... that is no worse."""
    for halving in range(6):
        new = problem.inside(y + step * 0.5**halving)
        if problem.value(new) >= value:
            return new, *problem.value_and_grad(new), True
    return y, value, g, False


def _gaussian(problem, y) -> Mode | None:
    """The Gaussian about the optimum near y; None where there is none."""
    y, value, g, H, left = _newton(problem, y)
    free = problem.free(y, g)
    lowest = float(torch.linalg.eigvalsh(H[free][:, free])[0]) if bool(free.any()) else 1.0
    if left > 1 or lowest < -1e-2:
        return None
    values, vectors = torch.linalg.eigh(H)
    root = vectors / values.clamp(min=1e-4).sqrt()  # flat directions: a spread of a hundred
    u, n = root.T @ g, len(y)
    covariance, mean = root @ root.T, y + root @ u
    cut = TruncatedGaussian(mean.numpy(), covariance.numpy(), problem.groups)
    log_mass = cut.sample(500, np.random.default_rng(0))[2]
    evidence = value + 0.5 * float(u @ u) + 0.5 * n * math.log(2 * math.pi) - math.log(500)
    evidence += float(torch.linalg.slogdet(root).logabsdet) + float(np.logaddexp.reduce(log_mass))
    return Mode(y, value, mean, covariance, evidence)


def _hessian(problem, y):
    """-∂² log p(data, y)/∂y²."""
    rows = []
    for i in range(len(y)):
        e = torch.zeros_like(y)
        e[i] = STEP
        rows.append((problem.value_and_grad(y - e)[1] - problem.value_and_grad(y + e)[1]) / (2 * STEP))
    H = torch.stack(rows)
    return 0.5 * (H + H.T)


def _importance(problem, modes, n_draws, observed, seed):
    """Draws of the mixture of the modes' Gaussians, resampled with smoothed weights, and what is kept of each."""
    g = np.random.default_rng(seed)
    share = np.array([m.log_evidence for m in modes])
    share = np.exp(share - share.max())
    share = np.maximum(share / share.sum(), 0.02)
    share /= share.sum()
    size = (PROPOSED if problem.n <= MANY else PROPOSED_OF_MANY) * n_draws
    laws = [_law(problem, m) for m in modes]
    counts = g.multinomial(size, share)
    y = np.concatenate([law.sample(n, g)[0] for law, n in zip(laws, counts, strict=True)])
    log_q = np.logaddexp.reduce([law.log_prob(y) + math.log(s) for law, s in zip(laws, share, strict=True)])
    many = problem.n > MANY  # then what is kept of all proposals would fill the memory
    kept = {} if many else {i: problem.evaluate(torch.from_numpy(x), observed) for i, x in enumerate(y)}
    log_p = [problem.value(torch.from_numpy(x)) for x in y] if many else [kept[i][3] for i in range(size)]
    log_w = np.nan_to_num(np.array(log_p) - log_q, nan=-np.inf)
    log_w, k_hat = pareto_smoothed(log_w)
    notes = []
    if k_hat > TAIL:  # a few draws would stand for all: temper the weights until some of them count
        note = f"the Gaussian is a rough stand-in (k-hat {k_hat:.2f}, {TAIL} allowed); --method nuts is exact"
        log_w, notes = _tempered(log_w, n_draws / 3), [note]
    weight = np.exp(log_w - np.logaddexp.reduce(log_w))
    rows = g.choice(size, size=n_draws, p=weight / weight.sum())
    kept |= {i: problem.evaluate(torch.from_numpy(y[i]), observed) for i in set(rows.tolist()) - set(kept)}
    return torch.from_numpy(y[rows]), [kept[i] for i in rows], k_hat, notes


def _law(problem, mode) -> TruncatedGaussian | SkewedGaussian:
    """What draws of a mode come from."""
    if problem.n > MANY:
        return SkewedGaussian(problem, mode, WIDER_OF_MANY)
    return TruncatedGaussian(mode.mean.numpy(), WIDER**2 * mode.covariance.numpy(), problem.groups)


def _tempered(log_w: np.ndarray, effective: float) -> np.ndarray:
    """β log w with the largest β ≤ 1 that leaves so many effective draws, (Σ w^β)²/Σ w^2β."""
    log_w = np.where(np.isfinite(log_w), log_w, log_w[np.isfinite(log_w)].min() - 100)
    low, high = 0.0, 1.0
    for _ in range(40):
        beta = 0.5 * (low + high)
        w = np.exp(beta * (log_w - log_w.max()))
        low, high = (beta, high) if w.sum() ** 2 / (w**2).sum() > effective else (low, beta)
    return low * log_w


def pareto_smoothed(log_w: np.ndarray) -> tuple[np.ndarray, float]:
    """Importance weights with the largest replaced by quantiles of a fitted Pareto tail, and its shape k̂."""
    from arviz.stats import psislw

    with np.errstate(over="ignore"):
        smoothed, k = psislw(np.asarray(log_w, dtype=float).copy())
    return np.asarray(smoothed), float(k)


def _nuts(problem, mode, n_draws, seed, report):
    """Draws by NUTS in the coordinates u of z = z* + root u, in which the posterior is nearly standard normal."""
    pyro.set_rng_seed(seed)
    report("drawing by NUTS")
    z0 = problem.unconstrained(problem.values(mode.y)[0])

    def log_density(z):
        return problem.log_joint(problem.natural(z)) + problem.log_slope(z)

    def slopes(z):
        z = z.detach().requires_grad_()
        return torch.autograd.grad(log_density(z), z)[0]

    H = torch.stack(
        [(slopes(z0 - e) - slopes(z0 + e)) / (2 * STEP) for e in STEP * torch.eye(len(z0)).double()]
    )
    values, vectors = torch.linalg.eigh(0.5 * (H + H.T))
    root = vectors / values.clamp(min=0.1).sqrt()

    start = {"u": torch.zeros(len(z0), dtype=torch.float64)}
    with unchecked():
        kernel = NUTS(
            potential_fn=lambda p: -log_density(z0 + root @ p["u"]), adapt_mass_matrix=False, max_tree_depth=6
        )  # a mass from the draws of a short warm-up would be worse than that of the curvature
        mcmc = MCMC(kernel, n_draws, max(WARM_UP, n_draws // 8), initial_params=start, disable_progbar=True)
        mcmc.run()
    u = mcmc.get_samples()["u"]
    # Two halves of the chain against each other: Gelman & Rubin's ratio for one chain.
    halves = torch.stack([u[: n_draws // 2], u[n_draws // 2 : 2 * (n_draws // 2)]])
    between, within = halves.mean(1).var(0), halves.var(1).mean(0)
    r_hat = float((1 + between / within).sqrt().max())
    notes = (
        [] if r_hat < MIXED else [f"NUTS has not mixed well (split r-hat {r_hat:.2f}); ask for more draws"]
    )
    return torch.stack([problem.natural(x) for x in z0 + u @ root.T]), notes
