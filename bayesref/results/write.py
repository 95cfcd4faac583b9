"""All files of a merge.

merged_k.mtz halves_k.mtz predictions_k.mtz    see `results.mtz`
cchalf_k.png calibration.png                   see `results.plots`
history.csv                                    one row per step of the fit
posterior.nc                                   see `results.inference_data`
statistics.csv                                 tables by resolution
run.json                                       options, versions, seed, figures, why the fit ended
"""

import csv
import json
import platform
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bayesref.data.observations import Observations
from bayesref.inference.cross_validation import Halves, Predictions
from bayesref.inference.posterior import Amplitudes, Posterior
from bayesref.io.atomic import atomic_path
from bayesref.results import mtz, plots
from bayesref.results.inference_data import inference_data, write_inference_data

PACKAGES = ("bayesref", "torch", "pyro-ppl", "gemmi", "reciprocalspaceship", "numpy", "scipy", "arviz")


@dataclass(frozen=True)
class MergeResults:
    """What `write_all` writes.

    Attributes
    ----------
    posterior, amplitudes, predictions : of the fit; predictions are of the spots `obs`
    obs : Observations of the predictions, spots held out among them
    held_out : (spot,) bool of `obs`, or None
    halves : list of Halves
    tables : statistics by resolution, {name: table}
    z, z_label : the differences that the calibration plot shows, and what they are
    figures : numbers for run.json
    """

    posterior: Posterior
    amplitudes: Amplitudes
    predictions: Predictions
    obs: Observations
    held_out: torch.Tensor | None = None
    halves: list[Halves] = field(default_factory=list)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    z: np.ndarray = field(default_factory=lambda: np.zeros(0))
    z_label: str = ""
    figures: dict = field(default_factory=dict)


def write_all(results: MergeResults, directory: Path, options: dict, seed: int = 0) -> list[Path]:
    """Write every file, each atomically; run.json last, so that its presence says that the rest is complete.

    Raises
    ------
    InputError : a file cannot be written
    """
    directory, r, written = Path(directory), results, []

    def put(name, write, *args):
        write(*args, directory / name)
        written.append(directory / name)

    asu = r.posterior.obs.asu
    for k in range(asu.n_dataset):
        put(f"merged_{k}.mtz", mtz.write, mtz.merged_table(asu, r.amplitudes, k))
        if r.halves:
            put(f"halves_{k}.mtz", mtz.write, mtz.halves_table(asu, r.halves, k))
    for k in range(int(r.obs.file_id.max()) + 1):
        put(f"predictions_{k}.mtz", mtz.write, mtz.predictions_table(r.obs, r.predictions, k, r.held_out))
    for name, table in r.tables.items():
        if name.startswith("halves"):
            put(f"cchalf_{name.removeprefix('halves_')}.png", plots.write_plot, plots.cchalf_plot(table))
    if len(r.z):
        put("calibration.png", plots.write_plot, plots.calibration_plot(r.z, r.z_label))
    put("history.csv", _write_history, r.posterior.history)
    if r.tables:
        put("statistics.csv", _write_tables, r.tables)
    put("posterior.nc", write_inference_data, inference_data(r.posterior, r.amplitudes, seed=seed))
    put("run.json", _write_run, r, options, seed)
    return written


def _write_history(history, path):
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as f:
        writer = csv.DictWriter(f, ["step", "phase", "elbo", "gain", "evaluations", "seconds"])
        writer.writeheader()
        writer.writerows(history)


def _write_tables(tables, path):
    """All tables below one another, told apart by their first column."""
    with atomic_path(path) as temporary:
        pd.concat(tables, names=["table", "bin"]).to_csv(temporary)


def _write_run(r, options, seed, path):
    sites = {
        k: {"mean": float(x.mean()), "sd": float(x.std())}
        for k, x in r.posterior.sites(400, seed).items()
        if x[0].numel() == 1
    }
    run = {
        "options": {k: _plain(v) for k, v in options.items()},
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in PACKAGES},
        "seed": seed,
        "fit": {
            "reason": r.posterior.reason,
            "converged": bool(r.posterior.converged),
            "elbo": r.posterior.elbo,
            "elbo_error": r.posterior.elbo_error,
        },
        "sites": sites,
        "figures": r.figures,
    }
    with atomic_path(path) as temporary:
        Path(temporary).write_text(json.dumps(run, indent=2) + "\n")


def _plain(x):
    if isinstance(x, list | tuple):
        return [_plain(i) for i in x]
    return x if x is None or isinstance(x, bool | int | float | str) else str(x)


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
