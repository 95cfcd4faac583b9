"""Spots: unmerged intensities and what is known of each.

Spots are sorted by reflection, so those of one reflection are contiguous.
"""

from dataclasses import dataclass

import torch

from bayesref.crystal.asu import ReciprocalASU


@dataclass(frozen=True)
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
    row : (spot,) int64, row in its input file
    n_image : int
    files : names of the input files
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

    def __len__(self) -> int:
        return len(self.I)

    @property
    def stol2(self) -> torch.Tensor:
        """s² = 1/(4 d²) of each spot, Å⁻², (spot,)."""
        return self.asu.stol2[self.hkl_id]
