"""How well a model explains merged data, by resolution.

    R = Σ | |F_obs| - K G | / Σ |F_obs|          G = D |F_calc|, of a twin √Σ;  F_obs as measured, or √max(I, 0)
    CC = correlation of F_obs with K G           K: least squares on the work set, see `refinement.r_factors`
    FOM = E[F m] / E F, the expected cosine of the phase error

Work and free set apart; bins hold equal numbers of reflections.
"""

import pandas as pd
import torch

from bayesref.refinement.r_factors import on_scale_of_data


def refinement_statistics(target, z, n_bins: int = 12) -> pd.DataFrame:
    """A row for each bin of resolution, from low to high, and a last one for all.

    Columns: dmax, dmin (Å), n, n_free, R, R_free, CC, CC_free, FOM, error (β / ⟨F²/ε⟩), D.
    """
    data = target.data
    values = target.latents.unpack(z)
    with torch.no_grad():
        G, V = target.expected(values)
    measured = target.measured(z)
    work = data.measured & ~data.free
    scaled = on_scale_of_data(data.F_obs, target.explained(G, values), data.asu.stol2, work)
    columns = {
        "F": data.F_obs, "G": scaled, "fom": measured.phased / measured.F,
        "error": V / data.asu.epsilon / target.atoms.Sigma,
    }  # fmt: skip
    d, order = data.asu.dHKL, data.asu.dHKL.argsort(descending=True)
    order = order[data.measured[order]]
    bins = [b for b in order.tensor_split(min(n_bins, max(1, len(order) // 50))) if len(b)]
    return pd.DataFrame([_row(columns, data.free, d, rows) for rows in [*bins, order]])


def _row(columns, free, d, rows):
    out = {"dmax": float(d[rows].max()), "dmin": float(d[rows].min()), "n": int((~free[rows]).sum())}
    out["n_free"] = int(free[rows].sum())
    for name, chosen in (("", rows[~free[rows]]), ("_free", rows[free[rows]])):
        F, G = columns["F"][chosen], columns["G"][chosen]
        out[f"R{name}"] = float((F - G).abs().sum() / F.sum()) if len(F) else float("nan")
        out[f"CC{name}"] = float(torch.corrcoef(torch.stack([F, G]))[0, 1]) if len(F) > 2 else float("nan")
    out["FOM"] = float(columns["fom"][rows].mean())
    out["error"] = float(columns["error"][rows].mean())
    return out
