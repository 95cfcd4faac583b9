"""The mean and the widths of the Gaussian that is nearest to the posterior: averages over its draws, not the mode.

    q = Normal(m, Σ):   E_q ∇log p = 0,    Σ⁻¹ = -E_q ∇²log p           the smallest KL(q | p)
    m = argmax ⟨log p(m + x) + log p(m - x)⟩/2          by L-BFGS, preconditioned with Σ
    Λ_i² = 1 - ⟨x_i (Σ e)_i⟩/⟨x_i²⟩ + ⟨(Σ e)_i²⟩/⟨x_i²⟩,     e = ½[∇log p(m - x) - ∇log p(m + x)] - Σ⁻¹ x
    Σ ← Λ Σ Λ

Opper & Archambeau (2009), Neural Comput. 21, 786, equations 8 and 9; the second in the metric of the variances, by
Stein's identity. x are the same few draws in all rounds, with both signs (Giordano, Ingram & Broderick, 2024, J. Mach.
Learn. Res. 25, 18). e is zero where the model Σ⁻¹ is right, so that few draws tell; Λ^-2 - 1 is multiplied by the
share of its variance that is not noise. The mode that all B share (`shared_b`) keeps its width; draws along it are
at quantiles.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import ndtri

from bayesref.refinement.lbfgs import minimize
from bayesref.refinement.shared_b import LARGEST_B, B_rows, width_of_shared_B
from bayesref.refinement.structured_gaussian import StructuredGaussian
from bayesref.refinement.target import Target

DRAWS = 16  # pairs
STEPS = 4  # of L-BFGS, for the mean
STILL = 0.03  # standard deviations rms: of a step that need not be taken
FARTHEST = 0.5  # standard deviation, of a parameter in one step
SHARES = (0.5, 2.0)  # of the variances: none changes by more
ALIKE = 0.15  # of the standard deviation of log B of one atom: what all share need not be looked at where it is less


def nearest(target, z, rows: torch.Tensor, law: StructuredGaussian, sites, seed: int = 0):
    """Law with Λ, law without, and z (latent,) after the steps above.

    Λ makes every parameter as wide as it is, and with it the stiff combinations that data know well: of what these
    decide, such as F, the law without is right.

    Parameters
    ----------
    rows : (row,), places of the law's parameters in z: of each atom x, y, z, log B, then global ones
    law : of z[rows] at z
    sites : on which log p depends here
    """
    shared = np.zeros(len(rows))
    shared[3 : law.n_atom_rows : 4] = 1.0
    law = law.with_mode(shared)
    if _share(law) > ALIKE:
        mean, width = width_of_shared_B(target, z, rows, law, sites)
        z = z.index_add(0, rows, torch.from_numpy(mean * law.along))
        law = replace(law, width=width)
    average = _Average(target, z, rows, B_rows(rows, law), _draws(law, seed), sites)
    sd = (average.x**2).mean(1) ** 0.5

    def function(y):
        value, g = average(sd * y)
        return -value, -sd * g

    def solve(g):
        return law.covariance(g / sd) / sd

    still = 0.5 * len(rows) * STILL**2
    y = minimize(function, np.zeros(len(rows)), solve, STEPS, FARTHEST, still).z
    e = average.bend(sd * y) - law.precision(average.x)
    e = e - np.outer(law.read, law.along @ e)
    z = z.index_add(0, rows, torch.from_numpy(sd * y))
    return law.scaled(_factors(average.x, -law.covariance(e), law.n_atom_rows)), law, z


def _share(law) -> float:
    """Standard deviation of the mean of log B, in those of the log B of single atoms."""
    B = law.draw(64)[3 : law.n_atom_rows : 4]
    return float(B.mean(0).std() / np.median(B.std(1)))


def _draws(law, seed):
    """x (row, draw), their mode in standard deviations at quantiles of the half of a normal law."""
    x = law.draw(DRAWS, seed)
    q = ndtri(0.5 + 0.5 * (np.arange(DRAWS) + 0.5) / DRAWS)
    q = np.random.default_rng(seed).permutation(q / np.sqrt((q**2).mean()))
    return x + np.outer(law.along, law.width * q - law.read @ x)


@dataclass
class _Average:
    """Mean of log p over z + m ± x, x (row, draw), and its slope in m (row,); log B is at the places B of z."""

    target: Target
    z: torch.Tensor
    rows: torch.Tensor
    B: torch.Tensor
    x: np.ndarray
    sites: list | None
    _last: tuple = ()

    def __call__(self, m: np.ndarray) -> tuple[float, np.ndarray]:
        both = [self._slopes(m + sign * d) for d in self.x.T for sign in (1, -1)]
        values, slopes = (np.array(v) for v in zip(*both, strict=True))
        self._last = m.copy(), slopes
        return float(values.mean()), slopes.mean(0)

    def bend(self, m: np.ndarray) -> np.ndarray:
        """½ [∇log p(m - x) - ∇log p(m + x)] of each x, (row, draw)."""
        if not self._last or not np.array_equal(self._last[0], m):
            self(m)
        slopes = self._last[1]
        return 0.5 * (slopes[1::2] - slopes[::2]).T

    def _slopes(self, d):
        at = self.z.index_add(0, self.rows, torch.from_numpy(d))
        at[self.B] = at[self.B].clamp(max=np.log(LARGEST_B))
        value, slope = self.target.value_and_grad(at, self.sites)
        return value, slope[self.rows].numpy()


def _factors(x, move, n_atom_rows):
    """Λ (atom row,) from draws x (row, draw) and -Σ e of each, to the second order of e."""
    var = (x**2).mean(1, keepdims=True)
    each = -(x * move / var)[:n_atom_rows].reshape(-1, 4, x.shape[1])
    first, second = each.mean(-1), ((move**2).mean(1) / var[:, 0])[:n_atom_rows].reshape(-1, 4)
    mixed = second - first**2  # from other parameters; not negative, by Schwarz's inequality
    noise2 = each.var(-1, ddof=1) / x.shape[1]
    for kind in (slice(0, 3), slice(3, 4)):
        first[:, kind] *= max(0.0, 1 - noise2[:, kind].mean() / (first[:, kind] ** 2).mean())
    return np.clip(1 / (1 + first.clip(-0.9)) + mixed, *SHARES).reshape(-1) ** 0.5
