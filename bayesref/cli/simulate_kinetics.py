"""`bayesref simulate kinetics`: a pump-probe series with known rates."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from bayesref._checks import InputError
from bayesref.cli.command import command_from
from bayesref.cli.kinetics_design import transition
from bayesref.cli.kinetics_options import pairs
from bayesref.io.atomic import atomic_path
from bayesref.io.write_series import write_experiments, write_series
from bayesref.kinetics.kinetics import Kinetics
from bayesref.kinetics.rate_links import RateLinks
from bayesref.kinetics.units import per_second, seconds
from bayesref.refinement.simulate_series import SeriesOptions, simulate_series, spots_of
from bayesref.refinement.toy_crystal import moved_patch, swollen, toy_crystal

EXPANSION = 5e-5  # of each axis per K, as crystals of proteins swell

KINETICS = partial(typer.Option, rich_help_panel="Kinetics")
CRYSTAL = partial(typer.Option, rich_help_panel="Crystal")
MEASURED = partial(typer.Option, rich_help_panel="Errors")


@dataclass(frozen=True, kw_only=True)
class SeriesSettings:
    """Options of `bayesref simulate kinetics`."""

    out: Annotated[Path, KINETICS("--out", "-o", help="Directory for the files.", show_default=False)]
    scheme: Annotated[str, KINETICS("--scheme", "-s", help="Reactions.")] = "B -> C, C -> A"
    rates: Annotated[
        str, KINETICS(metavar="K,...", help="Rates of the transitions in order, 1/s or with a unit.")
    ] = "2000,60"
    ground: Annotated[str, KINETICS(help="State before the light.")] = "A"
    start: Annotated[str, KINETICS(help="State right after the light.")] = "B"
    delays: Annotated[str, KINETICS(metavar="T,...", help="Delays, s or with a unit.")] = (
        "10us,40us,160us,600us,2.5ms,10ms,30ms,100ms"
    )
    temperature: Annotated[
        str | None,
        KINETICS(
            metavar="T,...", help="Series at several temperatures, K; rates are those at their harmonic mean."
        ),
    ] = None
    activation_energy: Annotated[
        str | None,
        KINETICS(metavar='"B->C=45,..."', help="Arrhenius' Ea of transitions, kJ/mol. [default: 50]"),
    ] = None
    activation: Annotated[float, KINETICS(min=0, max=1, help="Fraction that the light reaches.")] = 0.25
    seed: Annotated[int, KINETICS(help="Of the random numbers.")] = 1
    overwrite: Annotated[bool, KINETICS("--overwrite", help="Replace files that are there already.")] = False
    atoms: Annotated[int, CRYSTAL(min=40, help="Atoms of the asymmetric unit.")] = 160
    shift: Annotated[float, CRYSTAL(help="How far 24 atoms move in each state, Å rms.")] = 0.7
    dmin: Annotated[float, CRYSTAL(help="Resolution limit, Å.")] = 2.0
    error: Annotated[float, MEASURED(help="Error of the dark model, share of the mean intensity.")] = 0.1
    own: Annotated[float, MEASURED(min=0, help="Error of each delay alone, share of that.")] = 0.01
    noise: Annotated[float, MEASURED(min=0, help="SIGF over the root mean square amplitude.")] = 0.03
    multiplicity: Annotated[
        float | None,
        MEASURED(help="Write spots, this many per reflection and delay, in place of merged amplitudes."),
    ] = None


def kinetics(settings: SeriesSettings) -> None:
    """Simulate merged amplitudes of a pump-probe series of a made-up crystal, with the models of its states.

    Writes dark.mtz, light_1.mtz, ..., a PDB file for each state and series.toml, ready for `bayesref kinetics`. With
    --temperature there is a folder for each, and truth.json.
    """
    if settings.multiplicity is not None and settings.multiplicity < 1:
        raise InputError(
            f"--multiplicity is {settings.multiplicity:g}; expected at least one spot per reflection."
        )
    table = {"scheme": settings.scheme, "ground": settings.ground, "start": settings.start}
    if settings.temperature is not None:
        simulate_temperatures(settings, table)
        return
    if settings.activation_energy is not None:
        raise InputError("--activation-energy is about several temperatures; add --temperature 277,293.")
    series, crystals, scheme, occupancy = simulated(settings)
    spots = None
    if settings.multiplicity is not None:
        spots = spots_of(series, settings.multiplicity, seed=settings.seed)
    path = write_series(series, crystals, table, settings.out, settings.overwrite, spots)
    print(f"{len(series)} reflections to {settings.dmin:g} Å, {series.n_time} delays: {path}")
    print(
        "True rates:",
        ", ".join(f"{k} {v:g}/s" for k, v in scheme.items()),
        f"activation {settings.activation:g}",
    )
    print("True occupancies (" + ", ".join(crystals) + "):")
    for t, row in zip(series.t.tolist(), occupancy.tolist(), strict=True):
        print(f"  {t:9.3g} s  " + "  ".join(f"{x:.3f}" for x in row))


def simulated(settings: SeriesSettings):
    """TimeSeries, {state: Crystal} with the dark one first, {rate: value}, occupancies (time, state)."""
    model, rates = true_rates(settings)
    series, crystals, o = series_of(settings, model, rates)
    return series, crystals, rates, o


def true_rates(settings: SeriesSettings):
    """Kinetics, and {rate: value} of --rates."""
    model = Kinetics(settings.scheme, ground=settings.ground, start=settings.start)
    values = [per_second(x.strip()) for x in settings.rates.split(",")]
    if len(values) != len(model.rates):
        raise InputError(
            f"--rates has {len(values)} values; the scheme has {len(model.rates)} transitions, {model.rates}."
        )
    return model, dict(zip(model.rates, values, strict=True))


def series_of(settings: SeriesSettings, model: Kinetics, rates: dict, factor: float = 1.0, seed: int = 0):
    """TimeSeries, {state: Crystal} of a cell larger by `factor`, and occupancies, for these rates."""
    t = torch.tensor([seconds(x.strip()) for x in settings.delays.split(",")], dtype=torch.float64)
    tensors = {k: torch.tensor(v, dtype=torch.float64) for k, v in rates.items()}
    names = [settings.ground, *(s for s in model.occupied if s != settings.ground)]
    o = model.occupancies(tensors, t, activation=settings.activation)[
        :, [model.occupied.index(n) for n in names]
    ]
    dark = toy_crystal(settings.atoms, seed=settings.seed)
    others = {
        n: moved_patch(dark, rms=settings.shift, seed=settings.seed + 1 + i) for i, n in enumerate(names[1:])
    }
    crystals = {names[0]: dark} | others
    if factor != 1:
        crystals = {n: swollen(c, factor) for n, c in crystals.items()}
    noise = settings.noise if settings.multiplicity is None else 1e-9  # that of the spots instead
    options = SeriesOptions(settings.dmin, settings.error, settings.own, noise)
    series, _ = simulate_series(crystals, o, t, options, settings.seed + seed)
    return series, crystals, o


def simulate_temperatures(settings: SeriesSettings, table: dict) -> None:
    """A series at each temperature, of one crystal that swells, and the truth."""
    model, middle = true_rates(settings)
    T = [_number(x, "--temperature") for x in str(settings.temperature).split(",")]
    links = RateLinks(model.rates, tuple(f"{x:g} K" for x in T), "arrhenius", tuple(T))
    Ea = energies(settings, model)
    numbers = {f"k {r}": torch.tensor(k, dtype=torch.float64) for r, k in middle.items()}
    numbers |= {f"Ea {r}": torch.tensor(x, dtype=torch.float64) for r, x in Ea.items()}
    experiments, truth = [], []
    for i, (name, rates) in enumerate(zip(links.experiments, links.rates_of(numbers), strict=True)):
        values = {r: float(k) for r, k in rates.items()}
        series, crystals, o = series_of(settings, model, values, 1 + EXPANSION * (T[i] - T[0]), 1000 * i)
        spots = None
        if settings.multiplicity is not None:
            spots = spots_of(series, settings.multiplicity, seed=settings.seed + 1000 * i)
        experiments.append((name, T[i], series, crystals, spots))
        truth.append({"name": name, "temperature": T[i], "rates": values, "occupancies": o.tolist()})
    path = write_experiments(
        experiments, table | {"temperature_law": "arrhenius"}, settings.out, settings.overwrite
    )
    known = {"T_ref": links.T_ref, "rates": middle, "Ea": Ea, "activation": settings.activation}
    known |= {"states": list(crystals), "delays": series.t.tolist(), "experiments": truth}
    with atomic_path(settings.out / "truth.json") as temporary:
        temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
    print(
        f"{len(T)} temperatures, {series.n_time} delays, about {len(series)} reflections to {settings.dmin:g} Å: {path}"
    )
    print("True activation energies:", ", ".join(f"{r} {x:g} kJ/mol" for r, x in Ea.items()))
    for row in truth:
        print(f"  {row['name']}: ", ", ".join(f"{r} {k:.4g}/s" for r, k in row["rates"].items()))


def energies(settings: SeriesSettings, model: Kinetics) -> dict[str, float]:
    """{rate: Ea in kJ/mol} of --activation-energy."""
    out = dict.fromkeys(model.rates, 50.0)
    given = settings.activation_energy.split(",") if settings.activation_energy else []
    for name, value in pairs(given, "--activation-energy").items():
        if transition(name) not in out:
            raise InputError(
                f"--activation-energy {name}: there is no such reaction; there are {', '.join(out)}."
            )
        out[transition(name)] = _number(value, "--activation-energy")
    return out


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{option} has {text.strip()}; expected a number.") from error


command = command_from(SeriesSettings, kinetics)
