"""`bayesref convert`: unmerged data of any format to an MTZ file."""

from pathlib import Path
from typing import Annotated

import typer

from bayesref._checks import InputError
from bayesref.cli.merge import parse_cell


def convert(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN... OUT.mtz",
            help="XDS_ASCII.HKL, INTEGRATE.HKL, CrystFEL .stream, DIALS .refl with its .expt, MTZ; "
            "the last is the MTZ to write, or XDS_ASCII where its name ends with .HKL.",
            show_default=False,
        ),
    ],
    spacegroup: Annotated[str | None, typer.Option(metavar="SYMBOL", help="Instead of the files'.")] = None,
    cell: Annotated[
        str | None, typer.Option(metavar="a,b,c,α,β,γ", help="Instead of the files', Å and degrees.")
    ] = None,
    intensity_key: Annotated[str | None, typer.Option(help="Column of intensities.")] = None,
    sigma_key: Annotated[str | None, typer.Option(help="Column of their standard deviations.")] = None,
    image_key: Annotated[str | None, typer.Option(help="Column of image numbers.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.mtz.")] = False,
) -> None:
    """Write unmerged data as an MTZ with original indices (M/ISYM), BATCH and every numeric column; or as XDS_ASCII."""
    from bayesref.io.convert import write_unmerged

    if len(files) < 2:
        raise InputError(f"{files[0]} is the only file given; give the input, and then the MTZ to write.")
    *inputs, out = files
    if out.suffix.lower() not in (".mtz", ".hkl"):
        raise InputError(
            f"{out} is the last file given, to be written; its name must end with .mtz, or .HKL."
        )
    if out.exists() and not overwrite:
        raise InputError(f"{out} is there already; choose another name or give --overwrite.")
    report = write_unmerged(
        inputs,
        out,
        spacegroup=spacegroup,
        cell=parse_cell(cell),
        intensity_key=intensity_key,
        sigma_key=sigma_key,
        image_key=image_key,
    )
    print(report)
