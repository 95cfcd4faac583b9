"""`bayesref merge` of serial stills: what is found out about each image, and where the spots are kept meanwhile."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from bayesref._checks import InputError
from bayesref.cli.options import MergeSettings
from bayesref.data.observations import Observations
from bayesref.inference import distributed
from bayesref.inference.cross_validation import Predictions
from bayesref.inference.image_outliers import Images
from bayesref.inference.reindexing import check_ways, closed, lattice_ways, reindexed
from bayesref.inference.reindexing_start import first_consensus
from bayesref.results.images import image_table, write_images

EPOCHS = 12  # at most, where --epochs does not say
OPTIONS = ("reindex", "image_outliers", "image_quality", "on_disk", "batch_memory")


@dataclass(frozen=True, eq=False)
class StillsRun:
    """A fit that concerns the images.

    Attributes
    ----------
    images : what is found out
    store : folder of the spots, or None
    memory : "shares" or "running"
    epochs : at most
    """

    images: Images
    store: Path | None
    memory: str
    epochs: int

    def fit_options(self) -> dict:
        """Options of `fit`."""
        own = {"images": self.images, "store": self.store, "memory": self.memory, "epochs": self.epochs}
        return {"method": "stills", **own}

    def close(self) -> None:
        """Remove the spots on disk."""
        if self.store is not None:
            shutil.rmtree(self.store, ignore_errors=True)


def stills_run(
    settings: MergeSettings, obs: Observations, console: Console
) -> tuple[Observations, StillsRun | None]:
    """The observations, with every way of indexing in their asymmetric unit, and the run; None for an ordinary fit.

    Raises
    ------
    InputError : options that do not go together, a lattice without ambiguity, a wrong operator
    """
    asked = [k for k in OPTIONS if getattr(settings, k) not in (None, False)]
    if settings.reindex is None:
        for note in unsettled(obs):
            console.print(note)
    if not asked:
        return obs, None
    _check(settings, obs, asked)
    ways = None
    if settings.reindex is not None:
        matrices = lattice_ways(obs.asu.cell, obs.asu.spacegroup, settings.reindex)
        check_ways(len(matrices), obs.asu.spacegroup)
        obs, ways = closed(obs, matrices)
    images = Images(obs.n_image, ways, settings.image_outliers, settings.image_quality)
    if images.undecided and ways is not None:
        bad = 0.05 if settings.image_outliers else 0.0
        start = first_consensus(obs, ways, bad, seed=settings.seed)
        images.probability = torch.from_numpy(start.probability)
        n = torch.bincount(images.choice, minlength=len(ways)).tolist()
        told = ", ".join(f"{k:,} as {op}" for op, k in zip(ways.operators, n, strict=True))
        console.print(f"First consensus of {obs.n_image:,} images: {told}.")
    store = settings.out / "spots" if settings.on_disk else None
    return obs, StillsRun(images, store, settings.batch_memory or "shares", settings.epochs or EPOCHS)


def unsettled(obs: Observations) -> list[str]:
    """A sentence about stills that may be indexed in several ways, and are merged as they are."""
    if obs.report is None or not any(f.stills for f in obs.report.files):
        return []
    n = len(lattice_ways(obs.asu.cell, obs.asu.spacegroup))
    if n < 2:
        return []
    return [
        f"The lattice lets a still be indexed in {n} ways; all are merged as they are. Unless their ways were made "
        "alike before, amplitudes are means over ways, like those of a twin: --method svi --reindex auto finds out."
    ]


def _check(settings, obs, asked) -> None:
    flag = "--" + asked[0].replace("_", "-")
    if settings.method != "svi":
        raise InputError(f"{flag} is of the fit over minibatches of images; add --method svi.")
    if distributed.size() > 1:
        raise InputError(f"{flag} runs in one process; start it without torchrun.")
    if getattr(obs, "overlaps", None):
        raise InputError(f"{flag} is for monochromatic stills; leave the overlapped Laue spots out.")
    if settings.prior_mtz is not None or settings.prior_model is not None:
        raise InputError(f"{flag} is for Wilson's prior; leave --prior and its reference out.")
    if settings.double_wilson_parents:
        raise InputError(f"{flag} has no related datasets; leave --double-wilson-parents out.")
    if settings.image_outliers and settings.reindex is None and obs.n_image < 3:
        raise InputError("--image-outliers compares images with one another; three at least are needed.")


def as_indexed(run: StillsRun, obs: Observations, held_out) -> tuple[Observations, torch.Tensor | None]:
    """All spots in the ways found, and which of them were held out."""
    if run.images.ways is None:
        return obs, held_out
    rows = torch.arange(len(obs))
    tagged = reindexed(replace(obs, row=rows), run.images.ways, run.images.choice)
    order = tagged.row
    return replace(tagged, row=obs.row[order]), None if held_out is None else held_out[order]


def write_table(run: StillsRun, obs: Observations, predictions: Predictions, out: Path, console) -> None:
    """images.csv, and a sentence about it."""
    table = image_table(run.images, obs, predictions)
    write_images(table, out / "images.csv")
    seen = table[table["spots"] > 0]
    parts = []
    if run.images.ways is not None:
        counts = seen["operator"].value_counts()
        parts.append(", ".join(f"{n:,} as {op}" for op, n in counts.items()))
    if run.images.outliers:
        parts.append(f"{int((seen['p_bad'] > 0.5).sum()):,} bad")
    console.print(f"Images: {len(seen):,}" + "".join(f"; {p}" for p in parts) + "; see images.csv.")
