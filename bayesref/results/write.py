"""All files of a merge, in one directory.

merged_k.mtz halves_k.mtz predictions_k.mtz    see `results.mtz`
differences_k.mtz difference_halves_k.mtz      of related datasets, see `results.differences`
scaled_k.mtz                                   see `results.scaled`
overlaps_k.mtz                                 of overlapped Laue spots, see `results.overlaps`
cchalf_k.png calibration.png scale_k.png l_test_k.png      see `results.plots`, `results.twin_plots`
statistics.csv                                 tables by resolution, below one another
history.csv                                    see `results.history`
posterior.nc                                   see `results.inference_data`
run.json                                       see `results.run`

Merged, halves and cchalf are numbered by dataset, predictions, scaled, overlaps and scale by input file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bayesref.data.observations import Observations
from bayesref.inference.cross_validation import Halves, Predictions
from bayesref.inference.overlap_predictions import OverlapPredictions
from bayesref.inference.posterior import Amplitudes, Posterior
from bayesref.inference.tree_datasets import DatasetTree
from bayesref.io.atomic import atomic_path, prepare_output
from bayesref.io.write_mtz import write_mtz
from bayesref.results import mtz, plots
from bayesref.results.differences import difference_halves_table, differences_table
from bayesref.results.extras import Extras, add_columns
from bayesref.results.history import write_history
from bayesref.results.inference_data import posterior_datasets, write_posterior
from bayesref.results.overlaps import overlaps_table
from bayesref.results.run import run_record, write_run
from bayesref.results.scaled import scaled_table
from bayesref.results.twin_plots import l_curve, l_plot


@dataclass(frozen=True)
class OverlapResults:
    """Overlapped Laue spots: what is expected of them, and which were held out, (spot,) bool, or None."""

    predictions: OverlapPredictions
    held_out: torch.Tensor | None


@dataclass(frozen=True)
class MergeResults:
    """What `write_all` writes.

    Attributes
    ----------
    posterior, amplitudes, predictions : of the fit; predictions are of the spots `obs`
    obs : Observations of the predictions, spots held out among them
    held_out : (spot,) bool of `obs`, or None
    halves : list of Halves
    tables : statistics by resolution, {name: table}; those named halves_k are drawn
    z, z_label : the differences that the calibration plot shows, and what they are
    figures : numbers for run.json
    seconds : since the program began, or None
    extras : columns and files beyond the usual
    tree : which datasets are related, or None
    overlaps : of the overlapped Laue spots of `obs`, or None
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
    seconds: float | None = None
    extras: Extras = field(default_factory=Extras)
    tree: DatasetTree | None = None
    overlaps: OverlapResults | None = None


def write_all(results: MergeResults, directory: str | Path, options: Mapping, seed: int = 0) -> list[Path]:
    """Write every file, each atomically; run.json last, so that its presence says that the rest is complete.

    Parameters
    ----------
    directory : made where it is missing; files of the same names are replaced
    options : of the run, for run.json
    seed : that of `posterior.amplitudes`

    Returns
    -------
    Paths of the files, in the order written.

    Raises
    ------
    InputError : a file cannot be written
    """
    directory, r, written = prepare_output(directory, overwrite=True), results, []
    # A run.json of an earlier run must not vouch for files of this one.
    (directory / "run.json").unlink(missing_ok=True)

    def put(name, write, what):
        write(what, directory / name)
        written.append(directory / name)

    asu = r.posterior.obs.asu
    for k in range(asu.n_dataset):
        put(f"merged_{k}.mtz", write_mtz, add_columns(mtz.merged_table(asu, r.amplitudes, k), r.extras))
        if r.halves:
            put(f"halves_{k}.mtz", write_mtz, mtz.halves_table(asu, r.halves, k))
    _put_differences(r, put)
    for k in r.obs.file_id.unique().tolist():
        put(f"predictions_{k}.mtz", write_mtz, mtz.predictions_table(r.obs, r.predictions, k, r.held_out))
        if r.extras.scaled:
            put(f"scaled_{k}.mtz", write_mtz, scaled_table(r.obs, r.predictions, k))
        overlaps = r.obs.overlaps
        if r.overlaps and overlaps is not None and bool((overlaps.orders.file_id == k).any()):
            args = overlaps, r.overlaps.predictions, r.obs.image_number, k, r.overlaps.held_out
            put(f"overlaps_{k}.mtz", write_mtz, overlaps_table(*args))
    _put_plots(r, put)
    if r.tables:
        put("statistics.csv", _write_tables, r.tables)
    put("history.csv", write_history, r.posterior.history)
    put("posterior.nc", write_posterior, posterior_datasets(r.posterior, r.amplitudes, seed=seed))
    record = run_record(r.posterior, r.obs, dict(options), seed, r.figures, r.seconds)
    put("run.json", write_run, record)
    return written


def _put_differences(r, put):
    asu = r.posterior.obs.asu
    for k, parent in enumerate(r.tree.parents if r.tree else ()):
        if parent is not None:
            put(
                f"differences_{k}.mtz",
                write_mtz,
                differences_table(asu, r.amplitudes, r.tree, k, r.extras.wilson_b),
            )
            if r.halves:
                table = difference_halves_table(asu, r.halves, r.tree, k)
                put(f"difference_halves_{k}.mtz", write_mtz, table)


def _put_plots(r, put):
    for name, table in r.tables.items():
        if name.startswith("halves"):
            number = name.removeprefix("halves").removeprefix("_")
            put(
                f"cchalf_{number}.png" if number else "cchalf.png", plots.write_plot, plots.cchalf_plot(table)
            )
    if len(r.z):
        put("calibration.png", plots.write_plot, plots.calibration_plot(r.z, r.z_label))
    for name, figures in r.figures.items():
        if name.startswith("twinning_") and figures:
            curves = {"data": l_curve(figures["L_cumulative"])}
            put(f"l_test_{name.removeprefix('twinning_')}.png", plots.write_plot, l_plot(curves))
    number = r.obs.image_id if r.obs.image_number is None else r.obs.image_number[r.obs.image_id]
    dHKL = r.obs.asu.dHKL[r.obs.hkl_id]
    for k in r.obs.file_id.unique().tolist():
        mine = r.obs.file_id == k
        figure = plots.scale_plot(*(x[mine].numpy() for x in (number, dHKL, r.predictions.K)))
        put(f"scale_{k}.png", plots.write_plot, figure)


def _write_tables(tables, path):
    """All tables below one another, told apart by their first column."""
    with atomic_path(path) as temporary:
        pd.concat(tables, names=["table", "bin"]).to_csv(temporary)
