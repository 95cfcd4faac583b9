"""Laue stills with known amplitudes, to test how overlapped spots are taken apart.

    q = R_j h            reflection h on image j, in a random orientation R_j; the beam runs along z
    λ = -2 q_z/q²        the wavelength at which it diffracts; spots are the rays with an order in [low, high]
    K = G g(λ) exp(-2 B s²) k_j (1 + 0.1 cos x + 0.1 sin y),    g(λ) = exp(-(log(λ/λ₀)/0.35)²/2)
    I_i ~ Normal(S_i, sd_i),  S_i = Σ_orders K F²,  sd_i² = sig0² + gain S_i + (sdadd S_i)²

A spot is listed under one of its orders, taken at random, or under two. λ₀ is the mean of low and high; k_j is
log-normal; x, y: distance from the beam centre in units of 500 pixels. Amplitudes are Wilson, ⟨F²⟩ = ε.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np
import reciprocalspaceship as rs
from scipy.stats import special_ortho_group

from bayesref._checks import InputError
from bayesref.crystal import symmetry
from bayesref.crystal.lattice import as_cell, as_spacegroup, check_compatible, check_resolution
from bayesref.data.simulate import MergeSimulation

BEAM_CENTRE = 1000.0  # pixels
DISTANCE = 700.0  # of the detector, in pixels
LARGEST = 60.0  # degrees, the largest 2θ on the detector
SCALE_LENGTH = 500.0  # pixels per radian of the scale's variation over the detector
SPOT_TYPES = {"I": "J", "SIGI": "Q", "BATCH": "B", "X": "R", "Y": "R", "Wavelength": "R"}
TRUTH_TYPES = {"FTRUE": "F", "EPS": "R", "CENTRIC": "I", "N": "I", "NSINGLE": "I"}


@dataclass(frozen=True)
class LaueOptions:
    """Settings of `simulate_laue`.

    Attributes
    ----------
    cell : a b c in Å, angles in degrees
    spacegroup : symbol or number
    dmin : resolution limit, Å
    images : stills, each in a random orientation
    low, high : wavelengths of the beam, Å
    G, B : scale, and fall-off of amplitudes in Å²
    sig0, gain, sdadd : error model, in units of I, √I and a fraction of I
    image_noise : standard deviation of the log scale from image to image
    singles : fraction of the spots of one order that are written: a lattice has 12 % overlapped spots at the most
    twice : fraction of the spots of several orders that the file lists under two of them
    seed : of the random numbers
    """

    cell: tuple[float, ...] = (28.0, 36.0, 43.0, 90.0, 90.0, 90.0)
    spacegroup: str | int = "P 21 21 21"
    dmin: float = 2.2
    images: int = 24
    low: float = 0.5
    high: float = 2.0
    G: float = 500.0
    B: float = 15.0
    sig0: float = 60.0
    gain: float = 4.0
    sdadd: float = 0.03
    image_noise: float = 0.2
    singles: float = 1.0
    twice: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("dmin", "images", "low", "G", "sig0"):
            if not getattr(self, name) > 0:
                raise InputError(f"Option {name} is {getattr(self, name)}; it must be above zero.")
        for name in ("gain", "sdadd", "image_noise"):
            if not getattr(self, name) >= 0:
                raise InputError(f"Option {name} is {getattr(self, name)}; it must not be negative.")
        if not self.low < self.high:
            raise InputError(
                f"The wavelengths {self.low} to {self.high} Å are no band; give the lower one first."
            )
        for name in ("singles", "twice"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"Option {name} is {getattr(self, name)}; it must lie between 0 and 1.")


def simulate_laue(options: LaueOptions | None = None, **changes) -> MergeSimulation:
    """Simulate Laue stills of one crystal form.

    Parameters
    ----------
    options : settings, default `LaueOptions()`
    changes : settings to change, by name

    Returns
    -------
    MergeSimulation of one dataset: spots H K L I SIGI BATCH X Y Wavelength; truth H K L FTRUE EPS CENTRIC and the
    number of spots, N, and of those that hold this order alone, NSINGLE. `scale` is that of the order named.

    Raises
    ------
    InputError : a setting that is unknown or out of range, or no spot
    """
    known = [f.name for f in fields(LaueOptions)]
    for name in changes:
        if name not in known:
            raise InputError(f"Option '{name}' is unknown; options are {', '.join(known)}.")
    o = replace(options or LaueOptions(), **changes)
    rng = np.random.default_rng(o.seed)
    cell, group = as_cell(o.cell), as_spacegroup(o.spacegroup)
    hkl, F, truth = _crystal(o, cell, group, rng)
    orders = _diffract(hkl, np.array(cell.frac.mat.tolist()), o, rng)
    if not len(orders["hkl"]):
        raise InputError(
            "No reflection diffracts in this band on these images; widen the band or add images."
        )
    K = _scale(orders, o, rng)
    spots, scale, sd = _measure(hkl, K * F[orders["hkl"]] ** 2, K, orders, o, rng)
    _count(truth, hkl, orders, group)
    names = ["H", "K", "L"]
    data = rs.DataSet(spots, cell=cell, spacegroup=group, merged=False)
    data = data.astype(dict.fromkeys(names, "H") | SPOT_TYPES).set_index(names)
    known = rs.DataSet(truth, cell=cell, spacegroup=group, merged=True)
    known = known.astype(dict.fromkeys(names, "H") | TRUTH_TYPES).set_index(names)
    return MergeSimulation((data,), (known,), (scale,), (sd,), cast(Any, o))


def _crystal(o, cell, group, rng):
    """All reflections of the sphere, (hkl, 3), their amplitudes, and the table of unique ones."""
    check_compatible(cell, group)
    check_resolution(cell, group, o.dmin)
    unique = rs.utils.generate_reciprocal_asu(cell, group, o.dmin, anomalous=False)
    unique = unique[~symmetry.is_absent(unique, group)]
    epsilon, centric = symmetry.epsilon(unique, group).astype(float), symmetry.is_centric(unique, group)
    real, imaginary = rng.normal(size=(2, len(unique)))
    F = np.sqrt(epsilon) * np.abs(np.where(centric, real, (real + 1j * imaginary) / np.sqrt(2)))
    truth = dict(zip("HKL", unique.T, strict=True))
    truth |= {"FTRUE": F, "EPS": epsilon, "CENTRIC": centric.astype(int)}
    ops = list(group.operations())
    sphere = np.concatenate([s * rs.utils.apply_to_hkl(unique, op) for op in ops for s in (1, -1)])
    sphere, first = np.unique(sphere, axis=0, return_index=True)
    return sphere.astype(np.int64), F[first % len(unique)], truth


def _diffract(hkl, fractionalize, o, rng):
    """Every order in the beam on every image: columns hkl (row of `hkl`), image, spot, single, wavelength, x, y, s2."""
    q0 = hkl @ fractionalize  # Å⁻¹
    n = np.gcd.reduce(hkl, axis=1)
    _, ray = np.unique(hkl // n[:, None], axis=0, return_inverse=True)
    columns: dict[str, list] = {k: [] for k in ("hkl", "image", "ray", "wavelength", "x", "y", "s2")}
    for image, R in enumerate(special_ortho_group.rvs(3, size=o.images, random_state=rng).reshape(-1, 3, 3)):
        q = q0 @ R.T
        q2 = (q**2).sum(1)
        wavelength = -2 * q[:, 2] / q2
        out = wavelength[:, None] * q + np.array([0.0, 0.0, 1.0])  # direction of the diffracted beam
        seen = (wavelength >= o.low) & (wavelength <= o.high) & (out[:, 2] > np.cos(np.radians(LARGEST)))
        position = DISTANCE * out[seen, :2] / out[seen, 2:]
        values = (np.flatnonzero(seen), np.full(seen.sum(), image), ray.reshape(-1)[seen], wavelength[seen])
        for k, v in zip(columns, (*values, *position.T, 0.25 * q2[seen]), strict=True):
            columns[k].append(v)
    orders = {k: np.concatenate(v) for k, v in columns.items()}
    number = orders["image"] * (int(ray.max()) + 1) + orders.pop("ray")
    _, orders["spot"], orders["count"] = np.unique(number, return_inverse=True, return_counts=True)
    orders["single"] = orders.pop("count")[orders["spot"]] == 1
    keep = ~orders["single"] | (rng.uniform(size=len(number)) < o.singles)
    orders = {k: v[keep] for k, v in orders.items()}
    _, orders["spot"] = np.unique(orders["spot"], return_inverse=True)
    return orders


def _scale(orders, o, rng):
    centre = np.log(0.5 * (o.low + o.high))
    spectrum = np.exp(-0.5 * ((np.log(orders["wavelength"]) - centre) / 0.35) ** 2)
    image = np.exp(o.image_noise * rng.normal(size=o.images))[orders["image"]]
    x, y = orders["x"] / SCALE_LENGTH, orders["y"] / SCALE_LENGTH
    place = 1 + 0.1 * np.cos(x) + 0.1 * np.sin(y)
    return o.G * spectrum * np.exp(-2 * o.B * orders["s2"]) * image * place


def _measure(hkl, part, K, orders, o, rng):
    """Rows of the file, and the scale and standard deviation of each."""
    spot = orders["spot"]
    total, count = np.bincount(spot, part), np.bincount(spot)
    sd = np.sqrt(o.sig0**2 + o.gain * total + (o.sdadd * total) ** 2)
    I = total + sd * rng.normal(size=len(total))
    # In random order, the first of a spot is the one it is listed under, and the second where it is listed twice.
    shuffled = rng.permutation(len(spot))
    by_spot = shuffled[np.argsort(spot[shuffled], kind="stable")]
    start = np.cumsum(count) - count
    again = (count > 1) & (rng.uniform(size=len(count)) < o.twice)
    rows = np.sort(np.concatenate([by_spot[start], by_spot[start[again] + 1]]))
    table = dict(zip("HKL", hkl[orders["hkl"][rows]].T, strict=True))
    table |= {"I": I[spot[rows]], "SIGI": sd[spot[rows]], "BATCH": orders["image"][rows] + 1}
    table |= {"X": orders["x"][rows] + BEAM_CENTRE, "Y": orders["y"][rows] + BEAM_CENTRE}
    return table | {"Wavelength": orders["wavelength"][rows]}, K[rows], sd[spot[rows]]


def _count(truth, hkl, orders, group):
    """Columns N and NSINGLE of the truth."""
    unique = np.column_stack([truth[k] for k in "HKL"])
    seen, _ = symmetry.to_asu(hkl[orders["hkl"]], group)
    bound = int(np.abs(hkl).max())
    key = symmetry.pack(unique, bound)
    order = np.argsort(key)
    row = order[np.searchsorted(key, symmetry.pack(seen, bound), sorter=order)]
    truth["N"] = np.bincount(row, minlength=len(key))
    truth["NSINGLE"] = np.bincount(row[orders["single"]], minlength=len(key))
