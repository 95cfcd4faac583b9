"""Maps of a difference: its mean at every voxel, the standard deviation of that, and how sure a feature is.

    Δρ(x) = 2/V Σ_h Re Δ(h) e^{-2πi h·x}
    mean    from m E[Δ∥] e^{iφ}: the across component is unseen, so that features have half of their height
    sd      over draws of Δ and of the dark phase, φ ~ von Mises about φ_calc, concentration 2 F G / V
    signed probability    P(Δρ > k s) - P(Δρ < -k s), normal;   s: root mean square of the mean map

Symmetry is in the draws, so that the larger variance on rotation axes is there too.
"""

from dataclasses import dataclass

import gemmi
import numpy as np
import torch
from scipy.ndimage import maximum_filter
from scipy.special import ndtr

SAMPLING = 3.0  # grid points per resolution limit, along each axis


@dataclass(frozen=True, eq=False)
class Voxels:
    """Maps on one grid over the cell, numpy (u, v, w).

    Attributes
    ----------
    grid : gemmi.FloatGrid with the cell and symmetry, its values of no meaning
    mean, sd : e/Å³ where amplitudes are absolute
    """

    grid: gemmi.FloatGrid
    mean: np.ndarray
    sd: np.ndarray

    @property
    def rms(self) -> float:
        """s, root mean square of the mean map."""
        return float(np.sqrt((self.mean**2).mean()))

    def probability(self, k: float) -> np.ndarray:
        """P(Δρ > k s) - P(Δρ < -k s)."""
        sd = np.maximum(self.sd, 1e-12 * self.rms)
        return ndtr((self.mean - k * self.rms) / sd) - ndtr((-self.mean - k * self.rms) / sd)


def synthesis(asu, F: torch.Tensor):
    """gemmi.FloatGrid of complex coefficients F (hkl,)."""
    hkl, values = asu.hkl.numpy().astype(np.int32), F.numpy().astype(np.complex64)
    data = gemmi.ComplexAsuData(asu.cell, asu.spacegroup, hkl, values)
    return data.transform_f_phi_to_map(sample_rate=SAMPLING)


def figure_of_merit(F, G, V, centric) -> torch.Tensor:
    """E[cos(φ - φ_calc)], (hkl,): I₁/I₀(2 F G / V), centric tanh(F G / V)."""
    x = 2 * F.clamp(min=0) * G / V
    return torch.where(centric, torch.tanh(0.5 * x), torch.special.i1e(x) / torch.special.i0e(x))


def difference_voxels(
    difference, F_dark, G, V, phase, n_draws: int = 100, seed: int = 0, report=lambda i: None
) -> Voxels:
    """Mean and standard deviation of the map of a difference.

    Parameters
    ----------
    difference : AmplitudeDifference
    F_dark : (hkl,), measured dark amplitude
    G, V : (hkl,), of the dark model, see `DarkModel`
    phase : (hkl,), its phase, radians
    """
    asu = difference.asu
    kappa = 2 * F_dark.clamp(min=0) * G / V
    fom = figure_of_merit(F_dark, G, V, asu.centric)
    turn = torch.polar(torch.ones_like(phase), phase)
    grid = synthesis(asu, fom * difference.mean * turn)
    mean = np.array(grid.array)
    total, square = np.zeros(mean.shape), np.zeros(mean.shape)
    g, numpy_g = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    for i in range(n_draws):
        acentric = torch.from_numpy(numpy_g.vonmises(0.0, kappa.numpy()))
        flipped = torch.rand(len(asu), generator=g, dtype=torch.float64) > 0.5 * (1 + fom)
        error = torch.where(asu.centric, torch.pi * flipped.double(), acentric)
        sample = synthesis(asu, difference.draw(g) * turn * torch.polar(torch.ones_like(error), error))
        x = np.array(sample.array) - mean
        total += x
        square += x**2
        report(i + 1)
    sd = np.sqrt(np.maximum(square - total**2 / n_draws, 0) / (n_draws - 1))
    return Voxels(grid, mean, sd.astype(np.float32))


@dataclass(frozen=True)
class Peak:
    """A feature: its place (fractional), height and standard deviation, and the atom next to it, Å away."""

    frac: tuple[float, float, float]
    height: float
    sd: float
    atom: str
    distance: float


def peaks(voxels: Voxels, crystal, n: int = 40, lowest: float = 3.0) -> list[Peak]:
    """The highest features of the mean map, of either sign, above `lowest` s, one of each set of symmetry mates."""
    size = maximum_filter(np.abs(voxels.mean), 3, mode="wrap")
    at = np.argwhere((np.abs(voxels.mean) == size) & (size > lowest * voxels.rms))
    order = np.argsort(-np.abs(voxels.mean[tuple(at.T)]), kind="stable")
    shape = np.array(voxels.mean.shape)
    found: list[Peak] = []
    places: list[np.ndarray] = []
    matrix = np.array(crystal.cell.orth.mat)
    operations = [(np.array(op.rot) / 24, np.array(op.tran) / 24) for op in crystal.spacegroup.operations()]
    atoms = np.linalg.solve(matrix, crystal.xyz.numpy().T).T
    for p in at[order]:
        x = p / shape
        mates = np.array([R @ x + t for R, t in operations])
        if places and _nearest(mates, np.array(places), matrix)[0] < 1.0:
            continue
        places.append(x)
        distance, where, mate = _nearest(mates, atoms, matrix)
        value, sd = float(voxels.mean[tuple(p)]), float(voxels.sd[tuple(p)])
        frac = mates[mate] + np.round(atoms[where] - mates[mate])
        found.append(Peak(tuple(frac.tolist()), value, sd, crystal.name[where], distance))
        if len(found) == n:
            break
    return found


def _nearest(a, b, matrix):
    """Least distance, Å, between points a and b (fractional) up to lattice translations, and rows of b and of a."""
    d = b[None] - a[:, None]
    d = (d - np.round(d)) @ matrix.T
    r = (d**2).sum(-1)
    i, j = np.unravel_index(int(r.argmin()), r.shape)
    return float(np.sqrt(r[i, j])), int(j), int(i)
