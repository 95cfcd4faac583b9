"""Unmerged intensities with known amplitudes, to test merging.

    E_1       ~ complex normal, ⟨|E|²⟩ = 1 (centric: real)                        first dataset
    E_{t+1}   = r E_t + √(1 - r²) E'                                              later ones, E' like E_1
    F_h       = √ε_h |E_h|                                                        Wilson, Σ = 1
    K_i       = G (1 + 0.4 cos(2π u + 0.7)) exp(-2 (B0 + B1 u) s²)
                  (1 + 0.1 cos x + 0.1 sin y) exp(image noise)
    sd_i²     = sig0² + gain K F² + (sdadd K F²)²
    I_i       ~ Normal or Student-t (K_i F_h², sd_i),     SIGI_i = sig_mis sd_i

u: number of the image over the number of images; s² = 1/(4 d²), Å⁻²; x, y: distance from the beam centre at
(1000, 1000) in units of 500 pixels. Reflections are measured a Poisson number of times (at least once), each
time under a random operator, on a random image. The chain of datasets is the double-Wilson model:
neighbouring amplitudes given each other are Rice (acentric) or Woolfson (centric) distributed.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import reciprocalspaceship as rs

from bayesref._checks import InputError
from bayesref.crystal import symmetry
from bayesref.crystal.lattice import as_cell, as_spacegroup, check_compatible, check_resolution

BEAM_CENTRE = 1000.0  # pixels
DETECTOR_RADIUS = 900.0  # pixels from the beam centre to a reflection at dmin
SCALE_LENGTH = 500.0  # pixels per radian of the scale's variation over the detector

# MTZ column types
SPOT_TYPES = {"I": "J", "SIGI": "Q", "BATCH": "B", "X": "R", "Y": "R"}
TRUTH_TYPES = {"FTRUE": "F", "EPS": "R", "CENTRIC": "I", "N": "I"}


@dataclass(frozen=True)
class MergeOptions:
    """Settings of `simulate_merge`.

    Attributes
    ----------
    n_datasets : related datasets (time points), one file each
    r : correlation of E between neighbouring datasets, 0 to 1
    cell : a b c in Å, angles in degrees
    spacegroup : symbol or number
    dmin : resolution limit, Å
    multiplicity : mean number of spots per reflection and dataset
    images : per dataset
    G : scale
    sig0, gain, sdadd : error model, in units of I, √I and a fraction of I
    B0, B1 : fall-off of amplitudes on the first image, and what is added by the last, Å²
    tdof : degrees of freedom of Student-t errors; None: normal
    outliers : fraction of spots with ten times the error
    sig_mis : SIGI over the true standard deviation
    image_noise : standard deviation of the log scale from image to image
    seed : of the random numbers
    """

    n_datasets: int = 1
    r: float = 0.95
    cell: tuple[float, ...] = (28.0, 36.0, 43.0, 90.0, 90.0, 90.0)
    spacegroup: str | int = "P 21 21 21"
    dmin: float = 2.2
    multiplicity: float = 8.0
    images: int = 100
    G: float = 500.0
    sig0: float = 60.0
    gain: float = 4.0
    sdadd: float = 0.03
    B0: float = 15.0
    B1: float = 5.0
    tdof: float | None = None
    outliers: float = 0.0
    sig_mis: float = 1.0
    image_noise: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("n_datasets", "dmin", "multiplicity", "images", "G", "sig0", "sig_mis"):
            if not getattr(self, name) > 0:
                raise InputError(f"Option {name} is {getattr(self, name)}; it must be above zero.")
        for name in ("gain", "sdadd", "image_noise"):
            if not getattr(self, name) >= 0:
                raise InputError(f"Option {name} is {getattr(self, name)}; it must not be negative.")
        for name in ("r", "outliers"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"Option {name} is {getattr(self, name)}; it must lie between 0 and 1.")
        if self.tdof is not None and not self.tdof > 0:
            raise InputError(f"Option tdof is {self.tdof}; it must be above zero, or left out.")


@dataclass(frozen=True, eq=False)
class MergeSimulation:
    """Simulated datasets, one entry of each tuple per dataset.

    Attributes
    ----------
    observations : H K L (as observed) I SIGI BATCH X Y, one row per spot, sorted by BATCH
    truth : H K L (unique) FTRUE EPS CENTRIC N, N = number of spots
    scale : (spot,) K_i, in the order of `observations`
    sd : (spot,) true standard deviation of I_i, likewise
    options : what was asked for
    """

    observations: tuple[rs.DataSet, ...]
    truth: tuple[rs.DataSet, ...]
    scale: tuple[np.ndarray, ...]
    sd: tuple[np.ndarray, ...]
    options: MergeOptions

    def __str__(self) -> str:
        lines = []
        for t, (spots, truth, sd) in enumerate(zip(self.observations, self.truth, self.sd, strict=True)):
            I = spots["I"].to_numpy(float)
            centric = float(np.mean(truth["CENTRIC"].to_numpy(float)))
            lines.append(
                f"dataset {t}: {len(truth):,} reflections ({centric:.1%} centric), {len(spots):,} spots, "
                f"mean I/sigma {np.mean(I / sd):.2f}, negative {np.mean(I < 0):.1%}"
            )
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class _Reflections:
    """Unique reflections of the simulated crystal: hkl (hkl, 3), epsilon, centric, dHKL (Å), each (hkl,)."""

    hkl: np.ndarray
    epsilon: np.ndarray
    centric: np.ndarray
    dHKL: np.ndarray


def simulate_merge(options: MergeOptions | None = None, **changes) -> MergeSimulation:
    """Simulate one or several related datasets.

    Parameters
    ----------
    options : settings, default `MergeOptions()`
    changes : settings to change, by name: `simulate_merge(n_datasets=2, seed=3)`

    Raises
    ------
    InputError : a setting that is unknown or out of range
    """
    unknown = set(changes) - {f.name for f in fields(MergeOptions)}
    if unknown:
        known = ", ".join(f.name for f in fields(MergeOptions))
        raise InputError(f"Option '{min(unknown)}' is unknown; options are {known}.")
    o = replace(options or MergeOptions(), **changes)
    rng = np.random.default_rng(o.seed)
    reflections = _unique_reflections(o)
    datasets = [_measure(reflections, F, o, rng) for F in _related_amplitudes(reflections, o, rng)]
    observations, truth, scale, sd = zip(*datasets, strict=True)
    return MergeSimulation(observations, truth, scale, sd, o)


def measure(hkl, epsilon, centric, dHKL, F, options: MergeOptions, seed: int) -> rs.DataSet:
    """Spots of given amplitudes: H K L I SIGI BATCH X Y, sorted by BATCH.

    Parameters
    ----------
    hkl, epsilon, centric, dHKL : (hkl, 3), (hkl,), (hkl,), (hkl,) Å, unique reflections of the options' crystal
    F : (hkl,), of mean square about one
    """
    reflections = _Reflections(
        np.asarray(hkl), np.asarray(epsilon, float), np.asarray(centric), np.asarray(dHKL)
    )
    return _measure(reflections, np.asarray(F), options, np.random.default_rng(seed))[0]


def _unique_reflections(o: MergeOptions) -> _Reflections:
    cell, group = as_cell(o.cell), as_spacegroup(o.spacegroup)
    check_compatible(cell, group)
    check_resolution(cell, group, o.dmin)
    hkl = rs.utils.generate_reciprocal_asu(cell, group, o.dmin, anomalous=False)
    hkl = hkl[~symmetry.is_absent(hkl, group)]
    return _Reflections(
        hkl=hkl,
        epsilon=symmetry.epsilon(hkl, group).astype(float),
        centric=symmetry.is_centric(hkl, group),
        dHKL=cell.calculate_d_array(symmetry.as_hkl(hkl)),
    )


def _related_amplitudes(reflections: _Reflections, o: MergeOptions, rng: np.random.Generator):
    """Yield F (hkl,) of each dataset in turn."""

    def draw():
        real, imaginary = rng.normal(size=(2, len(reflections.hkl)))
        return np.where(reflections.centric, real, (real + 1j * imaginary) / np.sqrt(2))

    E = draw()
    for _ in range(o.n_datasets):
        yield np.sqrt(reflections.epsilon) * np.abs(E)
        E = o.r * E + np.sqrt(1 - o.r**2) * draw()


def _measure(reflections: _Reflections, F: np.ndarray, o: MergeOptions, rng: np.random.Generator):
    """One dataset: observations, truth, K, sd."""
    n_spot = np.maximum(rng.poisson(o.multiplicity, size=len(F)), 1)
    h = np.repeat(np.arange(len(F)), n_spot)
    image = rng.integers(0, o.images, size=len(h))
    # In the order of the images, as integration programs write them.
    order = np.argsort(image, kind="stable")
    h, image = h[order], image[order]
    X, Y = _detector_positions(1 / reflections.dHKL[h], 1 / reflections.dHKL.min(), rng)
    K = _scale(image, 0.25 / reflections.dHKL[h] ** 2, X, Y, o, rng)
    mean = K * F[h] ** 2
    sd = np.sqrt(o.sig0**2 + o.gain * mean + (o.sdadd * mean) ** 2)
    error = rng.normal(size=len(h)) if o.tdof is None else rng.standard_t(o.tdof, size=len(h))
    error *= np.where(rng.uniform(size=len(h)) < o.outliers, 10, 1)
    hkl = _observed_indices(reflections.hkl, h, o, rng)
    spots = {"I": mean + sd * error, "SIGI": o.sig_mis * sd, "BATCH": image + 1, "X": X, "Y": Y}
    known = {"FTRUE": F, "EPS": reflections.epsilon, "CENTRIC": reflections.centric.astype(int), "N": n_spot}
    observations = _table(hkl, spots, SPOT_TYPES, o, merged=False)
    truth = _table(reflections.hkl, known, TRUTH_TYPES, o, merged=True)
    return observations, truth, K, sd


def _scale(image, stol2, X, Y, o: MergeOptions, rng: np.random.Generator) -> np.ndarray:
    u = image / o.images
    x, y = (X - BEAM_CENTRE) / SCALE_LENGTH, (Y - BEAM_CENTRE) / SCALE_LENGTH
    K = o.G * (1 + 0.4 * np.cos(2 * np.pi * u + 0.7)) * np.exp(-2 * (o.B0 + o.B1 * u) * stol2)
    K *= 1 + 0.1 * np.cos(x) + 0.1 * np.sin(y)
    return K * np.exp(o.image_noise * rng.normal(size=o.images))[image]


def _detector_positions(radius, largest: float, rng: np.random.Generator):
    """X, Y in pixels: radius grows with 1/d, the azimuth is random."""
    azimuth = rng.uniform(0, 2 * np.pi, size=len(radius))
    pixels = DETECTOR_RADIUS * radius / largest
    return BEAM_CENTRE + pixels * np.cos(azimuth), BEAM_CENTRE + pixels * np.sin(azimuth)


def _observed_indices(unique, h, o: MergeOptions, rng: np.random.Generator) -> np.ndarray:
    """(spot, 3): each spot's reflection under a random operator, with either sign."""
    ops = list(as_spacegroup(o.spacegroup).operations())
    which, sign = rng.integers(0, len(ops), size=len(h)), rng.choice([-1, 1], size=len(h))
    images = np.stack([rs.utils.apply_to_hkl(unique, op) for op in ops])  # (operator, hkl, 3)
    return images[which, h] * sign[:, None]


def _table(hkl, columns, types, o: MergeOptions, merged: bool) -> rs.DataSet:
    data = {"H": hkl[:, 0], "K": hkl[:, 1], "L": hkl[:, 2]} | columns
    table = rs.DataSet(data, cell=as_cell(o.cell), spacegroup=as_spacegroup(o.spacegroup), merged=merged)
    return table.astype({"H": "H", "K": "H", "L": "H"} | types).set_index(["H", "K", "L"])
