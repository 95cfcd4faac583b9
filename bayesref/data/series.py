"""A series of merged datasets: one dark, and one for each delay after the light.

F̂ (hkl, 1 + time), column 0 dark         SIGF = ∞ where a reflection was not measured
"""

from dataclasses import dataclass, replace

import torch

from bayesref._checks import InputError
from bayesref.crystal.asu import ReciprocalASU


@dataclass(frozen=True, eq=False)
class TimeSeries:
    """Amplitudes of one crystal form, before and at delays after the light.

    Attributes
    ----------
    asu : ReciprocalASU; every reflection was measured in the dark
    t : (time,), s, delays
    F, SIGF : (hkl, 1 + time)
    names : of the datasets, dark first
    """

    asu: ReciprocalASU
    t: torch.Tensor
    F: torch.Tensor
    SIGF: torch.Tensor
    names: tuple[str, ...]

    def __post_init__(self):
        shape = (len(self.asu), 1 + len(self.t))
        if self.F.shape != shape or self.SIGF.shape != shape or len(self.names) != shape[1]:
            raise InputError(
                f"A series of {shape[1]} datasets has F of shape {tuple(self.F.shape)}; expected {shape}."
            )

    def __len__(self) -> int:
        return len(self.asu)

    @property
    def n_time(self) -> int:
        return len(self.t)

    def subset(self, rows) -> "TimeSeries":
        """The chosen reflections (bool mask, index or slice)."""
        return replace(self, asu=self.asu.subset(rows), F=self.F[rows], SIGF=self.SIGF[rows])
