"""Refinement against twinned data: the target, and which law the data ask for.

    log p(y, z) = Σ_pairs log p(y_h, y_h' | G, V, α) + log p(z)                see `distributions.measured_twin`

A law is taken where it explains the data better than none, scale and errors fitted anew with the atoms as they are:

    log B = log p(y | α̂) - log p(y | no twin) + log(√(2π) sd(α))        Laplace's approximation, α uniform on (0, 1)

A model is the strongest test there is: symmetry of its own, such as an axis of NCS along T, is in G, and is not taken
for twinning.
"""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bayesref._checks import InputError
from bayesref.crystal.twin_laws import TwinLaw, twin_law, twin_laws
from bayesref.distributions.measured_amplitude import MeasuredAmplitude
from bayesref.distributions.measured_twin import log_evidence_twin, measured_twin
from bayesref.refinement.point_estimate import fit_globals, start
from bayesref.refinement.target import Target
from bayesref.refinement.twin_data import TwinnedData, twinned

FRACTION = "twin_fraction"
CONVINCING = 10.0  # log B: odds of 20,000 to one, since no likelihood of a whole crystal is that well known
SMALL = 0.03  # fraction below which a second domain cannot be told from errors that measurements have anyway
ENOUGH = 6000  # reflections for a first fit of scale and fraction, since integrals over pairs are dear
STEP = 0.02  # of logit α, for its curvature


@dataclass(frozen=True, eq=False)
class TwinTarget(Target):
    """A page with a site "twin_fraction" over TwinnedData."""

    data: TwinnedData

    @classmethod
    def of(cls, page, data, atoms) -> "TwinTarget":
        """As `Target.of`.

        Raises
        ------
        InputError : a page that knows of no twin
        """
        self = cls(page, data, atoms, super().of(page, data, atoms).latents)
        if FRACTION not in self.latents.sites:
            raise InputError(f"The page has no site {FRACTION}; see models/refine_twin.py.")
        return self

    def part(self) -> torch.Tensor | None:
        """(hkl,) bool, pairs of the work set at equal steps; None where there are few."""
        work = self.data.present & ~self.data.free
        every = int(work.sum()) // ENOUGH
        first = torch.minimum(self.data.mate, torch.arange(len(work)))
        return work & (first % every == 0) if every > 1 else None

    def explained(self, G, values) -> torch.Tensor:
        """Amplitude of the total intensity, (hkl,)."""
        return self.data.total(G, values[FRACTION])

    def measured(self, z) -> MeasuredAmplitude:
        """Evidence and moments of every reflection at z: amplitudes of one domain."""
        values = self.latents.unpack(z)
        with torch.no_grad():
            G, V = self.expected(values)
        d = self.data
        return measured_twin(
            G, V, d.asu.centric, d.value, d.sigma, d.mate, values[FRACTION], d.kind, d.present
        ).amplitudes

    def log_likelihood(self, law, values, rows) -> torch.Tensor:
        """log p(y) of the rows that count."""
        d = self.data
        return log_evidence_twin(
            law.loc, law.scatter, values[FRACTION], d.asu.centric, d.value, d.sigma, d.mate, d.kind, rows & d.present
        )  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """A law on trial: the fraction, its standard deviation, and log B against no twin."""

    law: TwinLaw
    fraction: float
    sd: float
    log_odds: float

    @property
    def convincing(self) -> bool:
        return self.log_odds > CONVINCING and self.fraction > max(2 * self.sd, SMALL)

    def __str__(self) -> str:
        return f"{self.law}: fraction {self.fraction:.3f} ± {self.sd:.3f}, log odds {self.log_odds:+,.0f}"


def laws_asked_for(twin: str, data) -> list[TwinLaw]:
    """Those of the lattice for "auto", the one named otherwise, none for "none"."""
    if twin == "none":
        return []
    cell, group = data.asu.cell, data.asu.spacegroup
    return twin_laws(cell, group) if twin == "auto" else [twin_law(twin, cell, group)]


