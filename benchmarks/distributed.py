"""One merge on several processes beside the same on one: CPU and wall time, and how far the amplitudes differ.

    python benchmarks/distributed.py [--processes 1 2] [--dmin 1.4] [--method deterministic]

CPU s is that of all processes together. `difference` is the largest relative difference of F, SIGF, I or SIGI of any
reflection from the first row; MTZ files hold numbers to 6e-8. Wall time means something where the machine is idle.
"""

import json
from pathlib import Path

from common import Usage, parser, program, run, table

KEYS = "BATCH,dHKL,X,Y"


def simulate(a) -> Path:
    """Spots at dmin, once."""
    out = a.work / "distributed" / f"simulated-{a.dmin:g}-{a.images}"
    if not (out / "unmerged_0.mtz").exists():
        size = ["--dmin", a.dmin, "--images", a.images, "--seed", 1]
        run(
            [program("bayesref"), "simulate", "merge", *size, "--out", out, "--overwrite"],
            out.with_suffix(".txt"),
        )
    return out / "unmerged_0.mtz"


def merge(n: int, spots: Path, out: Path, a) -> Usage:
    """`bayesref merge` on n processes."""
    words = ["merge", spots, "--metadata", KEYS, "--method", a.method, "--samples", 8]
    words += ["--checkpoint-every", a.checkpoint_every] if a.checkpoint_every is not None else []
    words += ["--overwrite", "--out", out]
    alone = [program("bayesref")]
    many = [program("torchrun"), "--standalone", "--nproc-per-node", n, "-m", "bayesref"]
    return run([*(alone if n == 1 else many), *words], out.with_suffix(".txt"))


def difference(one: Path, other: Path) -> float:
    """Largest relative difference of any number of the merged file."""
    import numpy as np
    import reciprocalspaceship as rs

    a, b = (rs.read_mtz(str(x / "merged_0.mtz")) for x in (one, other))
    columns = ["F", "SIGF", "I", "SIGI"]
    return float(np.abs(b[columns].to_numpy(float) / a[columns].to_numpy(float) - 1).max())


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    p.add_argument("--dmin", type=float, default=1.4, help="resolution of the simulated spots, Å")
    p.add_argument("--images", type=int, default=400)
    p.add_argument("--method", choices=("deterministic", "svi"), default="deterministic")
    p.add_argument("--checkpoint-every", type=int, help="as of bayesref merge")
    a = p.parse_args()
    spots, rows = simulate(a), []
    outs = [a.work / "distributed" / f"{a.method}-{n}" for n in a.processes]
    for n, out in zip(a.processes, outs, strict=True):
        usage = merge(n, spots, out, a)
        record = json.loads((out / "run.json").read_text())
        rows.append({
            "processes": n, "spots": record["data"]["spots"], "CPU s": usage.cpu, "wall s": usage.wall,
            "fit, wall s": record["fit"]["seconds"], "ELBO": f"{record['fit']['elbo']:.4f}",
            "difference": difference(outs[0], out),
        })  # fmt: skip
    table(rows)


if __name__ == "__main__":
    main()
