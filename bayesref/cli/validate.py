"""`bayesref validate`: statistics of result files, several at once, as a table, a CSV and a picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import typer

from bayesref._checks import InputError
from bayesref.cli import validate_output as output
from bayesref.cli.validate_twinning import twinning
from bayesref.io.result_mtz import ResultTable, read_result
from bayesref.results import validation_plots as plots
from bayesref.validation import counts, half_files, spot_files, wilson_b

app = typer.Typer(
    help="Statistics of merged data, half datasets and predictions.",
    no_args_is_help=True,
    add_completion=False,
)
app.command()(twinning)

Method = Literal["pearson", "spearman", "weighted"]
Files = Annotated[list[Path], typer.Argument(help="Result files of the same kind.", show_default=False)]
Halves = Annotated[list[Path], typer.Argument(help="halves_*.mtz", show_default=False)]
Merged = Annotated[list[Path], typer.Argument(help="merged_*.mtz", show_default=False)]
Predictions = Annotated[list[Path], typer.Argument(help="predictions_*.mtz", show_default=False)]
Bins = Annotated[int, typer.Option("--bins", "-b", min=1, help="Bins of resolution, of equal numbers.")]
Csv = Annotated[Path | None, typer.Option(help="Write the tables here.")]
Png = Annotated[Path | None, typer.Option(help="Draw them here.")]
How = Annotated[Method, typer.Option("--method", "-m", help="Correlation; weighted: by 1/σ².")]
Overall = Annotated[bool, typer.Option("--overall", help="Pool the files into one table.")]
Dmin = Annotated[float | None, typer.Option("--dmin", "-d", help="High-resolution limit, Å.")]
Dmax = Annotated[float | None, typer.Option(help="Low-resolution limit, Å.")]


def _by_file(
    items: dict, bins: int, overall: bool, pool: Callable, table: Callable
) -> dict[str, pd.DataFrame]:
    """`table(item, bin of each row, limits)` of each file, or of all together, in bins that they share."""
    if overall:
        items = {"all files": pool(list(items.values()))}
    limits = counts.shared_limits([x["d"].to_numpy() for x in items.values()], bins)
    return {name: table(x, counts.bins_of(x["d"], limits), limits) for name, x in items.items()}


def _pairs(files, read) -> dict[str, pd.DataFrame]:
    items = {str(f): read(f) for f in files}
    for name, x in items.items():
        if not len(x):
            raise InputError(
                f"{name}: no reflection was measured in both halves; give the file of half datasets."
            )
    return items


def _half_statistic(files, bins, overall, read, table) -> dict[str, pd.DataFrame]:
    def pool(frames):
        # Repeats of different files are different repeats.
        return pd.concat([x.assign(repeat=x["repeat"] + 1000 * i) for i, x in enumerate(frames)])

    return _by_file(_pairs(files, read), bins, overall, pool, table)


def _read_halves(path: Path) -> pd.DataFrame:
    return half_files.half_pairs(read_result(path, "half", "F|F(+)"))


@app.command()
def cchalf(
    files: Halves, bins: Bins = 10, method: How = "pearson",
    amplitudes: Annotated[bool, typer.Option("--amplitudes", help="Of F instead of I.")] = False,
    overall: Overall = False, csv: Csv = None, png: Png = None,
) -> None:  # fmt: skip
    """Correlation of half datasets, CC1/2."""

    def table(pairs, b, limits):
        column = "F" if amplitudes or "I1" not in pairs else "I"
        return half_files.half_correlation(pairs, b, limits, column, method).rename(columns={"cc": "cchalf"})

    tables = _half_statistic(files, bins, overall, _read_halves, table)
    output.by_resolution("CC1/2", tables, {"cchalf": "CC1/2"}, csv, png)


@app.command()
def rsplit(
    files: Halves, bins: Bins = 10, overall: Overall = False, csv: Csv = None, png: Png = None
) -> None:
    """Disagreement of half datasets, Rsplit of F."""
    tables = _half_statistic(files, bins, overall, _read_halves, half_files.half_rsplit)
    output.by_resolution("Rsplit of F", tables, {"rsplit": "Rsplit"}, csv, png)


@app.command()
def ccanom(
    files: Halves, bins: Bins = 10, method: How = "pearson", overall: Overall = False,
    csv: Csv = None, png: Png = None,
) -> None:  # fmt: skip
    """Correlation of F(+) - F(-) of half datasets, CCanom; from a merge with --anomalous."""

    def read(path):
        return half_files.anomalous_pairs(read_result(path, "half", "F(+)", "F(-)"))

    def table(pairs, b, limits):
        found = half_files.half_correlation(pairs, b, limits, "D", method)
        return found.rename(columns={"cc": "ccanom"})

    tables = _half_statistic(files, bins, overall, read, table)
    output.by_resolution("CCanom", tables, {"ccanom": "CCanom"}, csv, png)


@app.command()
def calibration(
    files: Halves, bins: Bins = 10, overall: Overall = False, csv: Csv = None, png: Png = None
) -> None:
    """Is SIGF right? Mean z² of half datasets (1) and the share inside 50 and 90 % intervals."""
    tables = _half_statistic(files, bins, overall, _read_halves, half_files.half_calibration)
    output.print_tables("Calibration of SIGF by half datasets", tables)
    output.write_csv(tables, csv)
    if png:
        z = {str(f): half_files.half_difference(_read_halves(f)) for f in files}
        output.draw(plots.reliability_plot(output.short_names(z)), png)


@app.command()
def ccpred(
    files: Predictions, bins: Bins = 10, method: How = "pearson", overall: Overall = False,
    csv: Csv = None, png: Png = None,
) -> None:  # fmt: skip
    """Correlation of observed and predicted intensities of spots, fitted and held out (CCpred)."""
    found = {str(f): read_result(f, "I", "SIGI", "Ipred") for f in files}
    if overall:
        first = next(iter(found.values()))
        data = pd.concat([t.data for t in found.values()])
        found = {"all files": ResultTable("all files", data, first.cell, first.spacegroup)}
    limits = counts.shared_limits([t.data["d"].to_numpy() for t in found.values()], bins)
    tables = {name: spot_files.prediction_correlation(t, limits, method) for name, t in found.items()}
    output.by_resolution("CCpred", tables, {"cc_fitted": "fitted", "ccpred": "held out"}, csv, png)


@app.command("image-cc")
def image_cc(files: Predictions, method: How = "pearson", csv: Csv = None, png: Png = None) -> None:
    """Correlation of observed and predicted intensities by image; prints the ten lowest of each file."""
    found = [read_result(f, "I", "SIGI", "Ipred", "BATCH") for f in files]
    tables = {t.name: spot_files.image_correlation(t, method) for t in found}
    for name, t in tables.items():
        title = f"{name}: {len(t)} images, median CC {t['cc'].median():.3f}; lowest"
        output.print_rows(title, t.sort_values("cc", na_position="first").head(10))
    output.write_csv(tables, csv)
    if png:
        output.draw(plots.image_plot(output.short_names(tables)), png)


@app.command("filter-images")
def filter_images(
    predictions: Annotated[Path, typer.Argument(help="predictions_k.mtz", show_default=False)],
    unmerged: Annotated[
        list[Path], typer.Argument(help="Input file k of that merge (and .expt).", show_default=False)
    ],
    cutoff: Annotated[
        float, typer.Option("--cc-cutoff", "-c", help="Smallest CC of an image.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Unmerged MTZ to write.", show_default=False)],
    method: How = "pearson",
    png: Png = None,
) -> None:
    """Write the unmerged data again without the images whose CC is below a cut-off."""
    from bayesref.io.convert import write_unmerged

    table = read_result(predictions, "I", "SIGI", "Ipred", "BATCH")
    bad = spot_files.images_below(table, cutoff, method)
    seen = np.unique(table.data["BATCH"].to_numpy().astype(int))
    if len(bad) == len(seen):
        raise InputError(f"{predictions}: every image has a CC below {cutoff:g}; give a lower --cc-cutoff.")
    report = write_unmerged(unmerged, out, without_images=bad, expected_images=seen)
    print(
        f"{len(bad)} of {len(seen)} images have a CC below {cutoff:g}: {', '.join(map(str, bad[:20])) or 'none'}"
    )
    print(report)
    if png:
        output.draw(
            plots.image_plot({str(predictions): spot_files.image_correlation(table, method)}, cutoff), png
        )


@app.command()
def completeness(
    files: Merged, bins: Bins = 10, dmin: Dmin = None, dmax: Dmax = None, csv: Csv = None, png: Png = None
) -> None:
    """Completeness and multiplicity, with --anomalous data also of Friedel pairs."""
    found = {str(f): read_result(f, "N|N(+)") for f in files}
    possible = [counts.possible_reflections(t, dmax, dmin)[1] for t in found.values()]
    if not all(len(d) for d in possible):
        raise InputError("No reflection is possible between these limits; give --dmax above --dmin.")
    limits = counts.shared_limits(possible, bins)
    tables = {name: counts.completeness_table(t, limits, dmax, dmin) for name, t in found.items()}
    shown = {"completeness": "all", "anomalous": "Friedel pairs"}
    output.by_resolution("Completeness", tables, shown, csv, png)


@app.command()
def isigi(files: Files, bins: Bins = 10, csv: Csv = None, png: Png = None) -> None:
    """Mean I/SIGI and F/SIGF of merged data, half datasets or unmerged MTZ files."""
    found = {str(f): read_result(f, "I|F|F(+)") for f in files}
    limits = counts.shared_limits([t.data["d"].to_numpy() for t in found.values()], bins)
    tables = {name: counts.signal_table(t, limits) for name, t in found.items()}
    shown = {"I_over_SIGI": "I/SIGI", "F_over_SIGF": "F/SIGF", "F_over_SIGF(+)": "F(+)/SIGF(+)"}
    output.by_resolution("Signal", tables, shown, csv, png)


@app.command()
def bfactor(files: Files, bins: Bins = 20, csv: Csv = None, png: Png = None) -> None:
    """Wilson B of each file, and B above that of the first file from the reflections of both."""
    found = [read_result(f, "I|I(+)") for f in files]
    own = [wilson_b.wilson_b(t, bins) for t in found]
    relative = [wilson_b.relative_b(t, found[0], bins) for t in found[1:]]
    rows = [
        {"file": t.name, "B": o.B, "sd": o.error} | ({"above first": r.B, "sd of that": r.error} if r else {})
        for t, o, r in zip(found, own, [None, *relative], strict=True)
    ]
    output.print_rows("Wilson B (Å²)", pd.DataFrame(rows))
    output.write_csv({t.name: o.bins for t, o in zip(found, own, strict=True)}, csv)
    if png:
        falls = {t.name: o for t, o in zip(found, own, strict=True)}
        output.draw(plots.falloff_plot(output.short_names(falls)), png)
