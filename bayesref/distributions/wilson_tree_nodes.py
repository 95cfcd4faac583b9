"""A `WilsonTree` and the likelihood of each row at its own quadrature nodes: evidence, marginals, joint moments.

    nodes F (node, hkl), log mass = log L(F) + log quadrature weight

Nodes must lie closer than a child varies about its parent, √(ε(1 - r²)/2). Where they do not, log L, which is smooth,
is interpolated from the given Gauss-Legendre nodes to as many more as it takes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.autograd import Function

from bayesref.distributions import _legendre
from bayesref.distributions.rice_woolfson import RiceWoolfson
from bayesref.distributions.wilson_tree import WilsonTree, family_ends
from bayesref.distributions.wilson_tree_cpu import incoming, pass_messages

CLOSE = 1.25  # largest distance of nodes, in standard deviations of a child about its parent
FINER = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)  # multiples of the nodes of the likelihood
RELEVANT = (
    12.0  # log units below the largest mass of a row, beyond which the distance of nodes does not matter
)

# N -> amplitudes at N nodes and the log of their quadrature weights, (N, hkl) each
Place = Callable[[int], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Part:
    """Families whose messages ran on equally many nodes; arrays are (row of the part, node) for the compiled code.

    Attributes
    ----------
    rows : (part,) int64, their rows in the whole
    columns : parent, family ends, r, epsilon, centric of the part
    F : nodes;  belief, up, cavity : at these
    log_Z, slope : (part,);  covariance : (part, member)
    """

    rows: torch.Tensor
    columns: tuple[np.ndarray, ...]
    F: np.ndarray
    belief: np.ndarray
    up: np.ndarray
    cavity: np.ndarray
    log_Z: np.ndarray
    slope: np.ndarray
    covariance: np.ndarray


@dataclass(frozen=True)
class TreePosterior:
    """All families of a tree, given the likelihood of each row at its nodes.

    Attributes
    ----------
    n_node : of the likelihood
    n_row : int
    parts : by fineness
    """

    n_node: int
    n_row: int
    parts: list[Part]

    @property
    def log_Z(self) -> float:
        """Sum over families."""
        return float(sum(p.log_Z.sum() for p in self.parts))

    @property
    def slope(self) -> torch.Tensor:
        """∂ log Z/∂r of each row, (hkl,)."""
        return self._joined(lambda p: p.slope)

    @property
    def weight(self) -> torch.Tensor:
        """∂ log Z/∂ log L, (node, hkl): E f = Σ weight f of a function known at the nodes of the likelihood."""
        return self._joined(lambda p: p.belief @ _refinement(self.n_node, p.F.shape[1])).T

    @property
    def covariance(self) -> torch.Tensor:
        """Of each row with the earlier members of its family and, last, itself; (hkl, member), zeros beyond."""
        most = max(p.covariance.shape[1] for p in self.parts)
        return self._joined(lambda p: np.pad(p.covariance, ((0, 0), (0, most - p.covariance.shape[1]))))

    def _joined(self, get):
        parts = [torch.from_numpy(np.ascontiguousarray(get(p))) for p in self.parts]
        out = parts[0].new_zeros(self.n_row, *parts[0].shape[1:])
        for p, x in zip(self.parts, parts, strict=True):
            out[p.rows] = x
        return out

    def log_prior(self, F: torch.Tensor, whole: bool = True) -> torch.Tensor:
        """log p(F) of each row given the likelihoods of the rest of its family, up to a constant, (node, hkl).

        Without `whole` those of its descendants only.
        """
        out = torch.empty_like(F)
        for p in self.parts:
            at = F[:, p.rows].detach().T.clamp(min=1e-150).contiguous().numpy()
            result = np.zeros_like(at)
            parent, _, *rest = p.columns
            incoming(p.F, parent, *rest, p.up, p.cavity, at, whole, result)  # type: ignore[call-arg]
            out[:, p.rows] = torch.from_numpy(result).T
        return out

    @torch.no_grad()
    def sample(
        self, tree: WilsonTree, log_L, place, cells: Callable, u: torch.Tensor, n: int = 96
    ) -> torch.Tensor:
        """Joint draws of all rows, by inversion of the cdf between nodes; (sample, hkl).

        Parameters
        ----------
        log_L, place : as for `solve`
        cells : takes y (.., hkl) in [-1, 1], returns the amplitudes there
        u : (sample, hkl), uniform
        """
        F, log_weight = place(n)
        own = torch.from_numpy(_refinement(len(log_L), n)).to(F) @ log_L.clamp(min=-1e9) + log_weight
        own = own + self.log_prior(F, whole=False)
        edges = torch.cat([torch.zeros(1), torch.from_numpy(_legendre.gauss(n)[1]).cumsum(0)]) - 1
        out = torch.empty_like(u, dtype=F.dtype)
        for i, uniform in enumerate(u.to(F)):
            for rows in tree.generations():
                log_p = own[:, rows]
                if tree.parent[rows[0]] >= 0:
                    G = out[i, tree.parent[rows]].expand(n, -1)
                    V = (tree.epsilon * (1 - tree.r**2))[rows].expand(n, -1)
                    log_p = log_p + RiceWoolfson(tree.r[rows] * G, V, tree.centric[rows]).log_prob(F[:, rows])
                y = _invert(log_p.softmax(0), edges, uniform[rows])
                out[i, rows] = cells(y, rows)
        return out


def _invert(weight, edges, u):
    """y at which the cumulated weights (node, row) reach u (row,), straight between the edges of cells."""
    total = weight.cumsum(0)
    k = (total < u).sum(0).clamp(max=len(weight) - 1)[None]
    here = weight.gather(0, k)[0].clamp(min=1e-300)
    share = ((u - (total.gather(0, k)[0] - here)) / here).clamp(0, 1)
    return edges[k[0]] + share * (edges[k[0] + 1] - edges[k[0]])


def _refinement(n, N):
    """Values at N Gauss-Legendre nodes from those at n, (N, n)."""
    return np.eye(n) if n == N else _legendre.refinement(n, N)


@torch.no_grad()
def solve(tree: WilsonTree, log_L: torch.Tensor, place: Place, down: int = 2) -> TreePosterior:
    """Pass messages.

    Parameters
    ----------
    log_L : (node, hkl), log likelihood of each row's spots at the amplitudes of `place(node)`
    place : nodes and weights; its attribute `core`, where there is one, are the limits of F between which most of
        the posterior lies, so that nodes must be close there
    down : 0 = evidence only, 1 = beliefs and slopes, 2 = covariances too
    """
    n = len(log_L)
    ends = family_ends(tree.parent)
    family = torch.repeat_interleave(torch.arange(len(ends) - 1), ends.diff())
    factor = _factors(tree, place, log_L, ends)
    parts = []
    for k in factor.unique().tolist():
        rows = (factor[family] == k).nonzero()[:, 0]
        F, log_weight = (x[:, rows] for x in place(round(n * k)))
        mass = torch.from_numpy(_refinement(n, len(F))) @ log_L[:, rows].clamp(min=-1e9) + log_weight
        parts.append(_solve_part(tree, rows, F, mass, down))
    return TreePosterior(n, log_L.shape[1], parts)


def _factors(tree, place, log_L, ends):
    """How many times as many nodes each family needs, (family,)."""
    F, log_weight = place(len(log_L))
    core = getattr(place, "core", None)
    if core is None:
        mass = log_L + log_weight
        relevant = mass > mass.amax(0) - RELEVANT
    else:
        relevant = (core[0] < F) & (core[1] > F)
    gap = torch.where(relevant[1:] | relevant[:-1], F.diff(dim=0), 0.0).amax(0)
    sd = (tree.epsilon * (1 - tree.r**2) * torch.where(tree.centric, 1.0, 0.5)).sqrt()
    is_child = tree.parent >= 0
    ratio = torch.where(is_child, torch.maximum(gap, tree.r * gap[tree.parent.clamp(min=0)]) / sd, 0.0)
    worst = torch.from_numpy(np.maximum.reduceat(ratio.numpy(), ends[:-1].numpy())) / CLOSE
    finer = torch.tensor(FINER, dtype=worst.dtype)
    return finer[torch.searchsorted(finer, worst).clamp(max=len(finer) - 1)]


def _solve_part(tree, rows, F, mass, down) -> Part:
    place_of = torch.full((len(tree.parent),), -1)
    place_of[rows] = torch.arange(len(rows))
    own = tree.parent[rows]
    parent = torch.where(own < 0, own, place_of[own.clamp(min=0)])
    ends = family_ends(parent)
    columns = tuple(
        x.detach().contiguous().numpy()
        for x in (parent, ends, tree.r[rows], tree.epsilon[rows], tree.centric[rows])
    )
    nodes, mass = (x.T.contiguous().numpy() for x in (F.clamp(min=1e-150), mass))
    most = int(ends.diff().max()) if down > 1 else 0
    log_Z, slope = np.zeros(len(rows)), np.zeros(len(rows))
    belief, up, cavity = (np.zeros_like(nodes) for _ in range(3))
    covariance = np.zeros((len(rows), most))
    pass_messages(nodes, mass, *columns, down, log_Z, belief, slope, up, cavity, covariance)  # type: ignore[call-arg]
    return Part(rows, columns, nodes, belief, up, cavity, log_Z, slope, covariance)


class _Evidence(Function):
    @staticmethod
    def forward(ctx, log_L, r, tree, place):
        down = 1 if ctx.needs_input_grad[0] or ctx.needs_input_grad[1] else 0
        posterior = solve(tree, log_L, place, down)
        if down:
            ctx.save_for_backward(posterior.weight, posterior.slope)
        return log_L.new_tensor(posterior.log_Z)

    @staticmethod
    def backward(ctx, grad):
        weight, slope = ctx.saved_tensors
        return grad * weight, grad * slope, None, None


def log_evidence(tree: WilsonTree, log_L: torch.Tensor, place: Place) -> torch.Tensor:
    """Σ log Z over families, differentiable in log L and in r of the tree; arguments as for `solve`."""
    return _Evidence.apply(log_L, tree.r, tree, place)
