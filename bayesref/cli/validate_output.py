"""What `bayesref validate` prints, writes and draws."""

import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from bayesref.cli.tables import number, resolution_table, table, wide_console
from bayesref.io.atomic import atomic_path
from bayesref.results.plots import write_plot
from bayesref.results.validation_plots import resolution_plot


def print_tables(title: str, tables: Mapping[str, pd.DataFrame]) -> None:
    """Tables by resolution, whose last row is for all."""
    for name, t in short_names(tables).items():
        _print(f"{title}: {name}", resolution_table(None, t))


def _print(title, shown) -> None:
    # A title of the table itself would be wrapped to the width of the columns.
    console = wide_console(highlight=False)
    console.print(title, style="bold", soft_wrap=True)
    console.print(shown, "")


def print_rows(title: str, rows: pd.DataFrame) -> None:
    """Any table whose first column is text or a number that names the row."""
    shown = table(None, *map(str, rows.columns))
    for row in rows.to_dict("records"):
        first, *others = row.values()
        shown.add_row(str(first), *(number(x) for x in others))
    _print(title, shown)


def write_csv(tables: Mapping[str, pd.DataFrame], path: Path | None) -> None:
    """All tables below one another, told apart by the column `file`; the row for all has `bin` = all."""
    if path is None:
        return
    with atomic_path(path) as temporary:
        parts = []
        for name, t in tables.items():
            bins = [*range(len(t) - 1), "all"] if "dmax" in t else range(len(t))
            parts.append(t.assign(bin=list(bins), file=name))
        data = pd.concat(parts)
        data[["file", "bin", *(c for c in data if c not in ("file", "bin"))]].to_csv(temporary, index=False)


def draw(figure, path: Path) -> None:
    """PNG."""
    write_plot(figure, path)


def by_resolution(title: str, tables, columns: Mapping[str, str], csv: Path | None, png: Path | None) -> None:
    """Print, write and draw tables by resolution."""
    print_tables(title, tables)
    write_csv(tables, csv)
    if png:
        draw(resolution_plot(short_names(tables), columns, title), png)


def short_names(tables: Mapping) -> dict:
    """The same by the shortest ends of their paths that differ."""
    for n in range(1, 9):
        names = [os.sep.join(Path(name).parts[-n:]) for name in tables]
        if len(set(names)) == len(names):
            return dict(zip(names, tables.values(), strict=True))
    return dict(tables)
