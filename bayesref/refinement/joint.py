"""Merging and refinement in one: the spots and the structure by turns, each given the other, until neither moves.

    p(θ, z, F | I) ∝ p(θ) p(z) Π_h p(F_h | z) Π_i p(I_i | F_h, θ)        θ: scale and errors of spots; z: structure
    θ | z    the merge whose prior of F is Rice's about the structure (free reflections: Wilson's)
    z | θ    the refinement whose data are  Π_i p(I_i | F_h, θ) ∝ exp(-a F⁴/2 + b F²), averaged over θ:
             I_h = E[b/a],   SIGI_h² = E[1/a] + Var[b/a]                 a = Σ_i λ_i K_i²,  b = Σ_i λ_i K_i I_i

For normal errors (a, b) hold all that spots say of F; heavy tails enter by the precisions λ_i of the last merge, see
`inference.collapsed`. Var[b/a] over draws of θ carries the uncertainty of the scale into the structure. The first
merge knows of no structure, so that round 0 is `bayesref merge`, then `bayesref refine`.

β is learned from free reflections, of which the structure knows nothing; G = D|F_c| of a work reflection has seen its
own spots. The structure serves as the prior of its amplitude as it would be without them, see `refinement.left_out`.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pyro
import torch

from bayesref.crystal.atoms import Crystal
from bayesref.data.merged import MergedData
from bayesref.data.observations import Observations
from bayesref.distributions.falloff import wilson_sigma
from bayesref.guides.amplitudes import natural_parameters
from bayesref.guides.latents import INTENSITY
from bayesref.inference.collapsed import Collapsed
from bayesref.inference.fit import fit
from bayesref.inference.posterior import Amplitudes, Posterior
from bayesref.refinement.joint_scale import Anchor, StructureScale
from bayesref.refinement.left_out import left_out
from bayesref.refinement.point_estimate import refine_point
from bayesref.refinement.posterior import StructurePosterior, structure_posterior
from bayesref.refinement.refine import refine
from bayesref.scaling.scale import Scale
from bayesref.structure_factors.calculate import structure_factors
from bayesref.structure_factors.scale import add_solvent
from bayesref.structure_factors.solvent import SolventMask

SOLVENT = (0.35, 46.0)  # electrons/Å³ and Å², for the first estimate of the fall-off of the model
MOVED = 0.01  # Å rms: below, another round is not worth its time
GAIN = 1.0  # log units of all spots, likewise
WEAKEST = 1e-8  # of the median a: a reflection whose spots are all blanks keeps a finite SIGI


@dataclass(frozen=True, eq=False)
class JointPosterior:
    """Result of `merge_and_refine`.

    Attributes
    ----------
    structure : StructurePosterior, of the last round
    merging : Posterior of scale and errors of the spots, given that structure
    amplitudes : of every measured reflection, on the scale of the structure
    sequential : Amplitudes of the first merge, which knows no structure, on the same scale
    history : one dict per round: round, elbo, R, R_free, moved
    reason : why it stopped
    """

    structure: StructurePosterior
    merging: Posterior
    amplitudes: Amplitudes
    sequential: Amplitudes
    history: list = field(default_factory=list)
    reason: str = ""


def model_falloff(crystal: Crystal, asu) -> torch.Tensor:
    """Σ(s) = ⟨|F_calc|²/ε⟩ of a model with average solvent, (hkl,)."""
    with torch.no_grad():
        F = structure_factors(crystal, asu.hkl, rel_error=1e-2).to(torch.complex128)
    F = add_solvent(F, SolventMask(asu.hkl)(crystal), asu.stol2, *SOLVENT)
    J = F.abs() ** 2
    return wilson_sigma(J, 0.01 * J.mean().expand_as(J), asu.stol2, asu.epsilon, asu.centric)


@torch.no_grad()
def natural_data(posterior: Posterior, free: torch.Tensor, n_draws: int = 8, seed: int = 0) -> MergedData:
    """What the spots of each reflection say of its F², whatever the prior: MergedData of kind "I".

    Parameters
    ----------
    posterior : of a merge
    free : (hkl,) bool
    n_draws : of the scale
    """
    me = posterior.linearized()
    collapsed = Collapsed(me.model, me.obs, me.args, me.latents)
    collapsed.refresh(me.mean)
    values, scatter = [], []
    for z in torch.cat([me.mean[None], me.draw(n_draws, seed)]):
        sites = me.latents.unpack(z)
        parts = []
        for piece, m in zip(collapsed.pieces, collapsed.moments, strict=True):
            K = collapsed.run(piece, sites).nodes[INTENSITY]["fn"].loc
            parts.append(torch.stack(natural_parameters(piece, K, m.precision)))
        a, b = torch.cat(parts, 1)
        a = a.clamp(min=WEAKEST * float(a.median()))
        values.append(b / a)
        scatter.append(1 / a)
    J, V = torch.stack(values), torch.stack(scatter)
    # An error common to all reflections is that of the overall scale, which the structure finds by itself.
    factor = (J[0] ** 2 / V[0]).sum() / (J[0] * J / V[0]).sum(1, keepdim=True)
    J = J * factor
    sigma = (V[0] + J[1:].var(0)).sqrt()
    return MergedData(me.obs.asu, "I", J[0], sigma, free, {"value": "I", "sigma": "SIGI"})


def scaled(data: MergedData, factor: torch.Tensor) -> MergedData:
    """The data with intensities times `factor` (hkl,)."""
    return replace(data, value=data.value * factor, sigma=data.sigma * factor)


def structure_page(page: Callable, obs: Observations, scale: Scale, spots: dict) -> Callable:
    """A joint page as one of a structure over merged data: what belongs to spots is given."""
    one = obs.subset(slice(0, 1))  # a plate cannot be empty; nobody asks for the density of this spot

    def structure(data, atoms):
        page(replace(one, asu=data.asu), scale, atoms, torch.ones(len(data.asu), dtype=torch.float64))

    return pyro.condition(structure, data=spots)


def merging_page(page: Callable, structure: StructurePosterior) -> Callable:
    """A joint page as one of spots: the structure is given."""
    return pyro.condition(page, data={k: v.detach() for k, v in structure.values.items()})


def without_spots(structure: StructurePosterior, n_draws: int = 32) -> torch.Tensor:
    """u (hkl,): G of each reflection without its own spots, over G; zero of free reflections."""
    u, _ = left_out(structure.target, structure.mean, structure.draw(n_draws, stiff=True))
    return torch.where(structure.target.data.free, torch.zeros_like(u), u)


def merge_and_refine(
    crystal: Crystal,
    obs: Observations,
    scale: Scale,
    library,
    free: torch.Tensor,
    page: Callable | None = None,
    *,
    rounds: int = 4,
    seed: int = 0,
    fitting: dict | None = None,
    report_fit: Callable = lambda row: None,
    report_round: Callable = lambda row: None,
    **options,
) -> JointPosterior:
    """Posterior of scale, amplitudes and structure given spots.

    Parameters
    ----------
    crystal, library : as in `refine`
    obs : Observations of one dataset, Friedel mates merged
    scale : Scale of the spots, as for a merge
    free : (hkl,) bool, rows of obs.asu that are kept from the structure
    page : Pyro model `page(obs, scale, atoms, u)`; default `models/merge_refine.py`
    rounds : at most so many merges with a structure
    fitting : options of `fit`
    report_fit, report_round : called with each row of the history of a merge, and of the rounds
    options : of `refine`
    """
    page = page or importlib.import_module("bayesref.models.merge_refine").model
    settings = {"report": report_fit, "seed": seed, **(fitting or {})}

    def merge(model, *args) -> Posterior:
        return fit(model, obs, *args, **settings)

    first = merge(importlib.import_module("bayesref.models.merge").model, scale)
    if interrupted(first):
        raise KeyboardInterrupt
    Sigma = model_falloff(crystal, obs.asu)
    anchor = Anchor(obs.asu.stol2, Sigma)
    sequential = rescaled(first.amplitudes(seed=seed), Sigma)
    data = scaled(natural_data(first, free, seed=seed), Sigma)
    weights = first.latents.unpack(first.mean)[scale.site]
    spots = {**first.latents.unpack(first.mean), StructureScale.site: weights}
    spots.pop(scale.site)
    mine = StructureScale(anchor, scale, weights)
    structure = refine(crystal, data, library, structure_page(page, obs, mine, spots), **options)
    history = [_row(0, first.elbo, structure, crystal.xyz)]
    report_round(history[-1])
    reason, posterior = "all rounds asked for are done", first
    for k in range(1, rounds + 1):
        if interrupted(structure):
            reason = structure.reason
            break
        mine = StructureScale(anchor, scale, weights)
        posterior = merge(merging_page(page, structure), mine, structure.atoms, without_spots(structure))
        weights = posterior.latents.unpack(posterior.mean)[mine.site]
        if interrupted(posterior):
            reason = posterior.reason
            break
        before, data = structure.crystal.xyz, natural_data(posterior, free, seed=seed)
        structure = refined_again(structure, data, options)
        history.append(_row(k, posterior.elbo, structure, before))
        report_round(history[-1])
        gain = history[-1]["elbo"] - history[-2]["elbo"]
        if history[-1]["moved"] < MOVED or (k > 1 and gain < GAIN):
            reason = f"the last round moved atoms by {history[-1]['moved']:.3f} Å rms"
            break
    if not interrupted(posterior):
        mine = StructureScale(anchor, scale, weights)
        posterior = merge(merging_page(page, structure), mine, structure.atoms, without_spots(structure))
    return JointPosterior(structure, posterior, posterior.amplitudes(seed=seed), sequential, history, reason)


def interrupted(posterior: Posterior | StructurePosterior) -> bool:
    """Whether a fit was stopped by hand, and gave the best that it had."""
    return posterior.reason.startswith("interrupted")


def refined_again(structure: StructurePosterior, data: MergedData, options: dict) -> StructurePosterior:
    """The refinement taken up where it ended, with new data."""
    target = replace(structure.target, data=replace(data, notes=structure.target.data.notes))
    chosen = {k: options[k] for k in ("cycles", "report") if k in options}
    return structure_posterior(refine_point(target, **chosen))


def rescaled(amplitudes: Amplitudes, Sigma: torch.Tensor) -> Amplitudes:
    """Flat amplitudes with the fall-off Σ (hkl,)."""
    root = Sigma.sqrt()
    return replace(
        amplitudes, F=amplitudes.F * root, SIGF=amplitudes.SIGF * root, I=amplitudes.I * Sigma,
        SIGI=amplitudes.SIGI * Sigma,
    )  # fmt: skip


def _row(k, elbo, structure, before):
    last = structure.history[-1] if structure.history else {"R": float("nan"), "R_free": float("nan")}
    moved = float((structure.crystal.xyz - before).square().sum(1).mean().sqrt())
    return {"round": k, "elbo": elbo, "R": last["R"], "R_free": last["R_free"], "moved": moved}
