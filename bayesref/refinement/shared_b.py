"""How wide the posterior is along what all B factors share.

    p(c) ∝ p(y, z_c) |H_c|^-½          c = cᵀz, the mean of log B;   z_c: the most probable z with this c
    H_c: precision of all others at z_c,   log |H_c| = log |P| + log cᵀ P⁻¹ c + const

Laplace's approximation of a marginal: Tierney & Kadane (1986), J. Am. Stat. Assoc. 81, 82, section 3. Where data are
few, the scale k makes up for B: F falls as k exp(-B s²), so that log k and B, not log B, balance each other, and the
parabola of log B at one point does not tell how far both can go: 0.45 in place of 0.30 for a peptide whose B factors
are near 1 Å². z_c is followed from node to node by L-BFGS, preconditioned by the structured Gaussian; |H_c| is that
of the atoms.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from bayesref.refinement.curvature import Factor, precision
from bayesref.refinement.lbfgs import minimize
from bayesref.refinement.structured_gaussian import StructuredGaussian
from bayesref.refinement.target import Target

REACH, NODES = 3.5, 11  # standard deviations of the Gaussian, and how many values of c in them
STEPS, FIRST = 10, 40  # of L-BFGS: at a node, which starts where the one before leads, and at the first
STILL = 0.03  # of log p: what a Newton step promises at the end
FARTHEST = 2.0  # standard deviations, of a parameter in one step
LARGEST_B = (
    2000.0  # Å²: such an atom scatters nothing; beyond, its density would fill the cell, and take minutes
)
WIDTHS = (0.2, 2.0)  # of the Gaussian's: beyond, these nodes do not show the density


def width_of_shared_B(target, z, rows: torch.Tensor, law: StructuredGaussian, sites) -> tuple[float, float]:
    """Mean and standard deviation of cᵀz in those of the law, whose mode is c; (0, 1) where the nodes do not tell.

    Parameters
    ----------
    z : (latent,), where the law is
    rows : (row,), places of the law's parameters in z
    sites : that move
    """
    t = np.linspace(-REACH, REACH, NODES)
    search = _Search(target, z, rows, law, sites, law.draw(64).std(1))
    log_q, middle = np.zeros(NODES), NODES // 2
    start, log_q[middle] = search(np.zeros(len(rows)), FIRST)
    for side in (1, -1):
        before, now = start - side * (t[1] - t[0]) * law.along, start
        for i in range(1, middle + 1):
            before, now = now, 2 * now - before
            now, log_q[middle + side * i] = search(now, STEPS)
    if not np.isfinite(log_q).all() or log_q.argmax() in (0, NODES - 1):
        return 0.0, 1.0
    fine = np.linspace(t[0], t[-1], 50 * NODES)
    q = np.exp(CubicSpline(t, log_q - log_q.max())(fine))
    mean = float(q @ fine / q.sum())
    sd = float(q @ (fine - mean) ** 2 / q.sum()) ** 0.5
    return (mean, sd) if WIDTHS[0] < sd < WIDTHS[1] else (0.0, 1.0)


def B_rows(rows: torch.Tensor, law: StructuredGaussian) -> torch.Tensor:
    """Places of log B among all latents, (atom,), given those of the law's parameters."""
    return rows[3 : law.n_atom_rows : 4]


@dataclass(frozen=True)
class _Search:
    """The most probable x = z[rows] - z₀ near one with the same cᵀx, and log p(c) there; sd (row,) are its units."""

    target: Target
    z: torch.Tensor
    rows: torch.Tensor
    law: StructuredGaussian
    sites: list
    sd: np.ndarray

    def __call__(self, x: np.ndarray, steps: int) -> tuple[np.ndarray, float]:
        def others(y):  # c stays
            return self.sd * y - self.law.along * (self.law.read @ (self.sd * y))

        def function(y):
            at = self._at(x + others(y))
            if float(at[B_rows(self.rows, self.law)].max()) > np.log(LARGEST_B):
                return np.inf, np.zeros(len(y))
            value, slope = self.target.value_and_grad(at, self.sites)
            g = slope[self.rows].numpy()
            return -value, -self.sd * (g - self.law.read * (self.law.along @ g))

        def solve(g):
            return self.law.covariance(g / self.sd) / self.sd

        found = minimize(function, np.zeros(len(x)), solve, steps, FARTHEST, STILL)
        x = x + others(found.z)
        if not np.isfinite(found.value):
            return x, -np.inf
        factor = Factor(precision(self.target, self._at(x), 0.0))
        c = self.law.read[: self.law.n_atom_rows]
        return x, -found.value - 0.5 * (factor.log_det + float(np.log(c @ factor.solve(c))))

    def _at(self, x):
        return self.z.index_add(0, self.rows, torch.from_numpy(x))
