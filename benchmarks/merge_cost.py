"""What merging the PYP time points costs, beside careless 0.5.4 on the same machine and scored alike.

    python benchmarks/merge_cost.py [--programs bayesref careless careless-default] [--iterations 10000]

`careless` is its best recipe that was found, `careless-default` its default likelihood; both merge half
datasets as bayesref does.
"""

from pathlib import Path

from careless_program import mono
from common import Usage, parser, run, table
from merge_pyp import KEYS, figures, files, merge

PROGRAMS = ("bayesref", "careless", "careless-default")
BEST = ("--studentt-likelihood-dof=16", "--refine-uncertainties")


def merge_careless(recipe: tuple[str, ...], iterations: int, data: Path, out: Path) -> Usage:
    """Run careless: pyp_0.mtz and pyp_xval_0.mtz in `out` are the dark set."""
    flags = ["--separate-files", "--merge-half-datasets", "--half-dataset-repeats=1", *recipe]
    command = mono(KEYS, files(data), out / "pyp", iterations, *flags)
    return run(command, out.with_suffix(".txt"))


def one(name: str, a) -> dict:
    """A row of the table."""
    out = a.work / "cost" / name
    if name == "bayesref":
        usage = merge(a.data, out)
        found = figures(out / "merged_0.mtz", out / "halves_0.mtz", usage, a)
        return {"program": name, "iterations": ""} | found
    recipe = BEST if name == "careless" else ()
    usage = merge_careless(recipe, a.iterations, a.data, out)
    found = figures(out / "pyp_0.mtz", out / "pyp_xval_0.mtz", usage, a)
    return {"program": " ".join([name, *recipe]), "iterations": a.iterations} | found


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--programs", nargs="+", choices=PROGRAMS, default=PROGRAMS)
    p.add_argument("--iterations", type=int, default=10_000, help="of careless, all data and each half")
    a = p.parse_args()
    table([one(name, a) for name in a.programs])


if __name__ == "__main__":
    main()
