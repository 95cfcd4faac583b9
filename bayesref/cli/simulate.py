"""`bayesref simulate`: data with known truth."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bayesref.cli.command import command_from
from bayesref.cli.merge import parse_cell
from bayesref.cli.simulate_kinetics import command as simulate_kinetics
from bayesref.cli.simulate_laue import command as simulate_laue
from bayesref.cli.simulate_refine import command as simulate_refine
from bayesref.cli.simulate_serial import command as simulate_serial
from bayesref.data.simulate import MergeOptions, simulate_merge
from bayesref.io.simulation import write_simulation

DATA = partial(typer.Option, rich_help_panel="Datasets")
CRYSTAL = partial(typer.Option, rich_help_panel="Crystal")
MEASURED = partial(typer.Option, rich_help_panel="Scale and errors")


@dataclass(frozen=True, kw_only=True)
class SimulateSettings:
    """Options of `bayesref simulate merge`; each is a setting of `MergeOptions`."""

    out: Annotated[Path, DATA("--out", "-o", help="Directory for the files.", show_default=False)]
    n_datasets: Annotated[int, DATA(help="Related datasets (time points), one file each.")] = 1
    r: Annotated[float, DATA("--r", help="Correlation of E between neighbouring datasets.")] = 0.95
    multiplicity: Annotated[float, DATA(help="Mean number of spots per reflection and dataset.")] = 8.0
    images: Annotated[int, DATA(help="Images of a dataset.")] = 100
    seed: Annotated[int, DATA(help="Of the random numbers.")] = 1
    overwrite: Annotated[bool, DATA("--overwrite", help="Replace files that are there already.")] = False
    cell: Annotated[str, CRYSTAL(metavar="a,b,c,α,β,γ", help="Å and degrees.")] = "28,36,43,90,90,90"
    spacegroup: Annotated[str, CRYSTAL(help="Symbol or number.")] = "P 21 21 21"
    dmin: Annotated[float, CRYSTAL(help="Resolution limit, Å.")] = 2.2
    g: Annotated[float, MEASURED("--G", help="Scale.")] = 500.0
    b0: Annotated[float, MEASURED("--B0", help="B of amplitudes on the first image, Å².")] = 15.0
    b1: Annotated[float, MEASURED("--B1", help="What is added to it by the last, Å².")] = 5.0
    image_noise: Annotated[
        float, MEASURED(help="Standard deviation of the log scale from image to image.")
    ] = 0.0
    sig0: Annotated[float, MEASURED(help="Standard deviation of a spot without intensity.")] = 60.0
    gain: Annotated[float, MEASURED(help="Variance per unit of intensity.")] = 4.0
    sdadd: Annotated[float, MEASURED(help="Standard deviation as a fraction of the intensity.")] = 0.03
    tdof: Annotated[float | None, MEASURED(help="Degrees of freedom of Student-t errors; else normal.")] = (
        None
    )
    outliers: Annotated[float, MEASURED(help="Fraction of spots with ten times the error.")] = 0.0
    sig_mis: Annotated[float, MEASURED(help="SIGI over the true standard deviation.")] = 1.0


app = typer.Typer(help="Simulate data with known truth.", no_args_is_help=True, add_completion=False)


@app.callback()
def simulate() -> None:
    """Simulate data with known truth."""


def merge(settings: SimulateSettings) -> None:
    """Simulate unmerged intensities, with the amplitudes behind them.

    Writes unmerged_0.mtz, ... to merge (metadata BATCH, X, Y, dHKL) and truth_0.mtz, ... with FTRUE.
    """
    values = vars(settings).copy()
    out, overwrite = values.pop("out"), values.pop("overwrite")
    values |= {k.upper(): values.pop(k) for k in ("g", "b0", "b1")} | {"cell": parse_cell(settings.cell)}
    simulation = simulate_merge(MergeOptions(**values))
    unmerged, truth = write_simulation(simulation, out, overwrite)
    print(simulation)
    print("Spots:", *unmerged)
    print("Truth:", *truth)


app.command("merge")(command_from(SimulateSettings, merge))
app.command("kinetics")(simulate_kinetics)
app.command("laue")(simulate_laue)
app.command("refine")(simulate_refine)
app.command("serial")(simulate_serial)
