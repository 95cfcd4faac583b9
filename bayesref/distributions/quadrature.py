"""One-dimensional posteriors on Gauss-Legendre nodes: the numerical core under every amplitude posterior.

    p(F) = exp(ℓ(F)) / Z        F_j = lo + (hi - lo)(y_j + 1)/2,   y_j, w_j Gauss-Legendre on [-1, 1]
    log Z = log Σ_j exp(ℓ(F_j) + log w_j + log (hi - lo)/2)
    E f   = Σ_j W_j f(F_j),     W_j = exp(ℓ(F_j) + log w_j + log (hi - lo)/2 - log Z)
    cdf   : p = F^m q(F)², q the polynomial through the nodes, integrated exactly; never negative, so monotone

m is 1 where the density vanishes linearly at F = 0 (acentric amplitudes), else 0. The root of a density is √2
wider than the density, which doubles the number of digits that the nodes resolve. Limits come from `bracket`,
carry no gradient and need none: the density is negligible there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from bayesref.distributions import _legendre

_STEPS = 60  # Newton takes five; bisection alone would reach double precision in 52


def _column(x, like):
    """Numpy vector as (node, 1, ..., 1) beside `like` (*batch)."""
    return torch.as_tensor(x, dtype=like.dtype, device=like.device).reshape(-1, *[1] * like.ndim)


def _apply(matrix, x):
    """Numpy matrix (m, n) times x (n, *batch)."""
    matrix = torch.as_tensor(matrix, dtype=x.dtype, device=x.device)
    return (matrix @ x.reshape(len(x), -1)).reshape(-1, *x.shape[1:])


def legendre(n: int, like: torch.Tensor | None = None):
    """Nodes and weights of Gauss-Legendre quadrature on [-1, 1], (n,) each, as `like` (else float64)."""
    like = torch.empty((), dtype=torch.float64) if like is None else like
    return tuple(torch.as_tensor(x, dtype=like.dtype, device=like.device) for x in _legendre.gauss(n))


def nodes(lo: torch.Tensor, hi: torch.Tensor, n: int = 48) -> torch.Tensor:
    """Gauss-Legendre nodes between `lo` and `hi` (*batch), as (node, *batch)."""
    lo, hi = torch.broadcast_tensors(lo, hi)
    return lo + (hi - lo) * _column(0.5 * (_legendre.gauss(n)[0] + 1), lo)


@torch.no_grad()
def bracket(
    log_density: Callable[[torch.Tensor], torch.Tensor],
    lo: torch.Tensor,
    hi: torch.Tensor,
    drop: float = 36.0,
    points: int = 33,
    passes: int = 8,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Shrink [lo, hi] to where the log density is within `drop` of its maximum.

    Each pass lays a grid, keeps the span of the points that are high enough and one cell more on either side,
    so that nothing between two grid points is lost. A pass narrows a sharp peak (points - 1)/4 fold: 8 passes
    reach 10⁻⁷ of the first span. Several modes stay in one span as long as the grid of a pass sees each.

    Parameters
    ----------
    log_density : takes F (point, *batch), returns the same shape; need not be normalised
    lo, hi : (*batch), a span that holds all of the probability
    drop : log units; e⁻³⁶ is the rounding error of double precision

    Returns
    -------
    lo, hi : (*batch)
    """
    lo, hi = torch.broadcast_tensors(lo, hi)
    fraction = torch.linspace(0, 1, points, dtype=lo.dtype, device=lo.device).reshape(-1, *[1] * lo.ndim)
    for _ in range(passes):
        log_p = torch.nan_to_num(log_density(lo + (hi - lo) * fraction), nan=-torch.inf, posinf=torch.inf)
        keep = log_p > log_p.amax(0) - drop
        keep |= ~keep.any(0)  # nothing finite on the grid: leave the span as it is
        first = (keep.to(torch.uint8).argmax(0) - 1).clamp(min=0)
        last = (points - keep.flip(0).to(torch.uint8).argmax(0)).clamp(max=points - 1)
        cell = (hi - lo) / (points - 1)
        lo, hi = lo + first * cell, torch.where(last == points - 1, hi, lo + last * cell)
        if bool(((last - first) >= 0.9 * (points - 1)).all()):
            break
    return lo, hi


