"""`bayesref validate twinning`: moments, L-test, and the fraction of each twin law, of merged data of any origin."""

from pathlib import Path
from typing import Annotated

import gemmi
import typer

from bayesref._checks import InputError
from bayesref.cli import validate_output as output
from bayesref.cli.program import comma_list
from bayesref.data.merged import MergedData
from bayesref.io.merged import read_merged
from bayesref.results.twin_plots import l_curve, l_plot
from bayesref.validation.twin_report import as_figures, twin_table, twinning_of_merge, verdict
from bayesref.validation.twinning import Twinning
from bayesref.validation.twinning import twinning as run


def twinning(
    files: Annotated[
        list[Path], typer.Argument(help="Merged data: MTZ or structure-factor mmCIF.", show_default=False)
    ],
    labels: Annotated[str | None, typer.Option(metavar="I,SIGI", help="Columns; otherwise chosen.")] = None,
    step: Annotated[
        str,
        typer.Option(
            help="Difference of neighbours along h, k, l in the L-test; even unless NCS says otherwise."
        ),
    ] = "2,2,2",
    dmin: Annotated[float | None, typer.Option("--dmin", "-d", help="High-resolution limit, Å.")] = None,
    dmax: Annotated[float | None, typer.Option(help="Low-resolution limit, Å.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the tables here.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw N(|L|) here.")] = None,
) -> None:
    """Are the data of a twin? ⟨I²⟩/⟨I⟩², L-test, and H-test and likelihood of each twin law of the lattice."""
    found = {}
    for file in files:
        data = read_merged(file, labels=comma_list(labels) if labels else None, dmin=dmin, dmax=dmax)
        t = of_data(data, steps(step))
        if t is None:
            raise InputError(
                f"{file} has {len(data)} reflections, too few acentric ones for tests of twinning."
            )
        found[str(file)] = as_figures(t)
    tables = {name: twin_table(f) for name, f in found.items()}
    for name, f in found.items():
        output.print_rows(f"Twinning: {name}, to {f['dmin']:.2f} Å", tables[name])
        print(f"{name}: {verdict(f)}.\n")
    output.write_csv(tables, csv)
    if png:
        output.draw(
            l_plot(output.short_names({k: l_curve(f["L_cumulative"]) for k, f in found.items()})), png
        )


def of_data(data: MergedData, step) -> Twinning | None:
    """Tests of intensities, of squared amplitudes, or of what a merge of ours says."""
    if data.kind == "F":
        return run(data.asu, data.value**2, 2 * data.value.abs() * data.sigma, step=step)
    if is_ours(Path(data.columns["file"])):
        return twinning_of_merge(data.asu, data.value, data.sigma, step)
    return run(data.asu, data.value, data.sigma, step=step)


def is_ours(path: Path) -> bool:
    """Whether I is the mean of F² under Wilson's prior: a merge of bayesref has E[F], E[F²] and N."""
    if path.suffix.lower() != ".mtz":
        return False
    labels = gemmi.read_mtz_file(str(path), with_data=False).column_labels()
    return {"F", "SIGF", "I", "SIGI", "N"} <= set(labels)


def steps(text: str) -> tuple[int, int, int]:
    """Three whole numbers from '2,2,2'."""
    try:
        h, k, l = (int(x) for x in text.split(","))
    except ValueError:
        h = k = l = 0
    if min(h, k, l) < 1:
        raise InputError(f"--step {text} is not three whole numbers above zero, such as 2,2,2.")
    return h, k, l
