"""Spots: unmerged intensities and what is known of each.

Spots are sorted by reflection, so those of one reflection are contiguous.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from bayesref.crystal.asu import ReciprocalASU
from bayesref.data.metadata import MetadataTransform
from bayesref.data.report import ReadReport

if TYPE_CHECKING:
    from bayesref.data.overlaps import Overlaps


@dataclass(frozen=True, eq=False)
class Observations:
    """Unmerged intensities, sorted by `hkl_id`.

    Attributes
    ----------
    asu : ReciprocalASU, the reflections that were measured
    hkl_id : (spot,) int64, row of `asu`
    image_id : (spot,) int64, 0 .. n_image-1, unique over files
    file_id : (spot,) int64, which input file
    I, SIGI : (spot,) float64, as measured
    hkl : (spot, 3) int64, indices as observed (before mapping to the asymmetric unit)
    metadata : (spot, key) float64, standardised
    metadata_keys : names of the columns of `metadata`
    row : (spot,) int64, row in its input file, counted from 0
    n_image : int
    files : names of the input files
    image_number : (image,) int64, the file's own number of each image (BATCH of an MTZ), or None
    image_file : (image,) int64, which input file each image is in, or None
    transform : how `metadata` came from the columns of the files, or None
    report : what was read and left out, or None
    typical_SIGI : median of SIGI; subsets and slices keep that of the whole
    wavelength : (spot,) float64, Å, of polychromatic data; else None
    overlaps : Overlaps, Laue spots that several reflections share, which are not among these spots; or None
    message : (2, hkl), a and b of exp(-a F⁴/2 + b F²): what is known of the amplitudes besides these spots; or None
    """

    asu: ReciprocalASU
    hkl_id: torch.Tensor
    image_id: torch.Tensor
    file_id: torch.Tensor
    I: torch.Tensor
    SIGI: torch.Tensor
    hkl: torch.Tensor
    metadata: torch.Tensor
    metadata_keys: tuple[str, ...]
    row: torch.Tensor
    n_image: int
    files: tuple[str, ...] = ()
    image_number: torch.Tensor | None = None
    image_file: torch.Tensor | None = None
    transform: MetadataTransform | None = None
    report: ReadReport | None = None
    typical_SIGI: float = math.nan
    wavelength: torch.Tensor | None = None
    overlaps: "Overlaps | None" = None
    message: torch.Tensor | None = None

    def __post_init__(self):
        if math.isnan(self.typical_SIGI) and len(self.SIGI):
            object.__setattr__(self, "typical_SIGI", float(self.SIGI.median()))

    def __len__(self) -> int:
        return len(self.I)

    @property
    def stol2(self) -> torch.Tensor:
        """s² = 1/(4 d²) of each spot, Å⁻², (spot,)."""
        return self.asu.stol2[self.hkl_id]

    @cached_property
    def offsets(self) -> torch.Tensor:
        """(hkl+1,) int64 on the CPU: spots of reflection h are rows offsets[h] up to offsets[h+1]."""
        ends = torch.bincount(self.hkl_id, minlength=len(self.asu)).cumsum(0)
        return torch.cat([ends.new_zeros(1), ends]).cpu()

    def counts(self) -> torch.Tensor:
        """Multiplicity: the number of spots of each reflection, overlapped ones included, (hkl,) int64."""
        own = self.offsets.diff().to(self.hkl_id.device)
        return own + self.overlaps.orders.counts() if self.overlaps else own

    def _map_spots(self, f, **changes) -> "Observations":
        columns = ("hkl_id", "image_id", "file_id", "I", "SIGI", "hkl", "metadata", "row", "wavelength")
        present = [k for k in columns if getattr(self, k) is not None]
        return replace(self, **{k: f(getattr(self, k)) for k in present} | changes)

    def subset(self, spots) -> "Observations":
        """The chosen spots, all reflections and images kept in the tables; `overlaps` stay as they are.

        Parameters
        ----------
        spots : (spot,) bool mask, or indices in any order (a repeated index repeats the spot), or a slice
        """
        if not isinstance(spots, slice):
            spots = torch.as_tensor(spots, device=self.hkl_id.device)
            # Indices are sorted so that the spots stay grouped by reflection.
            spots = spots if spots.dtype == torch.bool else spots.sort().values
        return self._map_spots(lambda x: x[spots])

    def subset_images(self, images: torch.Tensor) -> "Observations":
        """The spots of the images marked (image,) bool, `overlaps` included."""
        result = self.subset(images[self.image_id])
        if not self.overlaps:
            return result
        return replace(result, overlaps=self.overlaps.select(images[self.overlaps.orders.image_id]))

    def compact(self) -> "Observations":
        """Without the reflections that no spot measures; `hkl_id` is renumbered, images are not."""
        measured = self.offsets.diff() > 0
        new_id = measured.cumsum(0) - 1
        return replace(self, asu=self.asu.subset(measured), hkl_id=new_id[self.hkl_id])

    def slice_reflections(self, start: int, stop: int) -> "Observations":
        """Spots and asu rows of the reflections start .. stop-1; views, except `hkl_id`, which starts at 0.

        `overlaps` are left out: they may have orders elsewhere.
        `image_id` stays that of the whole, and so does `n_image`.
        """
        first, last = self.offsets[start], self.offsets[stop]
        spots = slice(int(first), int(last))
        return self._map_spots(
            lambda x: x[spots],
            asu=self.asu.subset(slice(start, stop)),
            hkl_id=self.hkl_id[spots] - start,
            overlaps=None,
            message=None if self.message is None else self.message[:, start:stop],
        )

    def to(self, device=None, dtype: torch.dtype | None = None) -> "Observations":
        """A copy on `device`, with floating-point columns as `dtype`; indices keep their type."""

        def move(x):
            return x.to(device, dtype if x.is_floating_point() else x.dtype)

        images = {
            k: v.to(device) for k in ("image_number", "image_file") if (v := getattr(self, k)) is not None
        }
        return self._map_spots(move, asu=self.asu.to(device, dtype), **images)
