"""Overall scale and fall-off with resolution.

    log K = m₀ + m₁ u + v₀ + v₁ u + Σ_k c_k φ_k(s²),      u = (s² - ‹s²›)/sd(s²),   s² = 1/(4 d²)

The straight line in s² is the Wilson plot: scale and overall B. m is a least-squares line through log ‹I› of ten
resolution bins, so that v starts near zero; the bumps φ_k follow what the line leaves (a protein's Wilson plot is
not straight) with a learned prior.
"""

import torch

from bayesref.scaling.basis import bumps
from bayesref.scaling.scale import Group, Scale


class Falloff(Scale):
    """Scale and fall-off with resolution of all observations together.

    Parameters
    ----------
    obs : Observations, from which the line to start from is taken
    n_bumps : number of bumps over the range of s²; 0 = a straight Wilson plot
    """

    def __init__(self, obs, n_bumps: int = 12):
        groups = [Group("Wilson line", 2, 3.0, learned=False)]
        if n_bumps:
            groups.append(Group("Wilson bumps", n_bumps, 0.3))
        super().__init__(groups)
        s2 = obs.stol2
        self.n_bumps, self.range = n_bumps, (float(s2.min()), float(s2.max()))
        self.mean, self.spread = float(s2.mean()), max(float(s2.std()), 1e-6)
        self.line = _wilson_line(self._u(s2), obs.I)

    def _u(self, s2):
        return (s2 - self.mean) / self.spread

    def features(self, obs):
        s2 = obs.stol2
        u = self._u(s2)
        phi = bumps(s2, self.n_bumps, self.range) if self.n_bumps else s2.new_zeros(len(s2), 0)
        return self.line[0] + self.line[1] * u, torch.cat([torch.ones_like(u)[:, None], u[:, None], phi], 1)

    def log_scale(self, v, offset, columns):
        return offset + columns @ v

    def basis(self, offset, columns):
        return columns


def _wilson_line(u, I, n_bins=10):
    """Intercept and slope of log ‹I› against u, (2,); the top 2 % of each bin clipped against outliers."""
    order = u.argsort()
    xs, ys = [], []
    for rows in order.tensor_split(min(n_bins, max(1, len(u) // 20))):
        mean = I[rows].clamp(max=float(I[rows].kthvalue(max(1, int(0.98 * len(rows)))).values)).mean()
        xs.append(u[rows].mean())
        ys.append(mean)
    x, y = torch.stack(xs), torch.stack(ys)
    y = y.clamp(min=1e-3 * float(y.abs().max()) + 1e-30).log()
    A = torch.stack([torch.ones_like(x), x], 1)
    return torch.linalg.lstsq(A, y[:, None], driver="gelsd").solution[:, 0]