@dataclass(frozen=True)
class NodePosterior:
    """A density known at the Gauss-Legendre nodes of an interval.

    Attributes
    ----------
    lo, hi : (*batch), limits outside which the density is negligible
    log_density : (node, *batch), log of the unnormalised density at `nodes(lo, hi, n)`; carries gradients
    """

    lo: torch.Tensor
    hi: torch.Tensor
    log_density: torch.Tensor

    @classmethod
    def of(cls, log_density, lo, hi, n=48):
        """From a function of F (node, *batch) and its limits."""
        return cls(lo, hi, log_density(nodes(lo, hi, n)))

    @property
    def F(self) -> torch.Tensor:
        """Nodes, (node, *batch)."""
        return nodes(self.lo, self.hi, len(self.log_density))

    @property
    def _log_mass(self):
        w = _column(_legendre.gauss(len(self.log_density))[1], self.lo)
        return self.log_density + w.log() + (0.5 * (self.hi - self.lo)).log()

    @property
    def log_normalizer(self) -> torch.Tensor:
        """log ∫ exp(log_density) dF, (*batch)."""
        return self._log_mass.logsumexp(0)

    @property
    def log_weight(self) -> torch.Tensor:
        """Log of the quadrature weights W, which sum to one; (node, *batch)."""
        return self._log_mass - self.log_normalizer

    @property
    def weight(self) -> torch.Tensor:
        """W, (node, *batch)."""
        return self.log_weight.exp()

    def expectation(self, f: torch.Tensor) -> torch.Tensor:
        """E f for values f at the nodes, (node, *batch) -> (*batch)."""
        return (self.weight * f).sum(0)

    def moment(self, k: float) -> torch.Tensor:
        """E F^k, (*batch)."""
        return self.expectation(self.F**k)

    @property
    def mean(self) -> torch.Tensor:
        """E F, (*batch)."""
        return self.expectation(self.F)

    @property
    def variance(self) -> torch.Tensor:
        """Var F, (*batch), summed about the mean."""
        return self.central(self.F)

    def central(self, f: torch.Tensor) -> torch.Tensor:
        """Var f for values f at the nodes, (node, *batch) -> (*batch)."""
        W = self.weight
        return (W * (f - (W * f).sum(0)) ** 2).sum(0)

    @property
    def _odd(self):
        """True where the density starts linearly from F = 0: its slope in log F is then near 1."""
        log_p, F = self.log_density.detach(), self.F
        slope = (log_p[1] - log_p[0]) / (F[1] / F[0]).log()
        return (self.lo == 0) & (slope > 0.5)

    @property
    def _series(self):
        """Coefficients d of the cdf as a Legendre series in y, (2n + 1, *batch)."""
        n = len(self.log_density)
        log_p = self.log_density - self.log_density.detach().amax(0)
        log_p = torch.where(self._odd, log_p - (self.F / self.hi).log(), log_p)
        q = _apply(_legendre.refinement(n, 2 * n), (0.5 * log_p).exp())
        F = nodes(self.lo, self.hi, 2 * n)
        d = _apply(_legendre.primitive(2 * n), q**2 * torch.where(self._odd, F / self.hi, 1.0))
        return d / d.sum(0)  # P_k(1) = 1

    def _y(self, F):
        return ((F - self.lo) / (self.hi - self.lo)).clamp(0, 1) * 2 - 1

    def cdf(self, F: torch.Tensor) -> torch.Tensor:
        """P(F' < F), (*sample, *batch); differentiable in F and in the log density."""
        return _legendre.differentiable_series(self._series, self._y(F)).clamp(0, 1)

    def icdf(self, u: torch.Tensor) -> torch.Tensor:
        """The F with cdf(F) = u, (*sample, *batch), 0 ≤ u ≤ 1.

        Its gradient in the parameters θ of the log density is the implicit dF/dθ = -∂cdf(F)/∂θ / p(F).
        """
        d = self._series
        with torch.no_grad():
            u = u.expand(torch.broadcast_shapes(u.shape, self.lo.shape))
            y = self._invert(d.detach(), u)
            F = self.lo + (self.hi - self.lo) * 0.5 * (y + 1)
        if not d.requires_grad:
            return F
        density = _legendre.series(d.detach(), y)[1] * 2 / (self.hi - self.lo)
        cdf = _legendre.differentiable_series(d, y)
        return F - (cdf - cdf.detach()) / density

    def _invert(self, d, u):
        """y with Σ d_k P_k(y) = u: Newton kept inside a shrinking interval."""
        eps = torch.finfo(u.dtype).eps
        lo, hi, y = self._cell(d, u)
        for _ in range(_STEPS):
            value, slope = _legendre.series(d, y)
            above = value > u
            lo, hi = torch.where(above, lo, y), torch.where(above, y, hi)
            newton = y - (value - u) / slope
            new = torch.where((newton > lo) & (newton < hi), newton, 0.5 * (lo + hi))
            # where the cdf is flat to rounding, its value is all that can be met
            new = torch.where((value - u).abs() <= 2 * eps, y, new)
            done = (new - y).abs().max() < 8 * eps
            y = new
            if bool(done):
                break
        y = torch.where(u <= 0, -torch.ones_like(y), y)
        return torch.where(u >= 1, torch.ones_like(y), y)

    def _cell(self, d, u):
        """The two cell edges around the quantile and a first guess between them, from a table of the cdf."""
        basis, edges = _legendre.edge_basis(len(self.log_density), len(d) - 1)
        batch, sample = self.lo.shape, u.shape[: u.ndim - self.lo.ndim]
        table = _apply(basis, d).cummax(0).values.reshape(len(edges), -1).T.contiguous()  # (batch, edge)
        flat = u.reshape(-1, batch.numel()).T.contiguous()  # (batch, sample)
        right = torch.searchsorted(table, flat).clamp(1, len(edges) - 1)
        low, high = table.gather(1, right - 1), table.gather(1, right)
        share = ((flat - low) / (high - low).clamp(min=torch.finfo(u.dtype).tiny)).clamp(0, 1)
        edges = torch.as_tensor(edges, dtype=u.dtype, device=u.device)
        lo, hi = edges[right - 1], edges[right]
        return (x.T.reshape(*sample, *batch) for x in (lo, hi, lo + (hi - lo) * share))

    @torch.no_grad()
    def sample(self, shape: tuple[int, ...] = (), generator: torch.Generator | None = None) -> torch.Tensor:
        """Draws by inversion, (*shape, *batch), without gradient."""
        size = (*shape, *self.lo.shape)
        u = torch.rand(size, dtype=self.lo.dtype, device=self.lo.device, generator=generator)
        return self.icdf(u)
