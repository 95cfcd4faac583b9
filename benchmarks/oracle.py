"""The posterior of the amplitudes for one who knows the scales and errors that `simulate_merge.py` used.

    K_i = G (1 + 0.4 cos(2π u + 0.7)) exp(-2 (B0 + B1 u) s²) (1 + 0.1 cos x + 0.1 sin y)
    I_i ~ (1 - π) p((I_i - K_i F²)/v_i^½) + π p((I_i - K_i F²)/(10 v_i^½)),   v_i = (SIGI_i / sig_mis)²

u: number of the image over the number of images; s² = 1/(4 d²), Å⁻²; x, y: distance from (1000, 1000) in
units of 500 pixels; p: standard normal, or Student-t; π: share of outliers. No merging program can do
better on average than this, except by what SIGI says of F. With normal errors and no outliers this is
`bayesref.distributions.AmplitudePosterior`; else the same integral over F is done on a grid.
"""

from dataclasses import dataclass

import numpy as np
import reciprocalspaceship as rs
import torch
from scipy.stats import norm
from scipy.stats import t as student

from bayesref.distributions import AmplitudePosterior, Wilson

N_NODE = 2000  # over 0 to 6 standard deviations of Wilson's prior
WIDEST = 6.0


@dataclass(frozen=True)
class Truth:
    """Settings of the simulator, its defaults filled in; see the module's docstring."""

    images: int = 100
    G: float = 500.0
    B0: float = 15.0
    B1: float = 5.0
    sig_mis: float = 1.0
    outliers: float = 0.0
    tdof: float | None = None

    def scale(self, spots: rs.DataSet) -> np.ndarray:
        """K (spot,)."""
        image, d, X, Y = (spots[k].to_numpy(float) for k in ("BATCH", "dHKL", "X", "Y"))
        u, s2 = (image - 1) / self.images, 1 / (4 * d**2)
        fall = np.exp(-2 * (self.B0 + self.B1 * u) * s2)
        position = 1 + 0.1 * np.cos((X - 1000) / 500) + 0.1 * np.sin((Y - 1000) / 500)
        return self.G * (1 + 0.4 * np.cos(2 * np.pi * u + 0.7)) * fall * position

    def log_density(self, z: np.ndarray) -> np.ndarray:
        """Logarithm of the density of an error of z true standard deviations, up to a constant."""
        one = norm if self.tdof is None else student(self.tdof)
        if not self.outliers:
            return one.logpdf(z)
        wide = np.log(self.outliers / 10) + one.logpdf(z / 10)
        return np.logaddexp(np.log1p(-self.outliers) + one.logpdf(z), wide)


def merge(unmerged: str, truth: str, known: Truth) -> rs.DataSet:
    """F and SIGF, posterior mean and standard deviation, of every reflection of `truth`."""
    spots = rs.read_mtz(str(unmerged)).compute_dHKL().hkl_to_asu()
    merged = rs.read_mtz(str(truth))
    h = merged.index.get_indexer(spots.index)
    v = (spots["SIGI"].to_numpy(float) / known.sig_mis) ** 2
    epsilon, centric = merged["EPS"].to_numpy(float), merged["CENTRIC"].to_numpy(int) > 0
    if known.tdof is None and not known.outliers:
        mean, variance = normal(h, known.scale(spots), spots["I"].to_numpy(float), v, epsilon, centric)
    else:
        mean, variance = heavy_tails(h, spots, v, epsilon, centric, known)
    merged["F"], merged["SIGF"] = (
        rs.DataSeries(mean, merged.index),
        rs.DataSeries(variance**0.5, merged.index),
    )
    return merged[["F", "SIGF"]].astype({"F": "F", "SIGF": "Q"})


def normal(h, K, I, v, epsilon, centric):
    """Mean and variance of F (hkl,) with normal errors."""
    a, b = (np.bincount(h, x, minlength=len(epsilon)) for x in (K**2 / v, K * I / v))
    prior = Wilson(torch.tensor(epsilon), torch.tensor(centric))
    posterior = AmplitudePosterior(prior, torch.tensor(a), torch.tensor(b))
    return posterior.mean.numpy(), posterior.variance.numpy()


def heavy_tails(h, spots, v, epsilon, centric, known):
    """Mean and variance of F (hkl,) with any errors, by the sum over a grid of F."""
    K, I = known.scale(spots), spots["I"].to_numpy(float)
    order = np.argsort(h, kind="stable")
    ends = np.cumsum(np.bincount(h, minlength=len(epsilon)))
    x = np.linspace(0, WIDEST, N_NODE + 1)[1:]  # F / √ε
    mean, variance = np.empty(len(epsilon)), np.empty(len(epsilon))
    for j, mine in enumerate(np.split(order, ends[:-1])):
        F = x * epsilon[j] ** 0.5
        log_prior = -(x**2) / 2 if centric[j] else np.log(x) - x**2
        z = (I[mine, None] - K[mine, None] * F**2) / v[mine, None] ** 0.5  # (spot, node)
        log_p = log_prior + known.log_density(z).sum(0)
        p = np.exp(log_p - log_p.max())
        p /= p.sum()
        mean[j] = p @ F
        variance[j] = p @ (F - mean[j]) ** 2
    return mean, variance
