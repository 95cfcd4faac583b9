"""Refinement in one call: from a crystal, its dictionary and merged data to the posterior of a structure.

    posterior = refine(crystal, data, library)
    posterior.crystal, posterior.esd["xyz"], posterior.draw(100)

Structure factors are checked against direct summation, an overall B comes from the Wilson plots of data and model;
then what should move first, cycles of `point_estimate`, and the Gaussian posterior about their end.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import gemmi
import torch

from bayesref._checks import InputError
from bayesref.crystal.atoms import Crystal
from bayesref.distributions.falloff import wilson_sigma
from bayesref.refinement.adp import Displacements
from bayesref.refinement.atomic_model import AtomicModel
from bayesref.refinement.hydrogens import ELEMENTS, RidingHydrogens, without_hydrogens
from bayesref.refinement.point_estimate import INTERRUPTED, refine_point
from bayesref.refinement.posterior import StructurePosterior, structure_posterior
from bayesref.refinement.steps import check_steps, take_steps
from bayesref.refinement.target import Target
from bayesref.refinement.tls import groups_of
from bayesref.refinement.twin import laws_asked_for, with_twin
from bayesref.restraints.occupancy import occupancy_groups
from bayesref.restraints.restraints import build_restraints, with_guesses
from bayesref.structure_factors.calculate import self_check, structure_factors

HYDROGENS = ("riding", "keep", "none")
MIN_RATIO, MAX_D = 1.0, 1.8  # below, above (Å): ellipsoids are hardly worth their parameters
B_RANGE = (2.0, 300.0)  # Å²: what the overall shift of B may not leave


def mean_intensity(data) -> torch.Tensor:
    """⟨F²/ε⟩ of merged data at the resolution of each reflection, (hkl,), smooth; the free set counts too."""
    I, SIGI = data.value, data.sigma
    if data.kind == "F":
        I, SIGI = data.value**2 + data.sigma**2, 2 * data.value.clamp(min=data.sigma) * data.sigma
    return wilson_sigma(I, SIGI, data.asu.stol2, data.asu.epsilon, data.asu.centric)


def shift_B(crystal: Crystal, data, Sigma: torch.Tensor) -> Crystal:
    """The crystal with all B moved by what the Wilson plots of data and model differ, where this is above 1 Å²."""
    with torch.no_grad():
        F2 = structure_factors(crystal, data.asu.hkl, rel_error=1e-2).abs().double() ** 2 / data.asu.epsilon
    s2 = data.asu.stol2
    order = s2.argsort().tensor_split(20)
    high = [
        rows for rows in order if float(s2[rows].mean()) > float(s2.median()) / 2
    ]  # solvent shapes the rest
    x = torch.stack([s2[r].mean() for r in high])
    y = torch.stack([(Sigma[r].mean() / F2[r].mean()).log() for r in high])
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    delta = -0.5 * float(slope)  # amplitudes squared fall as exp(-2 B s²)
    if abs(delta) < 1:
        return crystal
    return replace(crystal, B=(crystal.B + delta).clamp(*B_RANGE))


def isotropic(crystal: Crystal) -> Crystal:
    """The crystal with B = 8π² U_eq in place of anisotropic U."""
    if crystal.U is None:
        return crystal
    return replace(crystal, U=None, anisotropic=torch.zeros(len(crystal), dtype=torch.bool))


def with_hydrogens(crystal, library, hydrogens, contacts, unrestrained, guess, note):
    """The crystal to refine, and the hydrogens that ride on it or None, as `refine` asks."""
    if hydrogens not in HYDROGENS:
        raise InputError(f"hydrogens is {hydrogens!r}; expected one of {', '.join(HYDROGENS)}.")
    n = sum(s in ELEMENTS for s in crystal.scatterer)
    if hydrogens == "keep":
        if n:
            note(f"The model's {n} hydrogens are refined like other atoms.")
        return crystal, None
    bare = without_hydrogens(crystal)
    if n:
        note(f"The model's {n} hydrogens were taken out.")
    if hydrogens == "none":
        return bare, None
    described = with_guesses(bare, library, guess) if guess else library
    riding = RidingHydrogens.of(bare, described, unrestrained, contacts)
    note(f"{len(riding)} hydrogens ride on their parents" + (" and touch." if contacts else "."))
    return bare, riding if len(riding) else None


def default_page(adp: str, anomalous: bool = False) -> str:
    """Name of the page for displacements of this kind, and for Friedel mates."""
    if anomalous:
        return "refine_anomalous"
    return "refine" if adp == "isotropic" else "refine_anisotropic"


def displaced(crystal, given, adp, tls_groups, data, note) -> Displacements | None:
    """Displacements that a refinement starts from; `given` is the crystal before it was made isotropic."""
    if adp == "isotropic":
        return None
    groups = groups_of(crystal, tls_groups) if "tls" in adp else None
    out = Displacements.of(replace(crystal, U=given.U, anisotropic=given.anisotropic), adp, groups)
    if groups is not None:
        note(f"TLS groups: {', '.join(groups.name)}; {int((groups.index < 0).sum())} atoms are in none.")
    n = 4 * len(crystal) + out.A.numel() + (0 if groups is None else groups.start.numel())
    ratio, dmin = int((~data.free).sum()) / n, float(data.asu.dHKL.min())
    note(f"{n:,} parameters, {ratio:.1f} work reflections for each.")
    if out.shaped and (ratio < MIN_RATIO or dmin > MAX_D):
        note(
            f"[bold]At {dmin:.2f} Å with {ratio:.1f} reflections per parameter the priors will decide most of the "
            "shapes of ellipsoids; compare R-free with --adp isotropic or tls.[/bold]"
        )
    return out


def refine(
    crystal: Crystal,
    data,
    library: gemmi.MonLib,
    page: Callable | None = None,
    *,
    unrestrained=(),
    guess=(),
    ramachandran: bool = False,
    ncs: bool = False,
    hydrogens: str = "riding",
    hydrogen_contacts: bool = False,
    adp: str = "isotropic",
    tls_groups=(),
    pairs=None,
    steps: Sequence[str] = (),
    twin: str = "none",
    cycles: int = 15,
    rel_error: float = 1e-3,
    table="it92",
    wavelength: float | None = None,
    report: Callable = lambda row: None,
    note: Callable = lambda text: None,
) -> StructurePosterior:
    """Posterior of coordinates, B factors, conformers, scale, solvent and errors given merged data.

    Parameters
    ----------
    crystal : of one model, see `read_structure`
    data : MergedData
    library : monomers and links, see `bayesref.restraints.dictionary`
    page : Pyro model `page(data, atoms)`; default `models/refine.py` or, for other than isotropic atoms,
        `models/refine_anisotropic.py`; with pairs, `models/refine_anomalous.py`
    unrestrained : names of residues to leave without restraints
    guess : names of residues to restrain to their present geometry
    ramachandran : restrain φ and ψ to their regions
    ncs : make chains of one sequence alike
    hydrogens : "riding" gives the model those that its dictionary can place, in place of its own; "keep" refines
        those that it has like other atoms; "none" leaves them out
    hydrogen_contacts : riding hydrogens keep their distance from other atoms
    adp : displacements, "isotropic", "anisotropic", "tls" or "tls+anisotropic", see `bayesref.refinement.adp`
    tls_groups : such as "A/1-50"; default: each chain
    pairs : AnomalousPairs of the data; needs a wavelength
    steps : what moves first, one after another, of "rigid-body", "xyz" and "b", see `refinement.steps`
    twin : "none"; "auto", laws of the lattice tried; or the operator of one, such as "k,h,-l", see `refinement.twin`
    cycles : at most so many
    rel_error, table, wavelength : of the structure factors
    report : called with R factors before the first cycle, then with each row of the history
    note : called with each thing that the user should know

    Raises
    ------
    InputError : bad parameters, an unknown residue, or structure factors that fail their check
    """
    check_steps(steps)
    laws_asked_for(twin, data)  # a bad operator is told before the work begins
    own_page = page
    if page is None:
        page = importlib.import_module(f"bayesref.models.{default_page(adp, pairs is not None)}").model
    crystal, riding = with_hydrogens(
        crystal, library, hydrogens, hydrogen_contacts, unrestrained, guess, note
    )
    given, crystal = crystal, isotropic(crystal)
    restraints = build_restraints(
        crystal, library, unrestrained=unrestrained, guess=guess, ramachandran=ramachandran, ncs=ncs
    )
    if restraints.ramachandran is not None:
        note(f"φ and ψ of {len(restraints.ramachandran)} residues are restrained to their regions.")
    if restraints.ncs is not None:
        if not len(restraints.ncs):
            raise InputError("No two chains of the model have one sequence; leave --ncs out.")
        note(f"{len(restraints.ncs):,} distances are made alike in chains of one sequence.")
    Sigma = mean_intensity(data)
    shifted = shift_B(crystal, data, Sigma)
    if shifted is not crystal:
        change = float((shifted.B - crystal.B).median())
        note(f"B factors were moved by {change:+.1f} Å² to the fall-off of the data.")
    displacements = displaced(shifted, given, adp, tls_groups, data, note)

    def atoms_of(data):
        return AtomicModel.of(
            shifted, restraints, occupancy_groups(crystal), data, mean_intensity(data), rel_error, table, wavelength,
            displacements=displacements, hydrogens=riding, pairs=pairs,
        )  # fmt: skip

    atoms = atoms_of(data)
    check = self_check(atoms.scattering(atoms.crystal), atoms.plan)
    note(f"Structure factors against direct summation: {check}.")
    if not check.ok:
        raise InputError(f"The structure factors are off: {check}. Ask for a smaller --rel-error.")
    target = Target.of(page, data, atoms)
    if adp == "isotropic" or not laws_asked_for(twin, data):
        target = with_twin(target, twin, own_page, atoms_of, note)
    elif twin == "auto":
        note("Twin laws were not tried, since atoms are not isotropic.")
    else:
        raise InputError("Twins are refined with isotropic atoms; leave --adp or --twin out.")
    target, history, stopped = take_steps(target, steps, cycles, report, note)
    point = refine_point(target, 0 if stopped else cycles, report=report)
    reason = INTERRUPTED if stopped else point.reason
    return structure_posterior(replace(point, history=[*history, *point.history], reason=reason))
