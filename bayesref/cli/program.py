"""From options to what is fitted: the model page, its scale, and the sites that are held fixed."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

import torch

from bayesref import programs
from bayesref._checks import InputError
from bayesref.cli.options import MergeSettings
from bayesref.cli.prior import amplitude_prior
from bayesref.cli.related import held_correlations, related_prior
from bayesref.data.observations import Observations
from bayesref.guides.latents import Latents
from bayesref.io.default_metadata import AUTO
from bayesref.scaling.additive import Additive
from bayesref.scaling.amortised import Amortised
from bayesref.scaling.anisotropy import Anisotropy
from bayesref.scaling.falloff import Falloff
from bayesref.scaling.image_wise import ImageWise
from bayesref.scaling.neural import Neural
from bayesref.scaling.physical import Physical
from bayesref.scaling.rocking import Rocking
from bayesref.scaling.scale import Product, Scale
from bayesref.scaling.tilt import Tilt
from bayesref.scaling.wavelength import Lorentz, Polarisation, Wavelength

TERMS: dict[str, Callable[[Observations, MergeSettings], Scale]] = {
    "falloff": lambda obs, s: Falloff(obs),
    "additive": lambda obs, s: Additive(obs),
    "image": lambda obs, s: ImageWise(obs),
    "amortised": lambda obs, s: Amortised(obs, seed=s.seed),
    "rocking": lambda obs, s: Rocking(obs),
    "tilt": lambda obs, s: Tilt(obs),
    "anisotropy": lambda obs, s: Anisotropy(obs),
    "neural": lambda obs, s: Neural(obs, s.network_width, s.network_depth, s.seed),
    "physical": lambda obs, s: Physical(obs, surface=comma_list(s.surface) or None),
    "wavelength": lambda obs, s: Wavelength(obs),
    "lorentz": lambda obs, s: Lorentz(obs),
    "polarisation": lambda obs, s: Polarisation(
        obs, s.polarised, comma_list(s.surface), number_pair(s.beam_centre, "--beam-centre")
    ),
}
NEED_METADATA = ("additive", "neural")
FEWEST = 10  # spots: the scale and the error model alone have as many parameters
# Options that only change what another one asks for: those of the first that they need one of.
IDLE: tuple[tuple[tuple[str, ...], str, Callable[[MergeSettings], Any]], ...] = (
    (("n_frequencies",), "--positional-keys", lambda s: s.positional_keys),
    (("polarised", "beam_centre"), "--scale with polarisation", lambda s: "polarisation" in s.scale),
    (("network_width", "network_depth"), "--scale with neural", lambda s: "neural" in s.scale),
    (("refit",), "--half-datasets", lambda s: s.half_datasets),
    (("free_seed",), "--free-fraction or --free-flags", lambda s: s.free_fraction or s.free_flags),
)


@dataclass(frozen=True)
class Program:
    """What is fitted.

    Attributes
    ----------
    model : function model(obs, scale)
    scale : its scale
    fixed : values of the sites that are not inferred
    notes : sentences for the user about choices made on the way
    report : function of the posterior: sentences about what was learned of the prior
    """

    model: Callable
    scale: Scale
    fixed: dict[str, torch.Tensor]
    notes: tuple[str, ...] = ()
    report: Callable = lambda posterior: ()


def comma_list(text: str | None) -> list[str]:
    """'X, Y' -> ['X', 'Y']."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def number_pair(text: str | None, option: str) -> tuple[float, float] | None:
    """Two numbers from '0.95,1.25'; None from None.

    Raises
    ------
    InputError : not two numbers
    """
    if text is None:
        return None
    try:
        low, high = (float(x) for x in comma_list(text))
    except ValueError:
        raise InputError(f"{option} {text} is not two numbers with a comma between them.") from None
    return low, high


def build_program(settings: MergeSettings, obs: Observations) -> Program:
    """Model page, scale and fixed sites.

    Raises
    ------
    InputError : an unknown page, term or site, or a value out of range
    """
    refuse_idle(settings)
    if len(obs) < FEWEST:
        raise InputError(
            f"{', '.join(obs.files)}: {len(obs)} spots are too few to merge; give all there are."
        )
    prior = related_prior(settings) or amplitude_prior(settings, obs)
    page = laue_page(prior.page, obs)
    model = prior.bind(programs.load(page))
    check_page(model, page, ("obs", "scale"), "bayesref merge")
    scale, notes = build_scale(settings, obs)
    notes = laue_notes(obs) + prior.notes + notes
    return Program(model, scale, fixed_sites(settings, model, obs, scale), notes, prior.report)


def refuse_idle(settings: MergeSettings) -> None:
    """Raise `InputError` for an option that would change nothing."""
    usual = {f.name: f.default for f in fields(settings)}
    for names, needed, given in IDLE:
        for name in names:
            if getattr(settings, name) != usual[name] and not given(settings):
                raise InputError(
                    f"--{name.replace('_', '-')} changes nothing without {needed}; add that or leave it out."
                )


def laue_page(page: str, obs: Observations) -> str:
    """The page that knows spots of several orders, in place of `merge`, where there are such spots."""
    return "merge_laue" if page == "merge" and obs.overlaps else page


