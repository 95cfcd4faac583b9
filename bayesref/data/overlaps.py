"""Laue spots that several orders of reflection share.

    I_i ~ law(Σ_k K_ik F_k²)        k: the orders n h0 of one ray that the beam and the resolution let onto spot i

A spot of this kind has one intensity and several rows, one for each order: with its own reflection, wavelength and
resolution, and with the image and place on the detector that all of them share.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from bayesref.data.observations import Observations


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Spots of several orders.

    Attributes
    ----------
    orders : Observations, one row per order, sorted by reflection; I and SIGI are those of its spot
    spot : (order,) int64, spot of each row, 0 .. n-1
    """

    orders: Observations
    spot: torch.Tensor

    def __len__(self) -> int:
        return int(self.spot.max()) + 1 if len(self.spot) else 0

    @cached_property
    def first(self) -> torch.Tensor:
        """One row of each spot, for what its rows share, (spot,) int64."""
        rows = torch.zeros(len(self), dtype=torch.int64)
        return rows.index_copy(0, self.spot.flip(0), torch.arange(len(self.spot)).flip(0))

    @cached_property
    def I(self) -> torch.Tensor:  # noqa: E743  as in Observations
        """(spot,), as measured."""
        return self.orders.I[self.first]

    @cached_property
    def SIGI(self) -> torch.Tensor:
        """(spot,), as measured."""
        return self.orders.SIGI[self.first]

    def total(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over the orders of each spot, (*batch, order) -> (*batch, spot)."""
        return x.new_zeros(*x.shape[:-1], len(self)).index_add(-1, self.spot, x)

    def select(self, orders: torch.Tensor) -> "Overlaps":
        """The spots whose rows are marked; `orders` (order,) bool marks all rows of a spot or none."""
        _, spot = self.spot[orders].unique(return_inverse=True)
        return Overlaps(self.orders.subset(orders), spot)


def with_overlaps(obs: Observations, spot: torch.Tensor) -> Observations:
    """Rows of orders, taken apart into spots of one order and spots of several.

    Parameters
    ----------
    obs : one row per order of each spot
    spot : (row,) int64, which spot a row belongs to, any numbers

    Returns
    -------
    Observations of the spots of one order, with the others as its `overlaps`; as it was where there are none
    """
    _, number, count = spot.unique(return_inverse=True, return_counts=True)
    several = count[number] > 1
    if not bool(several.any()):
        return obs
    _, shared = number[several].unique(return_inverse=True)
    return replace(obs.subset(~several), overlaps=Overlaps(obs.subset(several), shared))
