"""Intensities that overlapped spots tie together, as one small Gaussian for each cluster of reflections.

    q(J) ∝ exp(-½ Jᵀ P J + hᵀ J),    P = diag(α) + Σ_i τ_i K_i K_iᵀ,   h = β + Σ_i η_i K_i        J = F²
    α, β : what is known of each J by itself        τ, η : what spot i says of its sum s_i = K_iᵀ J
    mean μ = P⁻¹h,  covariance Σ = P⁻¹,  s_i ~ Normal(K_iᵀμ, K_iᵀ Σ K_i)

A cluster is a connected set of reflections: orders of one ray that some spot holds together. Most have two or three
members; clusters of like size are handled in one batch, padded to the largest.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIZES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)  # to which clusters are padded


@dataclass(frozen=True)
class Batch:
    """Clusters of up to `size` members.

    Attributes
    ----------
    n, size : number of clusters, rows of each
    member : (member,) int64, rows of the core
    place : (member,) int64, cluster * size + position
    order : (order,) int64, rows of the table of orders
    order_place : (order,) int64, likewise
    pair : (pair,) int64, pairs of orders of one spot: (cluster * size + position) * size + position
    pair_rows : (2, pair) int64, rows of the table of orders
    """

    n: int
    size: int
    member: torch.Tensor
    place: torch.Tensor
    order: torch.Tensor
    order_place: torch.Tensor
    pair: torch.Tensor
    pair_rows: torch.Tensor


@dataclass(frozen=True)
class Joint:
    """Moments of q(J).

    Attributes
    ----------
    mean, variance : (core,), of each J
    s_mean, s_variance : (spot,), of the sum of each spot
    along : (order,), Σ K_i at each order of spot i, the covariance of J with s_i
    log_normalizer : log ∫ exp(-½ Jᵀ P J + hᵀ J) dJ, all clusters
    """

    mean: torch.Tensor
    variance: torch.Tensor
    s_mean: torch.Tensor
    s_variance: torch.Tensor
    along: torch.Tensor
    log_normalizer: float


class Clusters:
    """Which reflections are tied by overlapped spots.

    Parameters
    ----------
    hkl_id : (order,) int64, reflection of each order
    spot : (order,) int64, spot of each order

    Attributes
    ----------
    core : (core,) int64, the reflections concerned, sorted
    row : (order,) int64, row of each order in `core`
    n : number of clusters
    label, spot_label : (core,), (spot,) int64, cluster of each
    """

    def __init__(self, hkl_id: torch.Tensor, spot: torch.Tensor):
        self.core, self.row = hkl_id.unique(return_inverse=True)
        self.spot, self.n_spot = spot, int(spot.max()) + 1
        label, position, count = self._numbered()
        self.n, self.label = len(count), torch.from_numpy(label)
        self.spot_label = torch.zeros(self.n_spot, dtype=torch.int64)
        self.spot_label[spot] = self.label[self.row]
        self.batches = self._batches(label, position, count)

    def _numbered(self):
        """Cluster of each member, and its position there, (core,) each."""
        n = len(self.core)
        rows, columns = self.row.numpy(), n + self.spot.numpy()
        graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(n + self.n_spot,) * 2)
        label = connected_components(graph, directed=False)[1][:n]
        _, label = np.unique(label, return_inverse=True)
        order = np.argsort(label, kind="stable")
        count = np.bincount(label)
        position = np.empty(n, dtype=np.int64)
        position[order] = np.arange(n) - np.repeat(np.cumsum(count) - count, count)
        return label.astype(np.int64), position, count

    def _batches(self, label, position, count):
        p, q = _pairs(self.spot.numpy())
        row = self.row.numpy()
        limits = [*(s for s in SIZES if s < count.max()), int(count.max())]
        kind = np.searchsorted(limits, count)
        result = []
        for k, size in enumerate(limits):
            mine = np.flatnonzero(kind == k)
            if not len(mine):
                continue
            number = np.full(len(count), -1)
            number[mine] = np.arange(len(mine))
            member = np.flatnonzero(number[label] >= 0)
            place = number[label] * size + position
            order = np.flatnonzero(number[label[row]] >= 0)
            pair = np.flatnonzero(number[label[row[p]]] >= 0)
            flat = place[row[p[pair]]] * size + position[row[q[pair]]]
            arrays = (member, place[member], order, place[row[order]], flat, np.stack([p[pair], q[pair]]))
            result.append(Batch(len(mine), size, *(torch.from_numpy(x) for x in arrays)))
        return result

    def precision(self, batch: Batch, diagonal: torch.Tensor, tau: torch.Tensor, K: torch.Tensor):
        """P of the clusters of a batch, (cluster, size, size); rows that are padding have a one on the diagonal."""
        n, m = batch.n, batch.size
        P = torch.zeros(n * m * m, dtype=K.dtype)
        p, q = batch.pair_rows
        P.index_add_(0, batch.pair, tau[self.spot[p]] * K[p] * K[q])
        padded = torch.ones(n * m, dtype=K.dtype)
        padded[batch.place] = diagonal[batch.member]
        P = P.reshape(n, m, m)
        P.diagonal(dim1=1, dim2=2).add_(padded.reshape(n, m))
        return P

    def _safe(self, batch, alpha, tau, K):
        return self.precision(batch, alpha.clamp(min=0) + 1e-3, tau, K)

    def joint(self, alpha, beta, tau, eta, K) -> Joint:
        """Moments of q(J) for α, β (core,), τ, η (spot,) and K (order,)."""
        mean, variance, along = torch.zeros_like(alpha), torch.zeros_like(alpha), torch.zeros_like(K)
        s_variance, log_Z = torch.zeros_like(tau), 0.5 * len(alpha) * np.log(2 * np.pi)
        for batch in self.batches:
            n, m = batch.n, batch.size
            h = torch.zeros(n * m, dtype=K.dtype)
            h[batch.place] = beta[batch.member]
            h.index_add_(0, batch.order_place, (eta[self.spot] * K)[batch.order])
            P = self.precision(batch, alpha, tau, K)
            L, bad = torch.linalg.cholesky_ex(P)
            if bool(bad.any()):  # on the way to the fixed point negative sites may add up to too much
                L = torch.linalg.cholesky(
                    torch.where((bad > 0)[:, None, None], self._safe(batch, alpha, tau, K), P)
                )
            S = torch.cholesky_inverse(L)
            mu = (S @ h.reshape(n, m, 1)).reshape(-1)
            log_Z += float(0.5 * (h * mu).sum() - L.diagonal(dim1=1, dim2=2).log().sum())
            mean[batch.member] = mu[batch.place]
            variance[batch.member] = S.diagonal(dim1=1, dim2=2).reshape(-1)[batch.place]
            p, q = batch.pair_rows
            covariance = S.reshape(-1)[batch.pair]
            along.index_add_(0, p, covariance * K[q])
            s_variance.index_add_(0, self.spot[p], covariance * K[p] * K[q])
        s_mean = torch.zeros_like(tau).index_add_(0, self.spot, K * mean[self.row])
        return Joint(mean, variance, s_mean, s_variance, along, float(log_Z))


def _pairs(spot: np.ndarray):
    """All ordered pairs (p, q) of rows with the same spot, p = q among them."""
    order = np.argsort(spot, kind="stable")
    count = np.bincount(spot)
    start = np.cumsum(count) - count
    size = count[spot[order]]
    p = np.repeat(order, size)
    first = np.repeat(start[spot[order]], size)
    offset = np.arange(len(p)) - np.repeat(np.cumsum(size) - size, size)
    return p, order[first + offset]
