"""`bayesref models`: list, show and copy the model pages."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.syntax import Syntax

from bayesref import programs
from bayesref.cli.tables import table

app = typer.Typer(help="List, show and copy the model pages.", no_args_is_help=True, add_completion=False)
Name = Annotated[str, typer.Argument(help="Name of a page, or path of a .py file.", show_default=False)]


@app.command("list")
def list_models() -> None:
    """Names of the pages, with a line about each."""
    t = table("", "model", "")
    t.columns[1].justify = "left"
    for name in programs.names():
        t.add_row(name, programs.summary(name))
    Console().print(t)


@app.command()
def show(name: Name) -> None:
    """Print a page."""
    text, console = programs.source(name), Console()
    if console.is_terminal:
        console.print(Syntax(text, "python"))
    else:
        print(text, end="")


@app.command()
def copy(
    name: Name,
    destination: Annotated[
        Path | None, typer.Argument(help="File or folder; NAME.py here.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Copy a page, to edit it and give it to `bayesref merge --model FILE`."""
    print(programs.copy(name, destination, overwrite))
