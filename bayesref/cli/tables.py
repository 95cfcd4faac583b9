"""Tables that commands print."""

import torch
from rich.console import Console
from rich.table import Table

from bayesref.data.report import ReadReport
from bayesref.inference.posterior import Posterior
from bayesref.scaling.scale import Scale

WIDTH = 110  # characters


def wide_console(**options) -> Console:
    """A console for wide tables: where the terminal is narrow or not known, nothing is cut or wrapped to its width."""
    console = Console(emoji=False, **options)  # B->C:A: is no picture
    console.width = max(console.width, WIDTH)
    return console


def table(title: str | None, *columns: str) -> Table:
    """A table whose first column is text and the others numbers."""
    t = Table(
        title=title, title_justify="left", title_style="bold", header_style="", box=None, pad_edge=False
    )
    for i, c in enumerate(columns):
        t.add_column(c, justify="left" if i == 0 else "right")
    return t


def read_table(report: ReadReport | None) -> Table:
    """What was read and left out."""
    report = report or ReadReport()
    t = table("Read", "file", "rows", "spots", "images", "left out")
    for f in report.files:
        left_out = ", ".join(f"{n:,} {cause}" for cause, n in f.left_out.items() if n) or "none"
        t.add_row(f"{f.name} ({f.format})", f"{f.n_read:,}", f"{f.n_spot:,}", f"{f.n_image:,}", left_out)
    return t


def read_sentence(report: ReadReport | None) -> str:
    """One line: how many reflections, of which crystal."""
    return str(report).splitlines()[-1] + "."


def site_table(posterior: Posterior) -> Table:
    """Posterior mean and standard deviation of the model's numbers (the error model)."""
    t = table("Error model", "", "mean", "sd")
    for name, x in posterior.sites(n=400).items():
        if x[0].numel() == 1:
            x = x.reshape(-1)
            t.add_row(name, f"{float(x.mean()):.4g}", f"{float(x.std()):.2g}")
    return t


def scale_table(scale: Scale, posterior: Posterior) -> Table:
    """Prior standard deviation of each term of log K, and the size that its weights came to have."""
    t = table("Scale, log K", "term", "weights", "prior sd", "rms weight")
    w = posterior.latents.unpack(posterior.mean).get(scale.site, torch.zeros(scale.n_weights))
    start = 0
    for g in scale.groups:
        mine = w[start : start + g.n]
        start += g.n
        rms = float((mine**2).mean().sqrt()) * g.sd
        t.add_row(g.name, f"{g.n:,}", f"{g.sd:.3g}" + ("" if g.learned else " fixed"), f"{rms:.3g}")
    return t


TITLES = {
    "data": "Data",
    "halves": "Half datasets",
    "spots": "Spots, observed against expected",
    "overlaps": "Overlapped spots, observed against expected",
}


def statistics_table(name: str, statistics) -> Table:
    """A table by resolution, as `validation` makes it; its last row is for all."""
    kind, _, dataset = name.partition("_")
    return resolution_table(TITLES[kind] + (f", dataset {dataset}" if dataset else ""), statistics)


def resolution_table(title: str | None, statistics) -> Table:
    """A row for each bin, with its limits (columns dmax, dmin), and a last one for all."""
    columns = [c for c in statistics.columns if c not in ("dmax", "dmin")]
    t = table(title, "d (Å)", *columns)
    counts = {c for c in columns if (statistics[c].dropna() % 1 == 0).all() and statistics[c].max() > 1}
    for i, row in enumerate(statistics.to_dict("records")):
        last = i == len(statistics) - 1
        label = "all" if last else f"{row['dmax']:.2f} - {row['dmin']:.2f}"
        t.add_row(label, *(number(row[c], c in counts) for c in columns), style="bold" if last else None)
    return t


def number(x: float, count: bool = False) -> str:
    """A number for a table: a count, or to three decimals; - for none."""
    if x != x:
        return "-"
    return f"{x:,.0f}" if count or isinstance(x, int) else f"{x:.3f}"
