"""Spots on disk: columns as files that are mapped into memory, in the order of reflections and in that of images.

    FOLDER/hkl_id.bin  I.bin  SIGI.bin  ...          sorted by reflection, as `Observations` has them
    FOLDER/images/hkl_id.bin  I.bin  ...             sorted by image, for minibatches of images

A page of a mapped file comes into memory when it is looked at, and goes when the memory is needed: what a fit holds
are its minibatch and its tables of images and reflections, however many spots there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from bayesref.data.observations import Observations

COLUMNS = ("hkl_id", "image_id", "file_id", "I", "SIGI", "hkl", "metadata", "row", "wavelength")
WRITE = 200_000  # spots written at a time


@dataclass(frozen=True, eq=False)
class MappedObservations(Observations):
    """Observations whose columns are files mapped into memory; pieces are made anew whenever they are asked for."""

    def pieces(self, limits: Sequence[tuple[int, int]]) -> "Pieces":
        """Reflections i .. j-1 for each (i, j)."""
        return Pieces(self, limits)


class Pieces(Sequence):
    """Slices of observations that are not kept: nor are the features that scales compute for them."""

    def __init__(self, obs: Observations, limits: Sequence[tuple[int, int]]):
        self.obs, self.limits = obs, list(limits)

    def __len__(self) -> int:
        return len(self.limits)

    def __getitem__(self, n):
        return self.obs.slice_reflections(*self.limits[n])


def on_disk(obs: Observations, folder: str | Path) -> MappedObservations:
    """The observations with their columns in files of `folder`, which is made where it is missing."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    own = {f.name: getattr(obs, f.name) for f in fields(Observations)}
    own |= {k: _mapped(own[k], folder / f"{k}.bin") for k in COLUMNS if own[k] is not None}
    return MappedObservations(**own)


def _mapped(x: torch.Tensor, path: Path, order: torch.Tensor | None = None) -> torch.Tensor:
    """x, or x[order], written to `path` and mapped."""
    if not x.numel():
        return x
    with path.open("wb") as f:
        for start in range(0, len(x), WRITE):
            part = slice(start, start + WRITE)
            f.write((x[part] if order is None else x[order[part]]).contiguous().numpy().tobytes())
    return torch.from_file(str(path), shared=True, size=x.numel(), dtype=x.dtype).reshape(x.shape)


class ImageStore:
    """Spots by image.

    Parameters
    ----------
    obs : Observations
    folder : where to keep copies of the columns in the order of the images; None: none is made, and the spots of a
        batch are gathered from `obs`
    """

    def __init__(self, obs: Observations, folder: str | Path | None = None):
        self.obs = obs
        order = obs.image_id.argsort(stable=True)
        counts = torch.bincount(obs.image_id, minlength=obs.n_image)
        self.ends = counts.cumsum(0)
        self.starts = self.ends - counts
        self.order = None if folder else order
        self.columns = {k: x for k in COLUMNS if (x := getattr(obs, k)) is not None}
        if folder:
            folder = Path(folder)
            folder.mkdir(parents=True, exist_ok=True)
            self.columns = {k: _mapped(x, folder / f"{k}.bin", order) for k, x in self.columns.items()}

    def places(self, images: torch.Tensor) -> torch.Tensor:
        """Places of the spots of these images in the order of all images, (spot,)."""
        starts, n = self.starts[images], (self.ends - self.starts)[images]
        first = torch.repeat_interleave(starts - (n.cumsum(0) - n), n)
        return first + torch.arange(int(n.sum()))

    def batch(self, images: torch.Tensor) -> tuple[torch.Tensor, Observations]:
        """Spots of these images: their places, and observations in that order (not sorted by reflection)."""
        places = self.places(images)
        rows = places if self.order is None else self.order[places]
        columns = {k: x[rows] for k, x in self.columns.items()}
        base = {f.name: getattr(self.obs, f.name) for f in fields(Observations)} | columns
        return places, replace(Observations(**base), overlaps=None, message=None)
