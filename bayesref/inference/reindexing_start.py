"""The first consensus of the images: which way each is indexed, and which have nothing to do with the others.

See `bayesref.inference.reindexing` for the equations. Everything here is one pass over the spots per step:

    S_h = Σ_i Y_jg z_i,  n_h = Σ_i Y_jg        over spots that way g of their image brings to h; Y: probabilities
    p(z_i | others) = Normal(S'/(n' + κ), σ² + σ²/(n' + κ)),   κ = σ²/τ²;  S', n': without the image itself
"""

from dataclasses import dataclass

import numpy as np
import torch

from bayesref.data.observations import Observations
from bayesref.inference.reindexing import BINS, CLIP, Ways, gauge

POWER_STEPS, EM_STEPS = 100, 60
FEW = 6  # spots per image below which z is not worth centring


@dataclass(frozen=True, eq=False)
class Start:
    """The first consensus.

    Attributes
    ----------
    probability : (image, way + 1), the last column: nothing to do with the others
    log_evidence : sum over images
    """

    probability: np.ndarray
    log_evidence: float


def first_consensus(
    obs: Observations, ways: Ways, bad: float = 0.05, starts: int = 2, seed: int = 0
) -> Start:
    """EM from the leading eigenvector and from a random start or two; the best is kept.

    Parameters
    ----------
    obs, ways : as `reindexing.closed` returned them
    bad : expected fraction of images that have nothing to do with the others; 0: all belong
    """
    spots, rng = _Spots(obs, ways), np.random.default_rng(seed)
    results = []
    for k in range(starts if len(ways) > 1 else 1):
        Y = np.abs(rng.normal(size=(spots.n_image, len(ways))))
        if k == 0 and len(ways) > 1:
            Y = _leading(spots, rng)
        results.append(_em(spots, Y / Y.sum(axis=1, keepdims=True), bad))
    best = max(results, key=lambda s: s.log_evidence)
    Y = best.probability
    order = gauge(Y[:, :-1].argmax(axis=1), 1 - Y[:, -1], ways, obs.asu.spacegroup)
    moved = np.zeros_like(Y)
    np.add.at(moved.T, np.append(order, len(ways)), Y.T)
    return Start(moved, best.log_evidence)


class _Spots:
    """z of every spot in the order of the images, with the rows that each way gives it."""

    def __init__(self, obs: Observations, ways: Ways):
        order = obs.image_id.argsort(stable=True)
        self.image = obs.image_id[order].numpy()
        self.n_image, self.n_way, self.n_hkl = obs.n_image, len(ways), len(obs.asu)
        rows = ways.rows[:, obs.hkl_id[order]].numpy()
        self.rows = rows.astype(np.int32)
        self.z = normalised(obs)[order].numpy()
        self.count = np.bincount(self.image, minlength=self.n_image)

    def per_image(self, x) -> np.ndarray:
        return np.bincount(self.image, weights=x, minlength=self.n_image)

    def sums(self, Y) -> tuple[np.ndarray, np.ndarray]:
        """S and n of each reflection."""
        S, n = np.zeros(self.n_hkl), np.zeros(self.n_hkl)
        for g, rows in enumerate(self.rows):
            y = Y[self.image, g]
            S += np.bincount(rows, weights=y * self.z, minlength=self.n_hkl)
            n += np.bincount(rows, weights=y, minlength=self.n_hkl)
        return S, n


