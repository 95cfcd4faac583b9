"""Merged data of a twin: every reflection knows its mate.

    I_h ~ Normal((1 - α) F_h² + α F_h'², SIGI_h)        h' = h T, see `crystal.twin_laws`

The rows are closed under T: a mate that was not measured has a row of its own, since its amplitude takes part in the
intensity of the other. Reflections whose mate the space group forbids are left out: few, all on axes.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from bayesref._checks import InputError
from bayesref.crystal.asu import reciprocal_asu
from bayesref.crystal.twin_laws import TwinLaw
from bayesref.data.merged import MergedData

NOTHING = (
    1e6  # SIGI of what was not measured, in units of the largest value: finite, for those who divide by it
)


@dataclass(frozen=True, eq=False)
class TwinnedData(MergedData):
    """Merged data whose rows are closed under a twin law.

    Attributes
    ----------
    mate : (hkl,) int64, row of the twin mate; its own where the law maps a reflection to itself
    present : (hkl,) bool, measured; False for rows that are there as mates only
    twin : TwinLaw
    """

    mate: torch.Tensor = field(kw_only=True)
    present: torch.Tensor = field(kw_only=True)
    twin: TwinLaw = field(kw_only=True)

    @property
    def measured(self) -> torch.Tensor:
        return self.present

    @property
    def n_split(self) -> int:
        """Measured pairs of which one reflection is free and the other is not."""
        both = self.present & self.present[self.mate]
        return int((both & self.free & ~self.free[self.mate]).sum())

    def total(self, F: torch.Tensor, fraction) -> torch.Tensor:
        """√[(1 - α) F² + α F'²] of amplitudes F (..., hkl)."""
        return ((1 - fraction) * F**2 + fraction * F[..., self.mate] ** 2).sqrt()

    def subset(self, rows) -> MergedData:
        """The chosen reflections without their mates: data that know of no twin."""
        picked = {k: getattr(self, k)[rows] for k in ("value", "sigma", "free")}
        return MergedData(self.asu.subset(rows), self.kind, **picked, columns=self.columns, notes=self.notes)


def twinned(data: MergedData, law: TwinLaw) -> TwinnedData:
    """Merged data with the mates of all reflections.

    Raises
    ------
    InputError : data of several datasets or of Friedel mates kept apart
    """
    asu = data.asu
    if asu.anomalous or asu.n_dataset > 1:
        raise InputError("Twin refinement takes one dataset with Friedel mates merged.")
    mates, forbidden = law.mates(asu.hkl.numpy(), asu.spacegroup)
    notes = data.notes
    if forbidden.any():
        left_out = f"{int(forbidden.sum())} reflections whose twin mate the space group forbids were left out"
        data, mates, notes = data.subset(torch.from_numpy(~forbidden)), mates[~forbidden], (*notes, left_out)
    hkl = data.asu.hkl.numpy()
    closed, row = reciprocal_asu(np.concatenate([hkl, mates]), asu.cell, asu.spacegroup)
    mine = row[: len(hkl)]
    mate = torch.empty(len(closed), dtype=torch.int64)
    mate[mine] = row[len(hkl) :]
    mate[row[len(hkl) :]] = mine
    present = torch.zeros(len(closed), dtype=torch.bool)
    present[mine] = True
    value, sigma = torch.zeros(len(closed)).double(), torch.full((len(closed),), NOTHING).double()
    sigma *= float(data.value.abs().max())
    free = torch.zeros(len(closed), dtype=torch.bool)
    value[mine], sigma[mine], free[mine] = data.value, data.sigma, data.free
    free[~present] = free[mate][~present]
    return TwinnedData(
        closed, data.kind, value, sigma, free, data.columns, notes, mate=mate, present=present, twin=law
    )
