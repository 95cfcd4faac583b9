"""A normal density cut off at the bounds of occupancies, with draws whose density is known.

    y = m + L e,   L lower triangular, bounded coordinates first
    q(y) = Π_j φ(e_j) / [Φ(b_j) - Φ(a_j)] / L_jj        a_j, b_j: what the bounds leave to e_j given those before

The sequential sampler of Geweke, Hajivassiliou and Keane (Genz 1992, J. Comput. Graph. Stat. 1, 141): the mean of
Π [Φ(b_j) - Φ(a_j)] over its draws is the probability that the uncut normal keeps within its bounds.
"""

import numpy as np
from scipy.special import log_ndtr
from scipy.stats import norm, truncnorm


class TruncatedGaussian:
    """Normal(mean, covariance) within bounds.

    Parameters
    ----------
    mean, covariance : (n,), (n, n)
    groups : lists of indices: coordinates at least zero, of sum at most one within a group
    """

    def __init__(self, mean, covariance, groups):
        self.bounded = [j for group in groups for j in group]
        self.order = np.array(self.bounded + [j for j in range(len(mean)) if j not in set(self.bounded)])
        self.mean = np.asarray(mean)[self.order]
        self.root = np.linalg.cholesky(np.asarray(covariance)[np.ix_(self.order, self.order)])
        self.place = [i for group in groups for i in range(len(group))]

    def _limits(self, j, y, e):
        """Middle, lowest and highest e_j, given the coordinates before (draw, ...)."""
        middle = self.mean[j] + e[:, :j] @ self.root[j, :j]
        used = y[:, j - self.place[j] : j].sum(1)
        s = self.root[j, j]
        low = -middle / s
        return middle, low, np.maximum((1 - used - middle) / s, low + 1e-9)

    def sample(self, n: int, g: np.random.Generator):
        """n draws (n, latent), log q of each, and the log of Π [Φ(b) - Φ(a)]."""
        y, e = np.empty((n, len(self.mean))), np.empty((n, len(self.mean)))
        k = len(self.bounded)
        log_mass = np.zeros(n)
        for j in range(k):
            middle, low, high = self._limits(j, y, e)
            e[:, j] = np.clip(truncnorm.ppf(g.uniform(size=n), low, high), low, high)
            y[:, j] = np.maximum(middle + self.root[j, j] * e[:, j], 0.0)
            log_mass += _log_mass(low, high)
        e[:, k:] = g.standard_normal((n, len(self.mean) - k))
        y[:, k:] = self.mean[k:] + e @ self.root[k:].T
        out = np.empty_like(y)
        out[:, self.order] = y
        return out, self._density(e, log_mass), log_mass

    def log_prob(self, y):
        """log q(y), (n,)."""
        y = np.asarray(y)[:, self.order]
        e = np.linalg.solve(self.root, (y - self.mean).T).T
        log_mass = np.zeros(len(y))
        for j in range(len(self.bounded)):
            log_mass += _log_mass(*self._limits(j, y, e)[1:])
        return self._density(e, log_mass)

    def _density(self, e, log_mass):
        return norm.logpdf(e).sum(1) - np.log(np.diag(self.root)).sum() - log_mass


def _log_mass(low, high):
    """log [Φ(high) - Φ(low)], in the tail where both are smaller."""
    flip = low > 0
    a, b = np.where(flip, -high, low), np.where(flip, -low, high)
    la, lb = log_ndtr(a), log_ndtr(b)
    return lb + np.log1p(-np.exp(np.minimum(la - lb, -1e-15)))
