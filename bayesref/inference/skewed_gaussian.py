"""A normal density whose free coordinates are skewed, each as the slopes on both sides of the optimum tell.

    y_j = φ_j(x_j) = m_j + x + a s² (√(1 + x²/s²) - 1),    x ~ Normal(x*, H_x⁻¹) within bounds (`TruncatedGaussian`)
    q(y) = q_x(x) Π_j 1/φ'_j(x_j),    φ' = 1 + a x/√(1 + x²/s²) > 0

φ curves like m + x + a x²/2 near the optimum m and goes straight beyond s. With f = -log p along coordinate j, f' at
m ± σ gives its curvature h and third derivative g there; a = -g/(3h) makes the third derivative in x vanish. The
density in x has the factor φ', which moves its optimum to x* and adds a² to the curvature. A log variance that data
bound from above alone is such a coordinate: of tens of them each costs importance weights a little, and together too
much.
"""

import numpy as np
import torch

from bayesref.inference.truncated_gaussian import TruncatedGaussian

REACH = 3.0  # s, in standard deviations
STEEP = 0.6  # largest |φ' - 1|


class SkewedGaussian:
    """The law of a mode of a problem, wider than its Gaussian by a factor.

    Parameters
    ----------
    problem : SmallProblem
    mode : Mode, with y, mean and covariance
    wider : factor on standard deviations
    """

    def __init__(self, problem, mode, wider: float):
        self.middle = mode.y.numpy()
        covariance = mode.covariance.numpy()
        precision = np.linalg.inv(covariance)
        self.a, self.s = _curvature(problem, mode, precision)
        precision_x = precision + np.diag(self.a**2)
        covariance_x = np.linalg.inv(precision_x)
        start = covariance_x @ (precision @ (mode.mean.numpy() - self.middle) + self.a)
        self.law = TruncatedGaussian(self.middle + start, wider**2 * covariance_x, problem.groups)

    def _bend(self, x):
        """φ(x) - m, and Σ log φ'."""
        root = np.sqrt(1 + (x / self.s) ** 2)
        return x + self.a * self.s**2 * (root - 1), np.log1p(self.a * x / root).sum(1)

    def _straight(self, y):
        """x of y - m: the root of (y + A - x)² = A² (1 + x²/s²), A = a s², on the side where φ rises."""
        A = self.a * self.s**2
        k = 1 - self.a**2 * self.s**2
        c = y + A
        # φ' > 0 picks the sign: √ has that of A.
        return (c - np.sign(A) * np.sqrt(np.maximum(c**2 - k * (c**2 - A**2), 0.0))) / k

    def sample(self, n: int, g: np.random.Generator):
        """n draws (n, latent), and log q of each."""
        x, log_q, _ = self.law.sample(n, g)
        bent, log_slope = self._bend(x - self.middle)
        return self.middle + bent, log_q - log_slope

    def log_prob(self, y) -> np.ndarray:
        """log q(y), (n,)."""
        x = self._straight(np.asarray(y) - self.middle)
        return self.law.log_prob(self.middle + x) - self._bend(x)[1]


def _curvature(problem, mode, precision):
    """a and s of each coordinate; bounded ones are not bent."""
    bounded = {j for group in problem.groups for j in group}
    sd = 1 / np.sqrt(np.diag(precision))  # with the others at the optimum
    a = np.zeros(len(sd))
    for j in range(len(sd)):
        if j in bounded:
            continue
        step = torch.zeros_like(mode.y)
        step[j] = sd[j]
        up, down = (-float(problem.value_and_grad(mode.y + sign * step)[1][j]) for sign in (1, -1))
        h, g = (up - down) / (2 * sd[j]), (up + down) / sd[j] ** 2  # f' = h x + g x²/2
        if np.isfinite(h) and np.isfinite(g) and h > 0:
            a[j] = -g / (3 * h)
    marginal = np.sqrt(np.diag(mode.covariance.numpy()))
    s = np.minimum(REACH * marginal, STEEP / np.maximum(np.abs(a), 1e-12))
    return a, s
