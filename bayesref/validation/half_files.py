"""Agreement of half datasets, from the file that holds them.

    CC1/2    correlation of I (or F) of the halves
    CCanom   correlation of F(+) - F(-) of the halves
    Rsplit = √2 Σ |F₁ - F₂| / Σ (F₁ + F₂)
    z      = (F₁ - F₂)/√(SIGF₁² + SIGF₂²)

Formulas and papers are those of `validation.merging`, which has the halves in memory. Weights are one over the
variance of a difference, 1/(σ₁² + σ₂²). Correlations are averaged over repeats; the rest is taken over all of them.
"""

import numpy as np
import pandas as pd

from bayesref.crystal.symmetry import is_centric
from bayesref.io.result_mtz import ResultTable
from bayesref.validation.correlation import Method, correlate
from bayesref.validation.merging import by_bin, calibration

KEYS = ["H", "K", "L", "repeat"]


def half_pairs(table: ResultTable) -> pd.DataFrame:
    """One row per reflection, repeat and, with Friedel mates apart, mate that both halves measured.

    Returns
    -------
    Table with H K L repeat d and F1 SIGF1 I1 SIGI1 F2 SIGF2 I2 SIGI2 (those of them that the file has).
    """
    data = _with_repeat(table)
    data = data if "F" in data or "I" in data else _mates_as_rows(table, data)
    values = [k for k in ("F", "SIGF", "I", "SIGI") if k in data]
    keys = [*KEYS, "minus"] if "minus" in data else KEYS
    return _two_halves(data, keys, values)


def anomalous_pairs(table: ResultTable, which: str = "F") -> pd.DataFrame:
    """One row per acentric reflection and repeat of which both halves measured both mates: D1, SIGD1, D2, SIGD2."""
    data = _with_repeat(table)
    data = data[~is_centric(data[["H", "K", "L"]], table.spacegroup)]
    plus, minus = f"{which}(+)", f"{which}(-)"
    sigma = np.hypot(data[f"SIG{plus}"], data[f"SIG{minus}"])
    return _two_halves(data.assign(D=data[plus] - data[minus], SIGD=sigma), KEYS, ["D", "SIGD"])


def _with_repeat(table):
    return table.data if "repeat" in table.data else table.data.assign(repeat=0)


def _mates_as_rows(table, data):
    """Columns F(+), F(-) ... one below the other; centric reflections once."""
    own = [c for c in data if not str(c).endswith(("(+)", "(-)"))]
    parts = []
    for k, side in enumerate(("(+)", "(-)")):
        mine = [c for c in data if str(c).endswith(side)]
        part = data[[*own, *mine]].rename(columns={c: c.removesuffix(side) for c in mine})
        parts.append(part.assign(minus=k))
    centric = is_centric(data[["H", "K", "L"]], table.spacegroup)
    parts[1] = parts[1][~centric]
    return pd.concat(parts)


def _two_halves(data, keys, values):
    first = data["half"] == data["half"].min()
    columns = [*keys, "d", *values]
    left, right = data.loc[first, columns].dropna(), data.loc[~first, columns].dropna().drop(columns="d")
    return left.merge(right, on=keys, suffixes=("1", "2"))


def half_correlation(
    pairs: pd.DataFrame, bins, limits, column: str, method: Method = "pearson"
) -> pd.DataFrame:
    """Correlation of `column` of the halves by resolution: columns dmax, dmin, pairs, cc; the last row is for all."""
    x, y = (pairs[f"{column}{i}"].to_numpy() for i in (1, 2))
    weight = 1 / (pairs[f"SIG{column}1"].to_numpy() ** 2 + pairs[f"SIG{column}2"].to_numpy() ** 2)
    repeat = pairs["repeat"].to_numpy()

    def row(mine):
        groups = [mine & (repeat == r) for r in np.unique(repeat[mine])]
        cc = [correlate(x[g], y[g], method, weight[g]) for g in groups]
        known = [c for c in cc if np.isfinite(c)]
        return {"pairs": int(mine.sum()), "cc": float(np.mean(known)) if known else np.nan}

    return by_bin(limits, bins, row)


def half_rsplit(pairs: pd.DataFrame, bins, limits, column: str = "F") -> pd.DataFrame:
    """Rsplit by resolution: columns dmax, dmin, pairs, rsplit; the last row is for all."""
    x, y = (pairs[f"{column}{i}"].to_numpy() for i in (1, 2))

    def row(mine):
        total = (x + y)[mine].sum()
        R = np.sqrt(2) * np.abs(x - y)[mine].sum() / total if total > 0 else np.nan
        return {"pairs": int(mine.sum()), "rsplit": float(R)}

    return by_bin(limits, bins, row)


def half_calibration(pairs: pd.DataFrame, bins, limits) -> pd.DataFrame:
    """z², cover50 and cover90 by resolution; the last row is for all."""
    z = half_difference(pairs)
    return by_bin(limits, bins, lambda mine: {"pairs": int(mine.sum())} | calibration(z[mine]))


def half_difference(pairs: pd.DataFrame) -> np.ndarray:
    """z of each pair."""
    return ((pairs["F1"] - pairs["F2"]) / np.hypot(pairs["SIGF1"], pairs["SIGF2"])).to_numpy()
