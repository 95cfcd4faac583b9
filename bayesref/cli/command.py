"""A command whose options are the fields of a dataclass.

Options are declared once, as fields with their help, and read the same from the command line, from tests and from
other commands: `merge(MergeSettings(files=[...], out=...))`.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import get_type_hints


def command_from(settings: type, run: Callable) -> Callable:
    """A function for typer, with one parameter per field of `settings`, that calls `run(settings(...))`."""
    hints = get_type_hints(settings, include_extras=True)
    parameters = [
        inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if f.default is MISSING else f.default,
            annotation=hints[f.name],
        )
        for f in fields(settings)
    ]

    def command(**values):
        run(settings(**values))

    # One line per paragraph, for the terminal to wrap.
    command.__doc__ = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(run) or "")
    command.__name__ = run.__name__
    command.__annotations__ = dict(hints)
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command
