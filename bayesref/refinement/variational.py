"""The mean and the widths of the Gaussian that is nearest to the posterior: averages over its draws, not the mode.

    q = Normal(m, Σ):   E_q ∇log p = 0,    Σ⁻¹ = -E_q ∇²log p           the smallest KL(q | p)
    m ← m + Σ ḡ,                  ḡ = ⟨∇log p(m + x) + ∇log p(m - x)⟩/2
    Λ_i² = 1 - ⟨x_i (Σ e)_i⟩/⟨x_i²⟩ + ⟨(Σ e)_i²⟩/⟨x_i²⟩,     e = ½[∇log p(m - x) - ∇log p(m + x)] - Σ⁻¹ x
    Σ ← Λ Σ Λ

Opper & Archambeau (2009), Neural Comput. 21, 786, equations 8 and 9; the second in the metric of the variances, by
Stein's identity. x are the same few draws in all rounds, with both signs (Giordano, Ingram & Broderick, 2024, J. Mach.
Learn. Res. 25, 18). e is zero where the model Σ⁻¹ is right, so that few draws tell; Λ^-2 - 1 is multiplied by the
share of its variance that is not noise. The mode that all B share (`shared_b`) keeps its width; draws along it are
at quantiles.
"""

from dataclasses import replace

import numpy as np
import torch
from scipy.special import ndtri

from bayesref.refinement.shared_b import LARGEST_B, B_rows, width_of_shared_B
from bayesref.refinement.structured_gaussian import StructuredGaussian

DRAWS = 16  # pairs
ROUNDS = 4
STILL = 0.1  # standard deviations rms: of a last step, after which the next is smaller still
FARTHEST = 0.5  # standard deviation, of a parameter in one round
SHARES = (0.5, 2.0)  # of the variances: none changes by more


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
    mean, width = width_of_shared_B(target, z, rows, law, sites)
    z = z.index_add(0, rows, torch.from_numpy(mean * law.along))
    law = replace(law, width=width)
    x, q = _draws(law, seed)
    B = B_rows(rows, law)
    var = (x**2).mean(1)
    for _ in range(ROUNDS):
        up, down = (_slopes(target, z, rows, B, s * x, sites) for s in (1, -1))
        g, bend = 0.5 * (up + down).mean(1), 0.5 * (down - up)
        push = float(law.along @ g)
        curvature = max(float((q * (law.along @ bend)).mean()) / width, width**-2)
        step = law.covariance(g - push * law.read) / var**0.5
        z = z.index_add(0, rows, torch.from_numpy(step.clip(-FARTHEST, FARTHEST) * var**0.5))
        forward = np.clip(push / curvature, -FARTHEST * width, FARTHEST * width)
        z = z.index_add(0, rows, torch.from_numpy(forward * law.along))
        if (step**2).mean() < STILL**2:
            break
    e = bend - law.precision(x)
    e = e - np.outer(law.read, law.along @ e)
    return law.scaled(_factors(x, -law.covariance(e), law.n_atom_rows)), law, z


def _draws(law, seed):
    """x (row, draw), and its mode in standard deviations, (draw,), at quantiles of the half of a normal law."""
    x = law.draw(DRAWS, seed)
    q = ndtri(0.5 + 0.5 * (np.arange(DRAWS) + 0.5) / DRAWS)
    q = np.random.default_rng(seed).permutation(q / np.sqrt((q**2).mean()))
    return x + np.outer(law.along, law.width * q - law.read @ x), q


def _slopes(target, z, rows, B, x, sites):
    """∇log p at z + x, (row, draw); log B is at the places B of z."""
    out = []
    for d in x.T:
        at = z.index_add(0, rows, torch.from_numpy(d.copy()))
        at[B] = at[B].clamp(max=np.log(LARGEST_B))
        out.append(target.value_and_grad(at, sites)[1][rows].numpy())
    return np.stack(out, 1)


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
