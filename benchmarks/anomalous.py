"""Sulfur SAD with known differences: lysozyme's model with f' and f'' of its sulfurs, measured 20 times.

    python benchmarks/anomalous.py [--programs bayesref careless] [--iterations 10000] [--dmin 3.0]

    F(±h)  = F_atoms(±h; f', f'' at --wavelength) + k_sol exp(-B_sol s²) F_mask(±h)
    K_i    = G (1 + 0.4 cos(2π u + 0.7)) exp(-4 u s²) (1 + 0.1 cos x + 0.1 sin y) exp(0.02 n_image)
    sd_i²  = sig0² + gain K F² + (0.03 K F²)²,       I_i ~ Normal(K_i F_h², sd_i)

u: image number over the number of images; x, y: position on the detector; s² = 1/(4 d²). Both programs merge the same
file with --anomalous, and halves of its images. Scored: CCanom of the halves (mates measured in both), by --bins and
overall; the correlation of dF = F(+) - F(-) with the truth, after k exp(-B s²) has brought F to the scale of the
model; the same weighted by what is known of each dF; z² and 90 % coverage of dF by its standard deviation.
"""

from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import reciprocalspaceship as rs
import torch
from careless_program import mono
from common import parser, program, run, table

from bayesref.crystal.cell import hkl_stol2
from bayesref.crystal.symmetry import as_hkl, is_absent, is_centric
from bayesref.io.structure import read_structure
from bayesref.io.write_mtz import write_mtz
from bayesref.structure_factors.calculate import structure_factors
from bayesref.structure_factors.scale import add_solvent
from bayesref.structure_factors.solvent import SolventMask

KEYS = "BATCH,dHKL,X,Y"
BEST = ("--studentt-likelihood-dof=16", "--refine-uncertainties")
MATES = ["F(+)", "F(-)"]


def true_amplitudes(model: Path, dmin: float, wavelength: float) -> rs.DataSet:
    """F(+) and F(-) of every acentric and centric reflection, electrons."""
    crystal = read_structure(model)
    hkl = gemmi.make_miller_array(crystal.cell, crystal.spacegroup, dmin)
    both = torch.tensor(np.concatenate([hkl, -hkl]), dtype=torch.int64)
    with torch.no_grad():
        F = structure_factors(crystal, both, wavelength=wavelength).to(torch.complex128)
        F = (
            add_solvent(F, SolventMask(both)(crystal), hkl_stol2(both, crystal.cell), 0.35, 46.0)
            .abs()
            .numpy()
        )
    frame = pd.DataFrame(hkl, columns=["H", "K", "L"])
    data = rs.DataSet(frame.assign(**{"F(+)": F[: len(hkl)], "F(-)": F[len(hkl) :]}), merged=True)
    data.cell, data.spacegroup = crystal.cell, crystal.spacegroup
    data = data.astype({"H": "H", "K": "H", "L": "H", "F(+)": "G", "F(-)": "G"}).set_index(["H", "K", "L"])
    return data[~is_absent(hkl, crystal.spacegroup)]


