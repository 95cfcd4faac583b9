"""Simulated spots with the amplitudes and scales behind them, as `Observations`."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import bayesref as br
from bayesref.crystal.symmetry import pack
from bayesref.io.simulation import write_simulation

METADATA = ("BATCH", "dHKL", "X", "Y")


@dataclass(frozen=True)
class Simulated:
    """obs; F (hkl,) true amplitudes; log_K, sd (spot,) true log scales and standard deviations."""

    obs: br.Observations
    F: torch.Tensor
    log_K: torch.Tensor
    sd: torch.Tensor


@cache
def simulated(metadata=METADATA, **options) -> Simulated:
    """`simulate_merge(**options)` of one dataset, written, read back, and put beside its truth."""
    made = br.simulate_merge(**options)
    with TemporaryDirectory() as folder:
        files, _ = write_simulation(made, Path(folder) / "simulated")
        obs = br.read_unmerged(files, metadata_keys=metadata)
    table = made.truth[0].reset_index()
    known = dict(
        zip(pack(table[["H", "K", "L"]].to_numpy(int), 99), table["FTRUE"].to_numpy(float), strict=True)
    )
    F = torch.tensor([known[k] for k in pack(obs.asu.hkl.numpy(), 99)], dtype=torch.float64)
    log_K, sd = (torch.from_numpy(x[0])[obs.row] for x in (made.scale, made.sd))
    return Simulated(obs, F, log_K.log(), sd)
