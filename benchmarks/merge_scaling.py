"""CPU time and memory of merging against the number of spots, from larger and larger simulated crystals.

    python benchmarks/merge_scaling.py --spots 20_000 200_000 2_000_000

The cell of simulate_merge.py grows and the number of images with it, so that multiplicity (8) and spots per
image (195) stay. The result is scored as well: a program that stops early would look cheap.
"""

from common import parser, program, run, score, table

CELL = (28.0, 36.0, 43.0)  # Å; 19.4 thousand spots to 2.2 Å
SPOTS, IMAGES = 19_440, 100
FIGURES = ("cc", "z2", "cover90")


def one(n_spot: int, a) -> dict:
    """A row of the table."""
    folder = a.work / "scaling" / str(n_spot)
    folder.mkdir(parents=True, exist_ok=True)
    unmerged, truth, out = (folder / name for name in ("sim.mtz", "truth.mtz", "out"))
    factor = n_spot / SPOTS
    cell = [round(x * factor ** (1 / 3), 2) for x in CELL]
    simulate = [program("python"), a.score / "simulate_merge.py", "--out", unmerged, "--truth", truth]
    simulate += ["--cell", *cell, 90, 90, 90, "--images", round(IMAGES * factor), "--seed", a.seed]
    run(simulate, folder / "simulate.txt")
    flags = ["--metadata", "BATCH,dHKL,X,Y", "--out", out, "--overwrite", *a.options.split()]
    usage = run([program("bayesref"), "merge", unmerged, *flags], folder / "merge.txt")
    figures = score(a.score / "score_merge.py", out / "merged_0.mtz", truth)
    row = {"spots": simulated_spots(folder / "simulate.txt"), "reflections": figures["n"]}
    row |= {"images": round(IMAGES * factor), "CPU s": round(usage.cpu, 1)}
    row |= {"CPU ms per 1000 spots": round(1e6 * usage.cpu / row["spots"], 1)}
    return row | {"peak MB": round(usage.peak)} | {k: figures[k] for k in FIGURES}


def simulated_spots(log) -> int:
    """Number of spots that the simulator says it wrote."""
    return int(log.read_text().split(" observations")[0].split()[-1])


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--spots", type=int, nargs="+", default=[20_000, 200_000, 2_000_000])
    p.add_argument("--seed", type=int, default=101)
    p.add_argument("--options", default="", help="more options of `bayesref merge`, in one string")
    a = p.parse_args()
    table([one(n, a) for n in a.spots])


if __name__ == "__main__":
    main()