def measured(truth: rs.DataSet, multiplicity: float, images: int, seed: int) -> rs.DataSet:
    """Spots: each reflection `multiplicity` times, half of them of the (-) mate."""
    rng = np.random.default_rng(seed)
    hkl = as_hkl(truth.get_hkls())
    n = np.maximum(rng.poisson(multiplicity, len(hkl)), 1)
    h = np.repeat(np.arange(len(hkl)), n)
    image = rng.integers(0, images, len(h))
    order = np.argsort(image, kind="stable")
    h, image = h[order], image[order]
    minus = rng.integers(0, 2, len(h))
    F = truth[MATES].to_numpy(float)[h, minus]
    ops = list(truth.spacegroup.operations())
    which = rng.integers(0, len(ops), len(h))
    images_of = np.stack([rs.utils.apply_to_hkl(hkl, op) for op in ops])  # (operator, hkl, 3)
    observed = images_of[which, h] * (1 - 2 * minus)[:, None]
    d = truth.cell.calculate_d_array(hkl)
    X, Y = detector(1 / d[h], 1 / d.min(), rng)
    K = scale(image, images, 0.25 / d[h] ** 2, X, Y, rng)
    K *= 500 / np.mean(K * F**2)
    I = K * F**2
    sd = np.sqrt(10.0**2 + 1.5 * I + (0.03 * I) ** 2)
    frame = pd.DataFrame(observed, columns=["H", "K", "L"])
    columns = {"I": I + sd * rng.normal(size=len(h)), "SIGI": sd, "BATCH": image + 1, "X": X, "Y": Y}
    data = rs.DataSet(frame.assign(**columns), cell=truth.cell, spacegroup=truth.spacegroup, merged=False)
    types = {"H": "H", "K": "H", "L": "H", "I": "J", "SIGI": "Q", "BATCH": "B", "X": "R", "Y": "R"}
    return data.astype(types).set_index(["H", "K", "L"])


def detector(radius, largest, rng):
    """Positions in pixels about (1000, 1000)."""
    azimuth = rng.uniform(0, 2 * np.pi, len(radius))
    return 1000 + 900 * radius / largest * np.cos(azimuth), 1000 + 900 * radius / largest * np.sin(azimuth)


def scale(image, images, stol2, X, Y, rng):
    """K of each spot, on no particular scale."""
    u, x, y = image / images, (X - 1000) / 500, (Y - 1000) / 500
    K = (1 + 0.4 * np.cos(2 * np.pi * u + 0.7)) * np.exp(-4 * u * stol2)
    K *= 1 + 0.1 * np.cos(x) + 0.1 * np.sin(y)
    return K * np.exp(0.02 * rng.normal(size=images))[image]


def differences(path: Path) -> pd.DataFrame:
    """F(+) - F(-) of acentric reflections that have both, its sd, and F; by index, half and repeat where there are."""
    data = rs.read_mtz(str(path))
    data.columns = [c.replace("SigF", "SIGF") for c in data]
    data = data.dropna(subset=MATES)
    data = data[~is_centric(data.get_hkls(), data.spacegroup)]
    index = [k for k in ("half", "repeat") if k in data]
    F, SIGF = data[MATES].to_numpy(float), data[["SIGF(+)", "SIGF(-)"]].to_numpy(float)
    sd = data["SIGDANO"].to_numpy(float) if "SIGDANO" in data else np.hypot(*SIGF.T)
    frame = pd.DataFrame(data.get_hkls(), columns=["H", "K", "L"]).assign(
        dF=F[:, 0] - F[:, 1], sd=sd, F=F.mean(1)
    )
    frame = frame.assign(**{k: data[k].to_numpy(int) for k in index})
    return frame.set_index(["H", "K", "L", *index])


def figures(merged: Path, halves: Path, truth: rs.DataSet, n_bins: int) -> dict:
    """CCanom of halves, and the merged differences against the truth."""
    pair = differences(halves)["dF"].unstack("half").dropna()
    shell = pd.qcut(resolution(pair, truth), n_bins, labels=False)
    by_shell = [np.corrcoef(pair[0][shell == k], pair[1][shell == k])[0, 1] for k in range(n_bins)]
    F = truth[MATES].to_numpy(float)
    true = pd.DataFrame({"true": F[:, 0] - F[:, 1], "F_true": F.mean(1)}, index=truth.index)
    flat = differences(merged).join(true, how="inner")
    both = on_scale_of_truth(flat, truth)
    z, signal = (both.dF - both.true) / both.sd, both.true.var()
    # Posterior mean of the difference where a priori it is Normal(0, signal): less weight to those measured badly.
    weighted = both.dF * signal / (signal + both.sd**2)
    return {
        "pairs": len(both),
        "CCanom": float(np.corrcoef(pair[0], pair[1])[0, 1]),
        "mean of shells": float(np.mean(by_shell)),
        "cc(dF, truth)": float(np.corrcoef(both.dF, both.true)[0, 1]),
        "on own scale": float(np.corrcoef(flat.dF, flat.true)[0, 1]),
        "with weights": float(np.corrcoef(weighted, both.true)[0, 1]),
        "z2": float(np.mean(z**2)),
        "cover90": float(np.mean(np.abs(z) < 1.645)),
    }


