"""Merged data: one measurement per unique reflection, intensities or amplitudes, and the R-free set.

    kind "I":  I_h ~ Normal(F_h², SIGI_h)          kind "F":  F_obs ~ Normal(F_h, SIGF_h)

Intensities are to be preferred: they may be negative, and their errors are normal; amplitudes have been through a
prior already.
"""

from dataclasses import dataclass, replace

import pyro.distributions as dist
import torch

from bayesref._checks import InputError, check_finite, check_positive, check_shape
from bayesref.crystal.asu import ReciprocalASU

KINDS = ("I", "F")


@dataclass(frozen=True, eq=False)
class MergedData:
    """Merged intensities or amplitudes.

    Attributes
    ----------
    asu : ReciprocalASU, the reflections
    kind : "I" or "F"
    value, sigma : (hkl,) float64, I and SIGI, or F and SIGF
    free : (hkl,) bool, the R-free set; all False where there is none
    columns : what was read: {"value": "IMEAN", "sigma": "SIGIMEAN", "free": "FreeR_flag", ...}
    notes : what was left out and why, and how the free set was recognised
    """

    asu: ReciprocalASU
    kind: str
    value: torch.Tensor
    sigma: torch.Tensor
    free: torch.Tensor
    columns: dict
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        if self.kind not in KINDS:
            raise InputError(f"Merged data are of kind I or F, not {self.kind!r}.")
        for name in ("value", "sigma", "free"):
            check_shape(name, getattr(self, name), (len(self.asu),))
        check_finite("value", self.value)
        check_positive("sigma", self.sigma)

    def __len__(self) -> int:
        return len(self.asu)

    def law(self, F: torch.Tensor) -> dist.Distribution:
        """Distribution of the measurements given amplitudes F (..., hkl)."""
        return dist.Normal(F**2 if self.kind == "I" else F, self.sigma)

    def subset(self, rows) -> "MergedData":
        """The chosen reflections (bool mask, index or slice)."""
        picked = {k: getattr(self, k)[rows] for k in ("value", "sigma", "free")}
        return replace(self, asu=self.asu.subset(rows), **picked)

    @property
    def measured(self) -> torch.Tensor:
        """(hkl,) bool: all but what is there for the sake of others, see `refinement.twin_data`."""
        return torch.ones(len(self), dtype=torch.bool)

    @property
    def F_obs(self) -> torch.Tensor:
        """Amplitudes for R factors, (hkl,): F as measured, or √max(I, 0)."""
        return self.value if self.kind == "F" else self.value.clamp(min=0).sqrt()
