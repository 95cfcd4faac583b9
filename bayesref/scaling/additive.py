"""Smooth functions of the metadata, alone and in pairs: a scale as a functional analysis of variance.

    log K = Σ_j f_j(x_j) + Σ_{i<j} f_ij(x_i, x_j)
    f_j  = Σ_k v_jk φ_k(x_j),     f_ij = Σ_kl v_ijkl ψ_k(x_i) ψ_l(x_j)       φ, ψ: bumps, finer and coarser

Each f has its own learned prior, so that pairs that do not matter vanish. Linear in its weights: the fit is nearly
quadratic and the posterior over the functions nearly Gaussian. After Wahba et al. (1995), Ann. Stat. 23, 1865.
"""

from itertools import combinations

import torch

from bayesref.scaling.basis import bumps
from bayesref.scaling.scale import Group, Scale


class Additive(Scale):
    """Additive smooth functions of each metadata column and of each pair.

    Parameters
    ----------
    obs : Observations, whose metadata set the ranges
    n_single : bumps per column
    n_pair : bumps per column in a pair; 0 = no pairs
    """

    def __init__(self, obs, n_single: int = 12, n_pair: int = 4):
        keys, x = obs.metadata_keys, obs.metadata
        self.limits = [(float(c.min()), float(c.max())) for c in x.T]
        self.n_single, self.n_pair = n_single, n_pair
        self.pairs = list(combinations(range(len(keys)), 2)) if n_pair else []
        super().__init__(
            [Group(k, n_single, 0.3) for k in keys]
            + [Group(f"{keys[i]} × {keys[j]}", n_pair**2, 0.1) for i, j in self.pairs]
        )

    def features(self, obs):
        x = obs.metadata
        single = [bumps(c, self.n_single, r) for c, r in zip(x.T, self.limits, strict=True)]
        pair = [bumps(c, self.n_pair, r) for c, r in zip(x.T, self.limits, strict=True)] if self.pairs else []
        return torch.cat(single, 1) if single else x.new_zeros(len(x), 0), *pair

    def log_scale(self, v, single, *pair):
        n = single.shape[1]
        log_K = single @ v[:n]
        for (i, j), c in zip(self.pairs, v[n:].split(self.n_pair**2) if self.pairs else (), strict=True):
            log_K = log_K + ((pair[i] @ c.reshape(self.n_pair, self.n_pair)) * pair[j]).sum(1)
        return log_K

    def basis(self, single, *pair):
        products = [(pair[i][:, :, None] * pair[j][:, None, :]).flatten(1) for i, j in self.pairs]
        return torch.cat([single, *products], 1)