def resolution(frame, truth) -> np.ndarray:
    """d of each row, Å."""
    return truth.cell.calculate_d_array(as_hkl(np.array([i[:3] for i in frame.index])))


def on_scale_of_truth(both, truth) -> pd.DataFrame:
    """Merged data on the scale of the model, k exp(-B s²), which neither program knows: both fit it flat."""
    stol2 = 0.25 / resolution(both, truth) ** 2
    strong = both.F.gt(both.F.quantile(0.1)).to_numpy()
    line = np.polyfit(stol2[strong], np.log(both.F_true / both.F)[strong], 1)
    k = np.exp(np.polyval(line, stol2))
    return both.assign(dF=both.dF * k, sd=both.sd * k)


def one(name: str, spots: Path, truth: rs.DataSet, a) -> dict:
    """Merge with one program: a row of the table."""
    out = a.work / "anomalous" / name
    if name == "bayesref":
        flags = ["--anomalous", "--metadata", KEYS, "--half-datasets", 1, "--out", out, "--overwrite"]
        command = [program("bayesref"), "merge", spots, *flags, *a.options.split()]
        merged, halves = out / "merged_0.mtz", out / "halves_0.mtz"
    else:
        flags = ["--anomalous", "--merge-half-datasets", "--half-dataset-repeats=1", *BEST]
        command = mono(KEYS, [spots], out / "sad", a.iterations, *flags)
        merged, halves = out / "sad_0.mtz", out / "sad_xval_0.mtz"
    cost = {} if a.reuse else {"CPU s": round(run(command, out.with_suffix(".txt")).cpu, 1)}
    return {"program": name} | figures(merged, halves, truth, a.bins) | cost


def main() -> None:
    p = parser(__doc__)
    p.add_argument(
        "--programs", nargs="+", choices=("bayesref", "careless"), default=["bayesref", "careless"]
    )
    p.add_argument("--iterations", type=int, default=10_000, help="of careless, all data and each half")
    p.add_argument("--options", default="", help="more options of `bayesref merge`, in one string")
    p.add_argument("--dmin", type=float, default=3.0, help="Å")
    p.add_argument("--wavelength", type=float, default=1.7, help="Å")
    p.add_argument(
        "--multiplicity", type=float, default=20, help="spots of a reflection, both mates together"
    )
    p.add_argument("--images", type=int, default=180)
    p.add_argument("--bins", type=int, default=5)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--reuse", action="store_true", help="score the files of an earlier run")
    a = p.parse_args()
    truth = true_amplitudes(a.data / "hewl" / "RTSAD_HEWL_refine_25.pdb", a.dmin, a.wavelength)
    acentric = ~is_centric(truth.get_hkls(), truth.spacegroup)
    F = truth[MATES].to_numpy(float)[acentric]
    spots = measured(truth, a.multiplicity, a.images, a.seed)
    ratio = np.abs(F[:, 0] - F[:, 1]).mean() / F.mean()
    signal = np.mean(spots["I"].to_numpy(float) / spots["SIGI"].to_numpy(float))
    print(
        f"{len(truth):,} reflections, {len(spots):,} spots, I/SIGI {signal:.1f}, Bijvoet ratio {ratio:.2%}\n"
    )
    path = a.work / "anomalous" / "spots.mtz"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mtz(spots, path)
    table([one(name, path, truth, a) for name in a.programs])


if __name__ == "__main__":
    main()
