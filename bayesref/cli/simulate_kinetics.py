"""`bayesref simulate kinetics`: a pump-probe series with known rates."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from bayesref._checks import InputError
from bayesref.cli.command import command_from
from bayesref.io.write_series import write_series
from bayesref.kinetics.kinetics import Kinetics
from bayesref.kinetics.units import per_second, seconds
from bayesref.refinement.simulate_series import SeriesOptions, simulate_series, spots_of
from bayesref.refinement.toy_crystal import moved_patch, toy_crystal

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

    Writes dark.mtz, light_1.mtz, ..., a PDB file for each state and series.toml, ready for `bayesref kinetics`.
    """
    series, crystals, scheme, occupancy = simulated(settings)
    table = {"scheme": settings.scheme, "ground": settings.ground, "start": settings.start}
    spots = None
    if settings.multiplicity is not None:
        if settings.multiplicity < 1:
            raise InputError(
                f"--multiplicity is {settings.multiplicity:g}; expected at least one spot per reflection."
            )
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
    model = Kinetics(settings.scheme, ground=settings.ground, start=settings.start)
    values = [per_second(x.strip()) for x in settings.rates.split(",")]
    if len(values) != len(model.rates):
        raise InputError(
            f"--rates has {len(values)} values; the scheme has {len(model.rates)} transitions, {model.rates}."
        )
    rates = dict(zip(model.rates, values, strict=True))
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
    noise = settings.noise if settings.multiplicity is None else 1e-9  # that of the spots instead
    options = SeriesOptions(settings.dmin, settings.error, settings.own, noise)
    series, _ = simulate_series(crystals, o, t, options, settings.seed)
    return series, crystals, rates, o


command = command_from(SeriesSettings, kinetics)