def with_twin(target: Target, twin: str, own_page, atoms_of: Callable, note: Callable) -> Target:
    """The target for twinned data, where they are or are said to be; else the one given.

    Parameters
    ----------
    target : without a twin
    twin : "auto", "none" or an operator, such as "k,h,-l"
    own_page : page of the user, which is kept; None: models/refine_twin.py is taken for twins
    atoms_of : AtomicModel of these atoms for other data
    note : called with what the user should know

    Raises
    ------
    InputError : an operator that is no twin law, or a user's page without a site for the fraction
    """
    laws = laws_asked_for(twin, target.data)
    if twin == "auto" and own_page is not None and laws:
        note(
            f"Twin laws were not tried, since the page is given: {', '.join(map(str, laws))}; name one with --twin."
        )
        return target
    if not laws:
        return target
    asu = target.data.asu
    if asu.anomalous or asu.n_dataset > 1 or target.atoms.anomalous is not None:
        if twin != "auto":
            raise InputError(
                "Twin refinement takes one dataset with Friedel mates merged; leave --anomalous out."
            )
        note("Twin laws were not tried, since Friedel mates or datasets are kept apart.")
        return target
    page = own_page or importlib.import_module("bayesref.models.refine_twin").model
    targets: dict[str, TwinTarget] = {}
    for law in laws:
        data = twinned(target.data, law)
        targets[law.operator] = TwinTarget.of(page, data, atoms_of(data))
    if twin == "auto":
        trials = [trial(target, x) for x in targets.values()]
        for t in trials:
            note(f"Twin law {t}.")
        best = max(trials, key=lambda t: t.log_odds)
        if not best.convincing:
            note("The data are not twinned; they are refined as they are.")
            return target
        chosen = targets[best.law.operator]
    else:
        (chosen,) = targets.values()
    for line in twin_notes(chosen.data):
        note(line)
    return chosen


def twin_notes(data: TwinnedData) -> list[str]:
    """What the user should know of twinned data."""
    lines = [f"Refined as a twin by {data.twin}: {int((~data.present).sum())} mates were not measured."]
    if data.n_split:
        lines.append(
            f"[bold]{data.n_split} pairs of twin mates have one free and one work reflection: R-free has seen data "
            "that the model was fitted to. Make flags that follow the lattice (--free-fraction).[/bold]"
        )
    return lines


def trial(plain: Target, twin: TwinTarget) -> Trial:
    """How much better the twin explains the work set, scale and errors fitted with the atoms as they are."""
    z, large = start(twin), twin.part() is not None
    z = fit_globals(twin, fit_globals(twin, z, rounds=1, rough=True) if large else z, rounds=1)
    at = twin.latents.columns([FRACTION])
    e = torch.zeros_like(z)
    e[at] = STEP
    value = twin.value_and_grad(z)[0]
    up, down = (twin.value_and_grad(z + s * e, [FRACTION])[1][at] for s in (1, -1))
    curvature = max(float((down - up) / (2 * STEP)), 1e-6)
    alpha = float(twin.latents.unpack(z)[FRACTION])
    sd_logit = curvature**-0.5
    rows = torch.isin(_keys(plain.data), _keys(twin.data)) & ~plain.data.free
    z0 = fit_globals(plain, start(plain), rounds=2 if large else 1)  # converged alike
    base = plain.value_and_grad(z0, rows=rows)[0]
    # log p(z) of the logit includes its Jacobian, so that the integral over it is the evidence
    log_odds = value - base + math.log(math.sqrt(2 * math.pi) * sd_logit)
    return Trial(twin.data.twin, alpha, sd_logit * alpha * (1 - alpha), log_odds)


def _keys(data) -> torch.Tensor:
    h, k, l = data.asu.hkl.T
    return (h * 4096 + k) * 4096 + l
