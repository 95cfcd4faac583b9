"""Friedel mates as a mean and a difference, whose errors are independent.

    ȳ = (y₊/σ₊² + y₋/σ₋²) / (1/σ₊² + 1/σ₋²)      Δ = y₊ - y₋,   σ_Δ² = σ₊² + σ₋²,   Cov(ȳ, Δ) = 0
    intensities: δ = F₊ - F₋ = Δ / 2F,   F = E[F | ȳ] of Wilson's prior (French & Wilson, 1978)

The mates of one reflection share nearly all errors of a model: as two observations of an amplitude they would count
its agreement twice. The mean says what an amplitude without anomalous scattering would; the difference, small against
it, is known with an error of its own.
"""

from dataclasses import dataclass

import torch

from bayesref._checks import InputError, check_finite, check_positive, check_shape
from bayesref.distributions.french_wilson import french_wilson


@dataclass(frozen=True, eq=False)
class AnomalousPairs:
    """Differences of the acentric reflections both of whose mates were measured.

    Attributes
    ----------
    row : (pair,) int64, rows of the merged data
    difference, sigma : (pair,), F₊ - F₋ and its standard deviation
    F : (pair,), amplitude that the difference was divided by
    """

    row: torch.Tensor
    difference: torch.Tensor
    sigma: torch.Tensor
    F: torch.Tensor

    def __post_init__(self):
        if not len(self.row):
            raise InputError("No acentric reflection has both Friedel mates.")
        for name in ("difference", "sigma", "F"):
            check_shape(name, getattr(self, name), (len(self.row),))
        check_finite("difference", self.difference)
        check_positive("sigma", self.sigma)

    def __len__(self) -> int:
        return len(self.row)


def mean_of_mates(plus, sigma_plus, minus, sigma_minus) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted means (n,) and their standard deviations; NaN where a mate is missing leaves the other one."""
    w = torch.stack([sigma_plus, sigma_minus]) ** -2.0
    y = torch.stack([plus, minus])
    there = torch.isfinite(w) & torch.isfinite(y)
    w, y = torch.where(there, w, 0.0), torch.where(there, y, 0.0)
    total = w.sum(0)
    return (w * y).sum(0) / total, total**-0.5


def pairs_of(data, mates, Sigma) -> AnomalousPairs:
    """Differences of mates on the rows of merged data.

    Parameters
    ----------
    data : MergedData whose values are the means of the mates
    mates : (+), its sigma, (-), its sigma, (hkl,) each, NaN where there is none
    Sigma : (hkl,), ⟨F²/ε⟩
    """
    plus, sigma_plus, minus, sigma_minus = mates
    there = torch.isfinite(plus) & torch.isfinite(minus) & (sigma_plus > 0) & (sigma_minus > 0)
    row = (there & ~data.asu.centric).nonzero()[:, 0]
    difference = (plus - minus)[row]
    sigma = (sigma_plus**2 + sigma_minus**2).sqrt()[row]
    F = data.value[row]
    if data.kind == "I":
        asu = data.asu.subset(row)
        F = french_wilson(F, data.sigma[row], Sigma[row], asu.centric, asu.epsilon).F
        difference, sigma = difference / (2 * F), sigma / (2 * F)
    return AnomalousPairs(row, difference, sigma, F)
