"""log p of the coordinates and its slope, for one model on a CPU: the densities of `geometry` over `compiled`."""

import math

import numpy as np
from scipy.special import i0e

from bayesref.restraints import compiled
from bayesref.restraints.geometry import LOG_2PI


def value_and_grad(tables: dict[str, dict[str, np.ndarray]], xyz: np.ndarray) -> tuple[float, np.ndarray]:
    """log p and d log p / dx (atom, 3) of the coordinates (atom, 3).

    Parameters
    ----------
    tables : fields of every table of restraints and of the images, as arrays
    """
    total, slope = 0.0, np.zeros_like(xyz)
    for kind, measure in _MEASURES.items():
        table = tables[kind]
        if len(table["atoms"]):
            total += measure(table, tables["images"], xyz, slope)
    return total, slope


def _normal(q, value, sigma):
    """log Normal and its slope with q, per restraint."""
    z = (q - value) / sigma
    return -0.5 * z * z - np.log(sigma) - 0.5 * LOG_2PI, -z / sigma


def _bonds(t, images, xyz, slope) -> float:
    q, J = compiled.distances(xyz, t["atoms"], t["image"], images["R"], images["t"])
    log_p, score = _normal(q, t["value"], t["sigma"])
    compiled.add_slopes(slope, t["atoms"], J, score)
    return log_p.sum()


def _angles(t, _, xyz, slope) -> float:
    q, J = compiled.angles(xyz, t["atoms"])
    log_p, score = _normal(q, t["value"], t["sigma"])
    compiled.add_slopes(slope, t["atoms"], J, score)
    return log_p.sum()


def _torsions(t, _, xyz, slope) -> float:
    q, J = compiled.torsions(xyz, t["atoms"])
    kappa = (t["period"] * t["sigma"]) ** -2.0
    phase = t["period"] * (q - t["value"])
    compiled.add_slopes(slope, t["atoms"], J, -kappa * t["period"] * np.sin(phase))
    return (kappa * (np.cos(phase) - 1) - np.log(i0e(kappa)) - LOG_2PI).sum()


def _chirals(t, _, xyz, slope) -> float:
    q, J = compiled.volumes(xyz, t["atoms"])
    here, score = _normal(q, t["value"], t["sigma"])
    mirror, other = _normal(q, -t["value"], t["sigma"])
    both = np.logaddexp(here, mirror)
    mixed = np.exp(here - both) * score + np.exp(mirror - both) * other
    compiled.add_slopes(slope, t["atoms"], J, np.where(t["both"], mixed, score))
    return np.where(t["both"], both - math.log(2), here).sum()


def _planes(t, _, xyz, slope) -> float:
    flat, rest, axes = compiled.planes(xyz, t["atoms"])
    weight = t["sigma"] ** -2.0
    compiled.add_plane_slopes(slope, t["atoms"], rest, axes, -weight)
    free = (t["atoms"] >= 0).sum(1) - 3
    return (-0.5 * flat * weight - free * (np.log(t["sigma"]) + 0.5 * LOG_2PI)).sum()


def _nonbonded(t, images, xyz, slope) -> float:
    q, J = compiled.distances(xyz, t["atoms"], t["image"], images["R"], images["t"])
    z = np.maximum(0, t["minimum"] - q) / t["sigma"]
    compiled.add_slopes(slope, t["atoms"], J, z / t["sigma"])
    return -0.5 * (z * z).sum()


_MEASURES = {
    "bonds": _bonds,
    "angles": _angles,
    "torsions": _torsions,
    "chirals": _chirals,
    "planes": _planes,
    "nonbonded": _nonbonded,
}
