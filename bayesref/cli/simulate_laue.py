"""`bayesref simulate laue`: Laue stills with known truth."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bayesref.cli.command import command_from
from bayesref.cli.merge import parse_cell
from bayesref.data.simulate_laue import LaueOptions, simulate_laue
from bayesref.io.simulation import write_simulation

DATA = partial(typer.Option, rich_help_panel="Data")
CRYSTAL = partial(typer.Option, rich_help_panel="Crystal")
MEASURED = partial(typer.Option, rich_help_panel="Scale and errors")


@dataclass(frozen=True, kw_only=True)
class SimulateLaueSettings:
    """Options of `bayesref simulate laue`; each is a setting of `LaueOptions`."""

    out: Annotated[Path, DATA("--out", "-o", help="Directory for the files.", show_default=False)]
    images: Annotated[int, DATA(help="Stills, each in a random orientation.")] = 24
    low: Annotated[float, DATA(help="Shortest wavelength of the beam, Å.")] = 0.5
    high: Annotated[float, DATA(help="Longest wavelength of the beam, Å.")] = 2.0
    singles: Annotated[
        float, DATA(help="Share of the spots of one order that are written; less = more overlap.")
    ] = 1.0
    twice: Annotated[float, DATA(help="Share of overlapped spots listed under two of their orders.")] = 0.0
    seed: Annotated[int, DATA(help="Of the random numbers.")] = 1
    overwrite: Annotated[bool, DATA("--overwrite", help="Replace files that are there already.")] = False
    cell: Annotated[str, CRYSTAL(metavar="a,b,c,α,β,γ", help="Å and degrees.")] = "28,36,43,90,90,90"
    spacegroup: Annotated[str, CRYSTAL(help="Symbol or number.")] = "P 21 21 21"
    dmin: Annotated[float, CRYSTAL(help="Resolution limit, Å.")] = 2.2
    g: Annotated[float, MEASURED("--G", help="Scale.")] = 500.0
    b: Annotated[float, MEASURED("--B", help="B of amplitudes, Å².")] = 15.0
    image_noise: Annotated[
        float, MEASURED(help="Standard deviation of the log scale from image to image.")
    ] = 0.2
    sig0: Annotated[float, MEASURED(help="Standard deviation of a spot without intensity.")] = 60.0
    gain: Annotated[float, MEASURED(help="Variance per unit of intensity.")] = 4.0
    sdadd: Annotated[float, MEASURED(help="Standard deviation as a fraction of the intensity.")] = 0.03


def laue(settings: SimulateLaueSettings) -> None:
    """Simulate Laue stills, where several orders of a ray may share a spot.

    Writes unmerged_0.mtz to merge (metadata X, Y; --wavelength-range LOW,HIGH) and truth_0.mtz with FTRUE, the number
    of spots N, and that of spots without overlap, NSINGLE.
    """
    values = vars(settings).copy()
    out, overwrite = values.pop("out"), values.pop("overwrite")
    values |= {k.upper(): values.pop(k) for k in ("g", "b")} | {"cell": parse_cell(settings.cell)}
    simulation = simulate_laue(LaueOptions(**values))
    unmerged, truth = write_simulation(simulation, out, overwrite)
    print(simulation)
    print("Spots:", *unmerged)
    print("Truth:", *truth)


command = command_from(SimulateLaueSettings, laue)
