"""history.csv: the steps of a fit, one row each.

step, phase (which part of the fit), elbo and gain in log units, evaluations so far, seconds since the fit began.
"""

import csv
from pathlib import Path

from bayesref.io.atomic import atomic_path

COLUMNS = ("step", "phase", "elbo", "gain", "evaluations", "seconds")


def write_history(history: list[dict], path: str | Path) -> None:
    """Write atomically; columns beyond `COLUMNS` follow them.

    Raises
    ------
    InputError : the file cannot be written
    """
    columns = list(dict.fromkeys([*COLUMNS, *(k for row in history for k in row)]))
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as f:
        writer = csv.DictWriter(f, columns)
        writer.writeheader()
        writer.writerows(history)
