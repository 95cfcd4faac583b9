"""`bayesref simulate serial`: stills with known amplitudes."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bayesref.cli.command import command_from
from bayesref.cli.merge import parse_cell
from bayesref.data.simulate_serial import SerialOptions, simulate_serial
from bayesref.io.stills_stream import write_serial

DATA = partial(typer.Option, rich_help_panel="Data")
IMAGES = partial(typer.Option, rich_help_panel="Images")


@dataclass(frozen=True, kw_only=True)
class SimulateSerialSettings:
    """Options of `bayesref simulate serial`; each is a setting of `SerialOptions`."""

    out: Annotated[Path, DATA("--out", "-o", help="Directory for the files.", show_default=False)]
    images: Annotated[int, DATA(min=1, help="Number of stills.")] = 1000
    cell: Annotated[str, DATA(metavar="a,b,c,α,β,γ", help="Å and degrees.")] = "66.9,66.9,40.96,90,90,120"
    spacegroup: Annotated[str, DATA(help="Symbol or number.")] = "P 63"
    dmin: Annotated[float, DATA(help="Resolution limit, Å.")] = 2.5
    seed: Annotated[int, DATA(help="Of the random numbers.")] = 1
    overwrite: Annotated[bool, DATA("--overwrite", help="Replace files that are there already.")] = False
    width: Annotated[float, IMAGES(help="Rocking width in reciprocal space, Å⁻¹.")] = 2e-4
    scale_sd: Annotated[float, IMAGES(help="Standard deviation of the log scale.")] = 0.6
    bad: Annotated[float, IMAGES(help="Fraction whose intensities do not belong to their indices.")] = 0.05
    foreign: Annotated[float, IMAGES(help="Fraction of another crystal form, axes 4 % longer.")] = 0.0
    one_way: Annotated[
        bool, IMAGES("--one-way", help="All indexed in the same way, whatever the lattice allows.")
    ] = False


def serial(settings: SimulateSerialSettings) -> None:
    """Simulate stills: random orientations, partiality, scales, ways of indexing, bad images.

    Writes serial.stream to merge (metadata ewald_offset, dHKL), truth.mtz with FTRUE, and images_truth.csv.
    """
    values = vars(settings).copy()
    out, overwrite, one_way = (values.pop(k) for k in ("out", "overwrite", "one_way"))
    values |= {"cell": parse_cell(settings.cell), "ambiguous": not one_way}
    simulation = simulate_serial(SerialOptions(**values))
    print(simulation)
    print("Written:", *write_serial(simulation, out, overwrite))


command = command_from(SimulateSerialSettings, serial)