def normalised(obs: Observations) -> torch.Tensor:
    """z of each spot, (spot,)."""
    edges = torch.quantile(obs.asu.stol2, torch.linspace(0, 1, BINS + 1, dtype=torch.float64)[1:-1])
    which = torch.bucketize(obs.asu.stol2, edges)[obs.hkl_id]
    E2, image = obs.I / obs.asu.epsilon[obs.hkl_id], obs.image_id
    scale = torch.ones(obs.n_image, dtype=E2.dtype)
    n = torch.bincount(image, minlength=obs.n_image).clamp(min=1)
    bins = torch.bincount(which, minlength=BINS).clamp(min=1)
    for _ in range(3):
        mean = (E2.new_zeros(BINS).index_add(0, which, E2 / scale[image]) / bins).clamp(min=1e-12)
        ratio = E2 / mean[which]
        scale = scale.new_zeros(obs.n_image).index_add(
            0, image, ratio.clamp(-CLIP * scale[image], CLIP * scale[image])
        )
        scale = (scale / n).clamp(min=0.05 * float((scale / n).mean().clamp(min=1e-12)))
    z = (ratio / scale[image]).clamp(-1, CLIP)
    # Weak images say little: their z is noise, of this size.
    noise = (obs.SIGI / obs.asu.epsilon[obs.hkl_id] / mean[which] / scale[image]).clamp(max=1e3)
    z = z - (scale.new_zeros(obs.n_image).index_add(0, image, z) / n)[image] * (n > FEW)[image]
    return z / (1 + noise**2).sqrt()


def _leading(spots: _Spots, rng) -> np.ndarray:
    """Power iteration in the space of images × ways, each image's ways summing to zero; (image, way), ≥ 0."""
    X = rng.normal(size=(spots.n_image, spots.n_way))
    own = np.sqrt(np.maximum(spots.per_image(spots.z**2), 1e-12))[:, None]
    for _ in range(POWER_STEPS):
        X -= X.mean(axis=1, keepdims=True)
        X /= np.linalg.norm(X)
        c, _ = spots.sums(X / own)
        scores = np.stack([spots.per_image(spots.z * c[rows]) for rows in spots.rows], axis=1)
        # Less what an image says of itself, which would favour whatever it has now.
        X = scores / own - X
    X = X - X.mean(axis=1, keepdims=True)
    return np.exp(np.clip(4 * X / max(X.std(), 1e-30), -10, 10))


def _em(spots: _Spots, Y, bad: float) -> Start:
    total = float((spots.z**2).sum() / max(len(spots.z), 1))
    tau2, good, value = 0.3 * total, np.full(spots.n_image, 1 - bad), -np.inf
    log_prior = np.log(np.append(np.full(spots.n_way, (1 - bad) / spots.n_way), max(bad, 1e-300)))
    for step in range(EM_STEPS):
        sigma2 = max(total - tau2, 0.05 * total)
        S, n = spots.sums(Y * good[:, None])
        kappa = sigma2 / tau2
        logs, explained = [], np.zeros(spots.n_image)
        for g, rows in enumerate(spots.rows):
            y = (Y[:, g] * good)[spots.image]
            n_others = np.maximum(n[rows] - y, 0) + kappa
            mean = (S[rows] - y * spots.z) / n_others
            variance = sigma2 * (1 + 1 / n_others)
            log = -0.5 * (spots.z - mean) ** 2 / variance - 0.5 * np.log(variance)
            logs.append(spots.per_image(log))
            explained += Y[:, g] * spots.per_image(spots.z**2 - (spots.z - mean) ** 2)
        logs.append(-0.5 * spots.per_image(spots.z**2 / total + np.log(total)))
        joint = np.stack(logs, axis=1) + log_prior
        joint[:, -1] = -np.inf if not bad else joint[:, -1]
        peak = joint.max(axis=1, keepdims=True)
        P = np.exp(joint - peak)
        before, value = value, float((peak[:, 0] + np.log(P.sum(axis=1))).sum())
        P /= P.sum(axis=1, keepdims=True)
        good = 1 - P[:, -1]
        Y = P[:, :-1] / np.maximum(P[:, :-1].sum(axis=1, keepdims=True), 1e-300)
        # What the others explain of z, per spot of a good image, is τ² but for the error of c.
        tau2 = min(
            max(float((good * explained).sum() / max((good * spots.count).sum(), 1)), 0.02 * total),
            0.9 * total,
        )
        if step > 5 and value - before < 1e-6 * abs(value):
            break
    return Start(P, value)
