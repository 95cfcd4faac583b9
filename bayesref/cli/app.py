"""The command `bayesref`.

Commands are imported when they are called, so that `bayesref --help` needs no torch. Bad input ends with one
sentence and exit code 2; anything unexpected with one sentence and exit code 1, or a traceback with --debug.
"""

import importlib
import math
import os
import sys
from functools import wraps
from importlib.metadata import version as version_of
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup

from bayesref._checks import InputError

# name -> module, attribute (a function, or a typer app with commands of its own), panel, one line of help
COMMANDS = {
    "merge": ("merge", "command", "Data", "Merge unmerged intensities: posterior amplitudes."),
    "refine": ("refine", "command", "Data", "Refine a model against merged data: posterior structures."),
    "kinetics": ("kinetics", "command", "Data", "Rate constants and occupancies from a pump-probe series."),
    "maps": ("maps", "command", "Data", "Difference maps of two datasets, with their uncertainty."),
    "sf": ("sf", "sf", "Data", "Structure factors of a model."),
    "project": ("project", "project", "Data", "Density of a model from simulated particle images."),
    "convert": ("convert", "convert", "Data", "Unmerged data of any format to an MTZ file."),
    "validate": ("validate", "app", "Data", "Statistics of merged data: CC1/2, completeness and others."),
    "models": ("models", "app", "Models", "List, show and copy the model pages."),
    "simulate": ("simulate", "app", "Trial runs", "Simulate data with known truth."),
    "demo": (
        "demo",
        "command",
        "Trial runs",
        "Simulate two time points, merge them, compare with the truth.",
    ),
}


INTERRUPTED = "interrupted; files that were not finished are not there."
LENGTHS = ("dmin", "dmax", "wavelength", "pixel")  # options in Å


class _LazyGroup(TyperGroup):
    """Commands known by name and summary until one is called."""

    def resolve_command(self, ctx, args):
        name, command, rest = super().resolve_command(ctx, args)
        try:
            return name, _load(name) if name in COMMANDS else command, rest
        except KeyboardInterrupt:  # here and in `_check_numbers`, since typer would say nothing
            _fail(INTERRUPTED, 130)


def _load(name: str):
    module, attribute, _, _ = COMMANDS[name]
    found = getattr(importlib.import_module(f"bayesref.cli.{module}"), attribute)
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False)
        single.command(name)(found)
        found = single
    command = typer.main.get_command(found)
    command.name = name
    _check_numbers(command)
    return command


def _check_numbers(command) -> None:
    """Let a command, and those below it, refuse numbers that mean nothing wherever they stand."""
    for below in getattr(command, "commands", {}).values():
        _check_numbers(below)
    run = command.callback

    @wraps(run)
    def checked(**values):
        for name, value in values.items():
            option = f"--{name.replace('_', '-')}"
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{option} is {value:g}; give a finite number.")
            if name in LENGTHS and value is not None and value <= 0:
                raise InputError(f"{option} is {value:g}; it must be above zero, in Å.")
            if name.endswith("seed") and value is not None and value < 0:
                raise InputError(f"{option} is {value}; give a whole number of zero or more.")
        try:
            return run(**values)
        except KeyboardInterrupt:
            _fail(INTERRUPTED, 130)

    if not hasattr(command, "commands"):
        command.callback = checked


app = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 110},
)


@app.callback()
def bayesref(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    """Bayesian merging and refinement for time-resolved macromolecular crystallography."""


def _stub() -> None:
    """Stands for a command in the list of commands."""


for _name, (_, _, _panel, _help) in COMMANDS.items():
    app.command(_name, help=_help, rich_help_panel=_panel)(_stub)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ends with SystemExit."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    # Threads that wait for work must not spin: on shared cores that costs ten times the work. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "--version" in arguments:
        print(f"bayesref {version_of('bayesref')}")
        sys.exit(0)
    try:
        app([a for a in arguments if a != "--debug"], prog_name="bayesref")
    except KeyboardInterrupt:
        _fail(INTERRUPTED, 130)
    except InputError as e:
        if debug:
            raise
        _fail(str(e), 2)
    except Exception as e:
        if debug:
            raise
        _fail(f"something went wrong that should not ({type(e).__name__}: {e}); --debug shows where.", 1)


def _fail(sentence: str, code: int) -> NoReturn:
    print(f"bayesref: {sentence}", file=sys.stderr)
    sys.exit(code)
