"""Tests of twinning as figures, sentences and tables, for merged data of any origin.

Merging gives E[F²], not the measurement: Wilson's prior pulls weak intensities up. Under it the posterior of an
acentric F² is a normal distribution cut at zero, whose mean and standard deviation give the measurement back:

    E/sd = (t + λ)/√(1 - λ(t + λ)),  λ = φ(t)/Φ(t);     sd₀ = sd/√(1 - λ(t + λ)),   I = t sd₀ + sd₀²/(εΣ)

E/sd falls to 1 where spots say nothing, and below where they may be blanks: such reflections are left out.
"""

import numpy as np
import pandas as pd
import torch
from scipy.special import log_ndtr

from bayesref.distributions.falloff import wilson_sigma
from bayesref.validation.twinning import Twinning, twinning

CLEAR = 0.03  # by which ⟨|L|⟩ must be lower than expected: crystals without a twin differ by 0.01 to 0.02
CONVINCING = 10.0  # log B
UNKNOWN = -4.0  # t: below, two reflections alike in E and sd may come from measurements that are far apart
LEAST = 0.02  # fraction: below, a law makes no difference


def measured_intensities(I, SIGI, Sigma) -> tuple[np.ndarray, np.ndarray]:
    """The measurement and its standard deviation from mean and standard deviation of F² of a merge, acentric.

    Parameters
    ----------
    I, SIGI : (hkl,) E[F²] and its standard deviation
    Sigma : (hkl,) εΣ of the prior

    Returns
    -------
    I, SIGI : (hkl,), I is NaN where it cannot be told
    """
    t = np.linspace(-8, 60, 3000)
    mills = np.exp(-0.5 * t**2 - 0.5 * np.log(2 * np.pi) - log_ndtr(t))
    spread = np.sqrt((1 - mills * (t + mills)).clip(1e-6))
    ratio = (t + mills) / spread
    at = np.interp(I / SIGI, ratio, t)
    at = np.where(ratio[-1] < I / SIGI, I / SIGI, at)
    sigma = SIGI / np.interp(at, t, spread)
    return np.where(at > UNKNOWN, at * sigma + sigma**2 / Sigma, np.nan), sigma


def twinning_of_merge(asu, I, SIGI, step=(2, 2, 2)) -> Twinning | None:
    """Tests of what a merge says, (hkl,) mean and standard deviation of F²; None for too few.

    Friedel mates kept apart are all used.
    """
    known = torch.isfinite(I) & torch.isfinite(SIGI) & (SIGI > 0)
    asu, I, SIGI = asu.subset(known), I[known].double(), SIGI[known].double()
    if len(asu) < 50:
        return None
    Sigma = (wilson_sigma(I, SIGI, asu.stol2, asu.epsilon, asu.centric) * asu.epsilon).numpy()
    raw, sigma = measured_intensities(I.numpy(), SIGI.numpy(), Sigma)
    centric = asu.centric.numpy()
    raw, sigma = np.where(centric, I.numpy(), raw), np.where(centric, SIGI.numpy(), sigma)
    return twinning(asu, torch.from_numpy(raw), torch.from_numpy(sigma), step=step)


def twin_figures(asu, amplitudes, dataset: int = 0) -> dict:
    """Tests of one dataset of a merge, plain numbers for run.json; empty where there are too few reflections."""
    mine = (asu.dataset_id == dataset) & (amplitudes.N > 0)
    if asu.anomalous:  # mates measure the same but for anomalous differences: (+) rows are enough
        mine &= (asu.friedel_mates() >= 0) | asu.centric
    one = asu.subset(mine)
    found = twinning_of_merge(one, amplitudes.I[mine], amplitudes.SIGI[mine])
    return {} if found is None else as_figures(found)


def as_figures(t: Twinning) -> dict:
    """Plain numbers."""
    laws = [
        {k: getattr(x, k) for k in ("n", "H", "H2", "from_H", "fraction", "sd", "log_odds")}
        | {"operator": x.law.operator, "misfit": x.law.misfit}
        for x in t.laws
    ]
    return {
        "dmin": t.dmin, "moment_acentric": t.acentric.value, "moment_acentric_error": t.acentric.error,
        "moment_centric": None if t.centric is None else t.centric.value,
        "L": t.L.mean, "L_error": t.L.error, "L2": t.L.mean2, "L_expected": t.L.expected,
        "fraction_from_L": t.L.fraction, "fraction_from_L_sd": t.L.sd, "L_cumulative": t.L.cumulative.tolist(),
        "laws": laws,
    }  # fmt: skip


def verdict(f: dict) -> str:
    """What the tests say together."""
    low = f["L_expected"] - f["L"] > max(CLEAR, 4 * f["L_error"])
    alike = [x for x in f["laws"] if x["log_odds"] > CONVINCING and x["fraction"] > LEAST]
    if low and alike:
        best = max(alike, key=lambda x: x["log_odds"])
        return f"twinned by {best['operator']}, fraction {best['fraction']:.2f}"
    if low:
        return "intensities as of a twin, by a law that this lattice does not have, or of crystals merged in two ways"
    if alike:
        names = ", ".join(x["operator"] for x in alike)
        return f"mates by {names} are alike, but ⟨|L|⟩ is that of untwinned data: NCS, a small twin, or true symmetry"
    return "no twinning"


def twin_lines(figures: dict) -> list[str]:
    """Sentences for each table of `twin_figures` among the figures of a run, under names "twinning_k"."""
    lines = []
    for name, f in figures.items():
        if not name.startswith("twinning_") or not f:
            continue
        lines.append(
            f"Dataset {name.removeprefix('twinning_')}: ⟨I²⟩/⟨I⟩² {f['moment_acentric']:.2f} ± "
            f"{f['moment_acentric_error']:.2f} (2; perfect twin 1.5), ⟨|L|⟩ {f['L']:.3f} ± {f['L_error']:.3f} "
            f"({f['L_expected']:.3f}; perfect twin 0.375), to {f['dmin']:.2f} Å: {verdict(f)}."
        )
        for x in f["laws"]:
            if np.isfinite(x["fraction"]):
                lines.append(
                    f"  Twin law {x['operator']}: fraction {x['fraction']:.3f} ± {x['sd']:.3f} by likelihood, "
                    f"{x['from_H']:.3f} by ⟨|H|⟩ of {x['n']:,} pairs, log odds {x['log_odds']:+,.0f}."
                )
    return lines


def twin_table(f: dict) -> pd.DataFrame:
    """A row for each test, with what untwinned crystals and perfect twins have."""
    rows: list[tuple] = [
        ("⟨I²⟩/⟨I⟩² acentric", f["moment_acentric"], f["moment_acentric_error"], 2.0, 1.5),
        ("⟨I²⟩/⟨I⟩² centric", f["moment_centric"], None, 3.0, 2.0),
        ("⟨|L|⟩", f["L"], f["L_error"], f["L_expected"], 0.375),
        ("⟨L²⟩", f["L2"], None, 1 / 3, 0.2),
        ("fraction from ⟨|L|⟩", f["fraction_from_L"], f["fraction_from_L_sd"], 0.0, 0.5),
    ]
    for x in f["laws"]:
        rows += [
            (f"{x['operator']}: ⟨|H|⟩", x["H"], None, 0.5, 0.0),
            (f"{x['operator']}: fraction", x["fraction"], x["sd"], 0.0, 0.5),
            (f"{x['operator']}: log odds", x["log_odds"], None, None, None),
        ]
    frame = pd.DataFrame(rows, columns=["test", "value", "error", "untwinned", "perfect twin"])
    return frame.astype(dict.fromkeys(frame.columns[1:], float))
