"""A small simulated serial experiment, read back from its stream, and what is true of it."""

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bayesref.data.simulate_serial import SerialSimulation, simulate_serial
from bayesref.io.stills_stream import write_serial
from bayesref.io.unmerged import read_unmerged

SMALL = {"cell": (40.0, 40.0, 30.0, 90.0, 90.0, 120.0), "dmin": 3.5, "width": 1e-3, "images": 120, "seed": 2}


@lru_cache
def small(**changes) -> tuple[SerialSimulation, object]:
    """A simulation and its observations."""
    s = simulate_serial(**(SMALL | changes))
    with TemporaryDirectory() as folder:
        stream, *_ = write_serial(s, Path(folder) / "s")
        group = str(s.options.spacegroup)
        obs = read_unmerged(stream, spacegroup=group, metadata_keys=["ewald_offset"])
    return s, obs


def true_choice(s: SerialSimulation) -> torch.Tensor:
    """The way that undoes the operator of each image: of order two, the operator itself."""
    return torch.from_numpy(s.operator)
