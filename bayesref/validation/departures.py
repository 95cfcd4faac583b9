"""Whether rates that experiments give by themselves are tied as they are said to be.

    χ² = min over lines of Σ_e (y_e - line(1/T_e))² / s_e²        y_e ± s_e: log k in experiment e by itself
                                                                  (Eyring: log k/T)
    p = P(χ²_n > χ²),  n = experiments - 2;   a rate that all share: a constant for the line, n = experiments - 1

Posteriors of log k are about normal, and those of different experiments independent.
"""

import numpy as np
from scipy.stats import chi2


def departures(links, separate) -> list[dict]:
    """A row for each rate that is tied: rate, chi2, dof, p; none where the tie is free to fit any rates.

    Parameters
    ----------
    links : RateLinks
    separate : draws of each experiment's own fit, {"k A->B": (draw,), ...}, ...
    """
    rows = []
    for name in links.common:
        if not all(f"k {name}" in sites for sites in separate):
            continue
        log_k = [np.log(np.asarray(sites[f"k {name}"]).reshape(-1)) for sites in separate]
        y, s = np.array([x.mean() for x in log_k]), np.array([x.std() for x in log_k])
        columns = [np.ones(len(y))]
        if name in links.activated:
            T = np.array(links.temperatures)
            columns.append(1e3 / T)
            y = y - np.log(T) if links.law == "eyring" else y
        X = np.stack(columns, 1) / s[:, None]
        dof = len(y) - int(np.linalg.matrix_rank(X))
        if dof < 1:
            continue
        fit = np.linalg.lstsq(X, y / s, rcond=None)[0]
        size = float(((y / s - X @ fit) ** 2).sum())
        rows.append({"rate": name, "chi2": size, "dof": dof, "p": float(chi2.sf(size, dof))})
    return rows
