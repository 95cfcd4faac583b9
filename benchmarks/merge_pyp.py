"""Merging two time points of photoactive yellow protein (Laue): agreement with the model, and of halves.

    python benchmarks/merge_pyp.py

The dark set is scored by score_real.py against the model of this crystal, and its halves against each other.
"""

from pathlib import Path

from common import Usage, parser, program, run, score, table

KEYS = "X,Y,Wavelength,dHKL,Hobs,Kobs,Lobs"
FIGURES = ("n", "cc_fcalc", "cchalf", "rsplit_F", "half_z2", "half_cover50", "half_cover90")


def files(data: Path) -> list[Path]:
    """Dark, and 2 ms after light."""
    return [data / "pyp" / name for name in ("off.mtz", "2ms.mtz")]


def merge(data: Path, out: Path, options: str = "") -> Usage:
    """Run `bayesref merge`: merged_0.mtz and halves_0.mtz in `out` are the dark set."""
    flags = ["--separate-files", "--metadata", KEYS, "--half-datasets", 1, "--out", out, "--overwrite"]
    return run(
        [program("bayesref"), "merge", *files(data), *flags, *options.split()], out.with_suffix(".txt")
    )


def figures(merged: Path, halves: Path, usage: Usage, a) -> dict:
    """Cost and quality: columns of the table."""
    model = a.data / "pyp" / "off.pdb"
    s = score(a.score / "score_real.py", merged, "--model", model, "--halves", halves)
    cost = {"CPU s": round(usage.cpu, 1), "wall s": round(usage.wall, 1), "peak MB": round(usage.peak)}
    return {k: s[k] for k in FIGURES} | cost


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--options", default="", help="more options of `bayesref merge`, in one string")
    a = p.parse_args()
    out = a.work / "pyp"
    usage = merge(a.data, out, a.options)
    table([figures(out / "merged_0.mtz", out / "halves_0.mtz", usage, a)])


if __name__ == "__main__":
    main()
