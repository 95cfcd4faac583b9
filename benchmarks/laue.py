"""Laue data with overlapped spots, whose amplitudes are known: how close, and how honest are the sigmas?

    python benchmarks/laue.py [--programs bayesref careless --iterations 3000]

`bayesref simulate laue` writes the spots, a third of those of one order and all of those of several; both programs
merge the same file with the same band. Amplitudes are scored in three classes: seen in spots of their own, in both, and
in overlapped spots only. cover90 is that of mean ± 1.645 SIGF, after one overall scale; within90, of bayesref, that of
the 5 to 95 % range of its draws, which is what an interval of a lopsided posterior is.
"""

from careless_program import careless
from common import parser, program, run, table

BAND = ("0.5", "2.0")
DMIN = "2.6"


def simulate(folder, seed: int) -> None:
    """Spots and truth."""
    command = [program("bayesref"), "simulate", "laue", "--out", folder / "data", "--dmin", DMIN]
    command += ["--images", 24, "--singles", 0.35, "--seed", seed, "--overwrite"]
    run(command, folder / "simulate.txt")


def bayesref(folder, a):
    """CPU seconds and the merged file."""
    out = folder / "bayesref"
    command = [program("bayesref"), "merge", folder / "data" / "unmerged_0.mtz", "--metadata", "X,Y"]
    command += ["--wavelength-range", ",".join(BAND), "--scale", "falloff,additive,image,wavelength"]
    command += ["--dmin", DMIN, "--samples", 400, "--out", out, "--overwrite"]
    return run(command, folder / "bayesref.txt").cpu, out / "merged_0.mtz"


def careless_poly(folder, a):
    """CPU seconds and the merged file."""
    base = folder / "careless" / "merged"
    base.parent.mkdir(parents=True, exist_ok=True)
    command = [careless(), "poly", f"--iterations={a.iterations}", "--disable-progress-bar", f"--dmin={DMIN}"]
    command += ["--wavelength-range", *BAND, "--studentt-likelihood-dof=16", "--refine-uncertainties"]
    command += ["X,Y,Wavelength,dHKL,BATCH", folder / "data" / "unmerged_0.mtz", base]
    return run(command, folder / "careless.txt").cpu, base.with_name("merged_0.mtz")


PROGRAMS = {"bayesref": bayesref, "careless": careless_poly}


def score(merged, truth) -> list[dict]:
    """Figures of each class of amplitudes."""
    import numpy as np
    import reciprocalspaceship as rs

    result = rs.read_mtz(str(merged)).rename(columns={"SigF": "SIGF"})  # careless's name
    both = rs.read_mtz(str(truth)).join(result[["F", "SIGF"]], how="inner")
    F, sd, T, n, single = (both[c].to_numpy(float) for c in ("F", "SIGF", "FTRUE", "N", "NSINGLE"))
    k = np.sum(T * F / sd**2) / np.sum(F**2 / sd**2)
    z = (k * F - T) / (k * sd)
    inside = _inside(merged, both.index, T / k)
    rows = []
    for name, mine in (
        ("own spots", single == n),
        ("both", (single > 0) & (single < n)),
        ("overlaps", single == 0),
    ):
        row = {
            "amplitudes from": name,
            "n": int(mine.sum()),
            "cc": float(np.corrcoef(F[mine], T[mine])[0, 1]),
        }
        row |= {"z2": float(np.mean(z[mine] ** 2)), "cover50": float(np.mean(np.abs(z[mine]) < 0.6745))}
        row |= {"cover90": float(np.mean(np.abs(z[mine]) < 1.645))}
        rows.append(row | {"within90": float(inside[mine].mean()) if inside is not None else ""})
    return rows


def _inside(merged, index, T):
    """Whether the truth lies in the 5 to 95 % range of the draws, (hkl,); None where there are none."""
    import numpy as np
    import xarray

    path = merged.with_name("posterior.nc")
    if not path.exists():
        return None
    draws = xarray.open_dataset(path, group="posterior", engine="h5netcdf")["F"].values[0]
    constant = xarray.open_dataset(path, group="constant_data", engine="h5netcdf")
    row = {h: i for i, h in enumerate(zip(*(constant[c].values.tolist() for c in "HKL"), strict=True))}
    below = (draws[:, [row[tuple(int(x) for x in h)] for h in index]] < T).mean(0)
    return np.abs(below - 0.5) < 0.45


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--seeds", type=int, nargs="+", default=[11])
    p.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    p.add_argument("--iterations", type=int, default=3000, help="of careless")
    a = p.parse_args()
    rows = []
    for seed in a.seeds:
        folder = a.work / "laue" / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        simulate(folder, seed)
        for name in a.programs:
            cpu, merged = PROGRAMS[name](folder, a)
            figures = score(merged, folder / "data" / "truth_0.mtz")
            rows += [{"program": name, "seed": seed} | row | {"CPU s": round(cpu, 1)} for row in figures]
    table(rows)


if __name__ == "__main__":
    main()
