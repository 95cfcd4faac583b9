"""Small observations that several tests share."""

import gemmi
import numpy as np
import torch

from bayesref.crystal.asu import reciprocal_asu
from bayesref.data.observations import Observations


def small_observations(n_image=4, seed=3, K=3.0):
    """Twenty reflections, three spots each but for two that have one very negative spot."""
    rng = np.random.default_rng(seed)
    cell, group = gemmi.UnitCell(28, 36, 43, 90, 90, 90), gemmi.SpaceGroup("P 21 21 21")
    hkl = gemmi.make_miller_array(cell, group, 9.0, 30.0)[:20]
    hkl = hkl[~group.operations().systematic_absences(hkl)]
    unique, _ = reciprocal_asu(hkl, cell, group)
    n = len(unique)
    h = np.sort(np.concatenate([np.repeat(np.arange(n - 2), 3), [n - 2, n - 1]]))
    eps, centric = unique.epsilon.numpy(), unique.centric.numpy()
    F2 = eps * np.where(centric, rng.normal(size=n) ** 2, rng.exponential(size=n))
    sd = rng.uniform(0.3, 1.0, size=len(h))
    intensity = K * F2[h] + sd * rng.normal(size=len(h))
    intensity[h >= n - 2] = -10 * sd[h >= n - 2]
    t = torch.tensor
    return Observations(
        unique, t(h), t(np.arange(len(h)) % n_image), torch.zeros(len(h), dtype=torch.int64), t(intensity), t(sd),
        unique.hkl[t(h)], t(rng.normal(size=(len(h), 3))), ("X", "Y", "BATCH"), torch.arange(len(h)), n_image,
    )  # fmt: skip