def laue_notes(obs: Observations) -> tuple[str, ...]:
    """What became of overlapped Laue spots, file by file."""
    if not obs.overlaps or obs.report is None:
        return ()
    return tuple(f"{file.name}: {note}." for file in obs.report.files for note in file.notes)


def build_scale(settings: MergeSettings, obs: Observations) -> tuple[Scale, tuple[str, ...]]:
    """The product of the terms asked for, and notes about those left out."""
    asked = comma_list(settings.scale)
    for term in asked:
        if term not in TERMS:
            raise InputError(_unknown("scale term", term, TERMS, "--scale"))
    if settings.surface and not {"physical", "polarisation"} & set(asked):
        raise InputError("--surface belongs to the terms 'physical' and 'polarisation'; add one to --scale.")
    if {"anisotropy", "physical"} <= set(asked):
        raise InputError("--scale physical has an anisotropic B already; leave anisotropy out.")
    terms, notes = list(dict.fromkeys(asked)), []
    if not obs.metadata_keys:
        dropped = [t for t in terms if t in NEED_METADATA]
        terms = [t for t in terms if t not in NEED_METADATA]
        if dropped:
            notes.append(f"Without --metadata the scale has no term {' and '.join(dropped)}.")
    notes += metadata_notes(settings, obs, terms)
    if not set(terms) - {"lorentz", "polarisation"}:  # these have nothing to fit
        raise InputError(f"--scale {settings.scale} leaves no term; add falloff, or give --metadata.")
    return Product(*(TERMS[t](obs, settings) for t in terms)), tuple(notes)


def metadata_notes(settings: MergeSettings, obs: Observations, terms: list[str]) -> list[str]:
    """What the scale depends on where nobody said, and a wavelength that it should depend on but does not."""
    notes, used = [], bool(obs.metadata_keys) and any(t in NEED_METADATA for t in terms)
    if settings.metadata == AUTO and used:
        notes.append(f"The scale depends on {', '.join(obs.metadata_keys)} (--metadata names others).")
    key = settings.wavelength_key or "Wavelength"
    seen = used and any(key.lower() in name.lower() for name in obs.metadata_keys)
    if obs.wavelength is not None and not seen and "wavelength" not in terms:
        notes.append(
            f"The beam is polychromatic and the scale does not see {key}: name it with --metadata, or add "
            "wavelength to --scale."
        )
    return notes


def fixed_sites(settings: MergeSettings, model, obs, scale) -> dict[str, torch.Tensor]:
    """Values of --studentt-dof, --no-blanks, --double-wilson-r and --fix, by site."""
    pairs = [_split_fix(text) for text in settings.fix or ()]
    asked = dict(pairs) | held_correlations(settings)
    names = [name for name, _ in pairs]
    names += ["nu"] * (settings.studentt_dof is not None) + ["blank_odds"] * settings.no_blanks
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise InputError(
            f"{twice[0]} is held twice (--fix, --studentt-dof and --no-blanks hold nu and blank_odds); leave one out."
        )
    if settings.studentt_dof is not None:
        if settings.studentt_dof <= 2:
            raise InputError(
                f"--studentt-dof is {settings.studentt_dof:g}; it must be above 2, where the errors have a variance."
            )
        asked["nu"] = settings.studentt_dof - 2
    if settings.no_blanks:
        asked["blank_odds"] = 0.0
    if not asked:
        return {}
    sites = Latents(model, (obs, scale)).sites
    # A site with a number for each dataset is held at one value for all of them.
    known = [k for k, s in sites.items() if s.start.numel() in (1, obs.asu.n_dataset)]
    for name, value in asked.items():
        if name not in known:
            raise InputError(_unknown("number", name, known, "--fix: the model"))
        _check_value(name, value, sites[name].transform)
    return {k: torch.full(sites[k].shape, v, dtype=torch.float64) for k, v in asked.items()}


def _split_fix(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise InputError(f"--fix {text} is not of the form SITE=VALUE, such as --fix a=1.") from None


def _check_value(name: str, value: float, transform: Any) -> None:
    # Zero is the limit that switches a term of the error model off.
    x = torch.tensor([value if value else 1e-12], dtype=torch.float64)
    if not torch.allclose(transform(transform.inv(x)), x):  # NaN, or the nearest number that is possible
        raise InputError(f"{name} = {value:g} is impossible: its prior has no such number.")


def check_page(model: Callable, name: str, takes: tuple[str, ...], command: str) -> None:
    """Raise `InputError` for a page that is about something else than the command."""
    required = [
        p.name
        for p in inspect.signature(model).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    # Pages of users may call their data as they like, but not as pages of other kinds do.
    if len(required) != len(takes) or required[0] in {"obs", "data", "series"} - {takes[0]}:
        raise InputError(
            f"The model {name} takes ({', '.join(required)}); {command} calls model({', '.join(takes)}), "
            "so choose another page."
        )


def _unknown(kind: str, name: str, known, where: str) -> str:
    close = get_close_matches(name, list(known), n=1)
    hint = f"did you mean '{close[0]}'? It has" if close else "it has"
    return f"{where} has no {kind} '{name}'; {hint} {', '.join(known) or 'none'}."
