"""Merging simulated spots whose amplitudes are known: how close, and how honest are the sigmas?

    python benchmarks/merge_simulated.py --seeds 101 102 103 [--program careless --iterations 10000]

For each seed and variant: simulate_merge.py writes the spots, the program merges them, score_merge.py
compares with the truth. The oracle is the posterior for one who knows the true scales and errors
(oracle.py), scored alike; with noise in the scale of each image these cannot be known from the file.
"""

import statistics

from careless_program import mono
from common import parser, program, run, score, table

METADATA = "BATCH,dHKL,X,Y"
VARIANTS = {
    "plain": {},
    "outliers": {"outliers": 0.02, "tdof": 5},
    "sig-mis": {"sig_mis": 0.5},
    "image-noise": {"image_noise": 0.3},
}
FIGURES = ("cc", "z2", "cover50", "cover90", "cover95")


def one(variant: str, seed: int, a) -> dict:
    """A row of the table."""
    settings = VARIANTS[variant]
    folder = a.work / "simulated" / f"{variant}_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    unmerged, truth = folder / "sim.mtz", folder / "truth.mtz"
    flags = [x for key, value in settings.items() for x in (f"--{key.replace('_', '-')}", value)]
    simulate = [program("python"), a.score / "simulate_merge.py", "--out", unmerged, "--truth", truth]
    run([*simulate, "--seed", seed, *flags], folder / "simulate.txt")
    out = folder / a.program
    if a.program == "careless":
        command = mono(METADATA, [unmerged], out / "merged", a.iterations, *a.options.split())
    else:
        command = [program("bayesref"), "merge", unmerged, "--metadata", METADATA, "--out", out]
        command += ["--overwrite", *a.options.split()]
    usage = run(command, folder / f"{a.program}.txt")
    figures = score(a.score / "score_merge.py", out / "merged_0.mtz", truth)
    row = {"variant": variant, "seed": seed, "missing": figures["missing"]}
    row |= {k: figures[k] for k in FIGURES}
    best = oracle(settings, unmerged, truth, folder, a)
    row |= {f"oracle {k}": best[k] if best else "" for k in ("cc", "z2", "cover90")}
    row["cc - oracle"] = round(figures["cc"] - best["cc"], 5) if best else ""
    return row | {"CPU s": round(usage.cpu, 1)}


def oracle(settings: dict, unmerged, truth, folder, a) -> dict:
    """Figures of the posterior that knows the truth; empty where the file does not hold it."""
    if settings.get("image_noise"):
        return {}
    from oracle import Truth, merge  # imports torch

    merge(unmerged, truth, Truth(**settings)).write_mtz(str(folder / "oracle.mtz"))
    return score(a.score / "score_merge.py", folder / "oracle.mtz", truth)


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103])
    p.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    p.add_argument("--program", choices=["bayesref", "careless"], default="bayesref")
    p.add_argument("--iterations", type=int, default=10_000, help="of careless")
    p.add_argument("--options", default="", help="more options of the program, in one string")
    a = p.parse_args()
    rows = [one(variant, seed, a) for variant in a.variants for seed in a.seeds]
    for variant in a.variants:
        mine = [r for r in rows if r["variant"] == variant]
        numbers = [k for k in mine[0] if isinstance(mine[0][k], float)]
        mean = {k: statistics.fmean(r[k] for r in mine) for k in numbers}
        rows.append({"variant": variant, "seed": "mean"} | mean)
    table(rows)


if __name__ == "__main__":
    main()
