"""The Gaussian of log B that is nearest to a skewed posterior: curvature and slope averaged over it, not at the mode.

    f_i(x) = ½ Σ_b W_b F_i² [exp(-(eˣ - 1) B_i s²) - 1]²      what the data say of log B_i = log B̂_i + x, mode at 0
    x ~ Normal(δ, P⁻¹):    P = E ∇²f + prior,    E ∇f + prior δ = 0

Where B is known well, f is a parabola and nothing changes. Where it is not, f is steep towards large B and flat towards
small B. The two conditions are those of the Gaussian with the smallest Kullback-Leibler divergence KL(q | p); Opper &
Archambeau (2009), Neural Comput. 21, 786, equations 8 and 9. E over Gauss-Hermite nodes, with Stein's identities
E f' = E[(x - δ) f]/σ², E f'' = E[((x - δ)²/σ² - 1) f]/σ². W, F: see `curvature`.
"""

import numpy as np
import scipy.sparse as sparse

from bayesref.refinement.atomic_model import of_atoms
from bayesref.refinement.curvature import Factor, _amplitudes, shell_weights

NODES = 15
ROUNDS = 6
DRAWS = 200  # of the posterior, for the standard deviation of each log B to 5 %
WIDEST = 1.0  # standard deviation of log B, and δ: beyond, the data say nothing and the prior is what counts
LEAST = 0.2  # of the curvature at the mode


def averaged(target, z, P: sparse.csc_matrix, factor: Factor, seed: int = 0):
    """The averaged precision, its factor, and δ of (x, y, z, log B) of all atoms, (4 atom,).

    Parameters
    ----------
    P, factor : precision at the mode z and its factor; what is returned where an average leaves P indefinite
    """
    values = target.latents.unpack(z)
    s2, W = shell_weights(target, z)
    crystal = target.atoms.with_parameters(*(None if v is None else v.detach() for v in of_atoms(values)))
    A2W = _amplitudes(crystal, target.atoms.factors, s2) ** 2 * W  # (atom, shell)
    Bs = values["B"].detach().numpy()[:, None] * s2
    at_mode = (A2W * Bs**2).sum(1)
    t, w = np.polynomial.hermite_e.hermegauss(NODES)
    w = w / w.sum()
    n = len(Bs)
    rows = 4 * np.arange(n) + 3
    first, delta, curve, mean_P = factor, np.zeros(4 * n), at_mode, P
    for _ in range(ROUNDS):
        sigma = factor.draw(DRAWS, np.random.default_rng(seed))[:, rows].std(0).clip(1e-6, WIDEST)
        x = delta[rows, None] + sigma[:, None] * t  # (atom, node)
        u = np.exp(-(np.exp(x)[:, :, None] - 1) * Bs[:, None, :]) - 1  # (atom, node, shell)
        f = 0.5 * (A2W[:, None, :] * u**2).sum(-1)
        slope = (w * t * f).sum(1) / sigma
        curve = np.sqrt(curve * ((w * (t**2 - 1) * f).sum(1) / sigma**2).clip(LEAST * at_mode))
        change = np.zeros(4 * n)
        change[rows] = curve - at_mode
        try:
            mean_P = (P + sparse.diags(change)).tocsc()
            factor = Factor(mean_P)
        except (np.linalg.LinAlgError, RuntimeError):
            return P, first, np.zeros(4 * n)
        residual = P @ delta
        residual[rows] += slope - at_mode * delta[rows]
        delta = (delta - factor.solve(residual)).clip(-WIDEST, WIDEST)
    return mean_P, factor, delta
