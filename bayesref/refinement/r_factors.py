"""R factors, on the scale of the data.

    R = Σ | |F_obs| - K G | / Σ |F_obs|,     K(s) = k exp(-b s²) of least squares on the work set

G = D |F_calc| is the amplitude that the model stands for, not what is measured on average: ⟨F²⟩ = G² + ε β. Where β is
a share of the intensity, F_obs lies above G: for a twin, whose mates are added up, by β/2 of ⟨F²⟩, 5 to 7 % of F at
β = 0.14, and by less for a single crystal. R factors of other programs are of F_calc scaled to F_obs by least squares;
with K so are these. K is for comparison only: nothing is fitted to it.
"""

import torch

ROUNDS = 6  # of Gauss and Newton, from b = 0: K is near to one


def on_scale_of_data(F_obs, G, stol2, rows) -> torch.Tensor:
    """K G (hkl,), K fitted to the reflections `rows` (hkl,) bool.

    Parameters
    ----------
    F_obs, G : (hkl,) measured and expected amplitudes
    stol2 : (hkl,) s², Å⁻²
    """
    f, g, s2 = F_obs[rows], G[rows], stol2[rows]
    norm = float((g**2).sum())
    if norm == 0:
        return G
    x = torch.stack([(f * g).sum() / norm, torch.zeros((), dtype=G.dtype)])  # k, b
    for _ in range(ROUNDS):
        fall = torch.exp(-x[1] * s2) * g
        J = torch.stack([fall, -x[0] * s2 * fall], 1)
        step = torch.linalg.lstsq(J, (f - x[0] * fall)[:, None]).solution[:, 0]
        x = x + step
    scaled = x[0] * torch.exp(-x[1] * stol2) * G
    return scaled if bool(torch.isfinite(scaled).all()) else G


@torch.no_grad()
def r_factors(target, z) -> dict[str, float]:
    """R of the work set, "R", and of the free set, "R_free" (NaN without one)."""
    d, values = target.data, target.latents.unpack(z)
    G = target.explained(target.expected(values)[0], values)
    Fo = d.F_obs
    sets = {"R": d.measured & ~d.free, "R_free": d.measured & d.free}
    difference = (Fo - on_scale_of_data(Fo, G, d.asu.stol2, sets["R"])).abs()
    return {
        k: float(difference[r].sum() / Fo[r].sum()) if bool(r.any()) else float("nan")
        for k, r in sets.items()
    }
