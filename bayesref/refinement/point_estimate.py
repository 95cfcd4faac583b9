"""The most probable structure: cycles of scale, errors of the model, and atoms.

    scale      k, anisotropy, solvent, D          L-BFGS on the work set, atoms held
    errors     β(s)                               L-BFGS on the free set; without one, on the work set
    atoms      xyz, log B, conformers             L-BFGS preconditioned by restraint Hessian + diagonal of the data
    contacts, solvent mask, grid                  made again where atoms have moved

Errors that the work set tells are judged by each reflection against the structure without it: `refinement.left_out`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.optimize
import scipy.sparse as sparse
import torch

from bayesref.guides.latents import AMPLITUDE
from bayesref.refinement import overall_b
from bayesref.refinement.adp_overall import settle
from bayesref.refinement.adp_width import with_widths
from bayesref.refinement.atomic_model import SITES, of_atoms
from bayesref.refinement.curvature import Factor, precision, width
from bayesref.refinement.lbfgs import minimize
from bayesref.refinement.left_out import left_out
from bayesref.refinement.r_factors import r_factors
from bayesref.refinement.target import ATOMS, Target
from bayesref.refinement.temperature import temperatures
from bayesref.refinement.tls_step import bordered

MIN_FREE = 100  # reflections; below, errors are learned from the work set
MAX_STEP = 0.25  # Å, or of log B
REACH = 4.0  # how far a global latent may go in one fit
N_DRAWS = 32  # of the posterior, for its spread of F
SETTLING = 3  # cycles that look for the overall B; from then on it is near
INTERRUPTED = "interrupted; this is the best so far"
STEADY = 0.06  # of log τ²: 3 % of the width of restraints


@dataclass(frozen=True, eq=False)
class PointEstimate:
    """Where a refinement ended.

    Attributes
    ----------
    target : Target with the atomic model of the last cycle
    z : (latent,)
    history : one dict per cycle
    reason : why it stopped
    determined : number of parameters that the data determine, Σ v W of `left_out`; NaN with a free set
    without : (hkl,), see `Target`; None with a free set
    """

    target: Target
    z: torch.Tensor
    history: list = field(default_factory=list)
    reason: str = ""
    determined: float = float("nan")
    without: torch.Tensor | None = None


def start(target: Target) -> torch.Tensor:
    """z of the model as given, every other site at the median of its prior."""
    values = target.latents.unpack(target.latents.start())
    crystal, conformers = target.atoms.crystal, target.atoms.conformers
    mine = {"xyz": crystal.xyz, "B": crystal.B.clamp(min=1.0), "w": conformers.log_odds(crystal.occupancy)}
    if target.atoms.displacements is not None:
        mine["B"] = target.atoms.displacements.B
    return target.latents.pack({**values, **{k: v for k, v in mine.items() if k in values}})


def error_sites(target: Target, z) -> list[str]:
    """Sites on which the variance of the amplitudes depends."""
    values = {k: v.detach().requires_grad_() for k, v in target.latents.unpack(z).items() if k not in ATOMS}
    atoms = {k: v.detach() for k, v in target.latents.unpack(z).items() if k in ATOMS}
    V = target.trace({**atoms, **values}).nodes[AMPLITUDE]["fn"].scatter
    grads = torch.autograd.grad(V.sum(), list(values.values()), allow_unused=True)
    return [k for k, g in zip(values, grads, strict=True) if g is not None and bool((g != 0).any())]


def fit_sites(target: Target, z, names, rows=None, steps=25) -> torch.Tensor:
    """z with the sites `names` at their best on these reflections (default: work set), the others held."""
    where = target.latents.columns(names)

    def f(x):
        new = z.clone()
        new[where] = torch.from_numpy(x)
        value, grad = target.value_and_grad(new, names, rows)
        return -value, -grad[where].numpy()

    x0 = z[where].numpy()
    options = {"maxiter": steps, "ftol": 1e-9, "gtol": 1e-2}
    # Logarithms, and components of B in Å²: a line search must not leave where the exponential has a meaning.
    bounds = scipy.optimize.Bounds(x0 - REACH, x0 + REACH)
    result = scipy.optimize.minimize(f, x0, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    z = z.clone()
    z[where] = torch.from_numpy(result.x)
    return z


def fit_globals(target: Target, z, without=None, rounds=2, overall=False, rough=False) -> torch.Tensor:
    """Scale sites on the work set and error sites on the free set, in turn; with `overall`, what all B share too.

    Where there is no free set, errors are fitted to the work set, against G times `without` (hkl,) if that is given.
    `rough` takes a part of the work set where reflections are dear, see `Target.part`: atoms are far off anyway.
    """
    part = target.part() if rough else None
    errors = error_sites(target, z)
    scales = [k for k in target.globals if k not in errors]
    free = target.data.free
    enough = int(free.sum()) >= MIN_FREE
    judge = target if enough else replace(target, without=without)
    for _ in range(rounds):
        z = fit_sites(judge, z, errors, free if enough else None)
        if overall and overall_b.fits(target):
            z = overall_b.fit_scale_and_B(target, z, scales, 40, REACH)
        else:
            z = fit_sites(target, z, scales, part)
    return fit_sites(judge, z, errors, free if enough else None)


def _atom_rows(target):
    """Places in z of (x, y, z, log B[, shape]) of each atom, (4 or 9 atom,), of log odds, and of rigid groups."""
    n = len(target.atoms.crystal)
    at = {k: target.latents.columns([k] if k in target.latents.sites else []) for k in SITES}
    shape = [at["A"].reshape(n, -1)] if len(at["A"]) else []
    mine = torch.cat([at["xyz"].reshape(n, 3), at["B"][:, None], *shape], 1)
    return mine.reshape(-1), at["w"], at["tls"]


def fit_atoms(target: Target, z, steps: int, tolerance: float, sites=ATOMS):
    """z with these sites of all atoms moved uphill, and the minimum found."""
    P = precision(target, z, cutoff=0.0)
    # Levenberg's damping: far from the optimum the quadratic model holds for a step of this size, not beyond
    factor = Factor((P + sparse.identity(P.shape[0]) / MAX_STEP**2).tocsc())
    mine, w, tls = _atom_rows(target)
    rows = torch.cat([mine, tls, w])
    n = len(mine) + len(tls)
    odds = 1 / max(1.0, len(target.data.value) / 500)  # log odds are known to about this variance
    atoms = bordered(target, z, factor) if len(tls) else factor.solve
    sites = [k for k in sites if k in target.latents.sites]
    free = torch.isin(rows, target.latents.columns(sites)).numpy()

    def solve(g):
        return np.where(free, np.concatenate([atoms(g[:n]), odds * g[n:]]), 0.0)

    def f(x):
        new = z.clone()
        new[rows] = torch.from_numpy(x)
        value, grad = target.value_and_grad(new, sites)
        return -value, -grad[rows].numpy()

    found = minimize(f, z[rows].numpy(), solve, steps, MAX_STEP, tolerance)
    z = z.clone()
    z[rows] = torch.from_numpy(found.z)
    return z, found


def refine_point(
    target: Target, cycles: int = 15, steps: int = 12, report: Callable = lambda row: None, sites=ATOMS
) -> PointEstimate:
    """Cycles until atoms and the widths of their restraints stay where they are.

    Parameters
    ----------
    cycles : at most so many; 0 fits scale and errors only
    steps : L-BFGS steps of the atoms in each
    report : called with R factors before the first cycle, then with each row of the history
    sites : of the atoms that move
    """
    z, history, begin = start(target), [], time.monotonic()
    displacements = target.atoms.displacements
    determined, without, reason = float("nan"), None, "all cycles asked for are done"
    try:
        for cycle in range(cycles):
            z = fit_globals(
                target, z, without, rounds=2 if cycle < 2 else 1, overall="B" in sites, rough=cycle < 2
            )
            if (
                "B" in sites
                and cycle < SETTLING
                and displacements is not None
                and not displacements.spherical
            ):
                scales = [k for k in target.globals if k not in error_sites(target, z)]
                z = settle(target, z, scales, fit_sites)
            if cycle == 0:
                report({"cycle": -1, **r_factors(target, z)})
            z, found = fit_atoms(target, z, steps, 0.5, sites)
            row = _row(target, z, cycle, found, time.monotonic() - begin)
            before = target.atoms.temperature
            target, without, determined = _next(target, z)
            row["restraint_width"], row["B_width"] = (t**0.5 for t in target.atoms.temperature)
            history.append(row)
            report(row)
            steady = all(
                abs(np.log(a / b)) < STEADY for a, b in zip(target.atoms.temperature, before, strict=True)
            )
            if cycle > 2 and row["moved"] < 0.01 and steady:
                reason = f"the last cycle moved atoms by {row['moved']:.3f} Å rms"
                break
    except KeyboardInterrupt as e:
        if type(e) is not KeyboardInterrupt:  # one of its own means to end at once
            raise
        reason = INTERRUPTED
    z = fit_globals(target, z, without, rounds=1, overall=cycles > 0 and "B" in sites)
    return PointEstimate(target, z, history, reason, determined, without)


def _next(target: Target, z):
    """The target of the next cycle and, where there is no free set, what errors are judged by and Σ v W."""
    values = target.latents.unpack(z)
    target = replace(target, atoms=target.atoms.moved(*of_atoms(values)))
    factor = Factor(precision(target, z, 0.0))
    widths = temperatures(target, z, factor)
    if width(values) > 4:
        target = replace(target, atoms=with_widths(target, z, factor))
        widths = widths[0], target.atoms.temperature[1]
    target = replace(target, atoms=replace(target.atoms, temperature=widths))
    if int(target.data.free.sum()) >= MIN_FREE:
        return target, None, float("nan")
    rows = _atom_rows(target)[0]
    x = torch.from_numpy(factor.draw(N_DRAWS, np.random.default_rng(0)))
    draws = z.repeat(N_DRAWS, 1).index_copy(1, rows, z[rows] + x)
    without, share = left_out(target, z, draws)
    return target, without, float(share[~target.data.free].sum())


def _row(target, z, cycle, found, seconds):
    """R factors and progress after a cycle."""
    values = target.latents.unpack(z)
    moved = float((values["xyz"] - target.atoms.crystal.xyz).square().sum(1).mean().sqrt())
    return {
        "cycle": cycle, **r_factors(target, z), "log_joint": -found.value, "gain": found.decrement, "moved": moved,
        "evaluations": found.evaluations, "seconds": seconds,
    }  # fmt: skip
