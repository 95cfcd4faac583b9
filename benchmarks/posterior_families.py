"""Posterior of amplitudes as parametric laws beside the exact one: what is lost, and what it costs.

    python benchmarks/posterior_families.py --seeds 901 902 903 [--careless 10000]

For each seed and multiplicity: spots with known amplitudes (`bayesref.simulate_merge`, its defaults), one fit, and
from it the amplitudes by each family, fitted reflection by reflection for each draw of the scale. `gap` is KL(q ‖ p)
per reflection, the log units of ELBO that the family loses; CPU s is that of the amplitudes, the fit left out.
`one scale` is the exact law with the scale held at its posterior mean: what a factorised posterior reports at best.
careless's amplitudes are truncated normal laws, found by Adam along with its scale; its CPU s is that of all.
"""

import statistics
import time
from dataclasses import replace
from pathlib import Path

from careless_program import mono
from common import parser, run, score, table

METADATA = "BATCH,dHKL,X,Y"
FIGURES = ("cc", "z2", "cover50", "cover90", "log_score")


def rows(seed: int, multiplicity: float, a) -> list[dict]:
    """Rows of the table for one simulation."""
    import bayesref as br
    from bayesref.distributions.families import FAMILIES
    from bayesref.io.simulation import write_simulation

    folder = a.work / "families" / f"{multiplicity:g}_{seed}"
    simulation = br.simulate_merge(seed=seed, multiplicity=multiplicity, dmin=a.dmin)
    (unmerged,), (truth,) = write_simulation(simulation, folder, overwrite=True)
    obs = br.read_unmerged([unmerged], metadata_keys=METADATA.split(","))
    start = time.process_time()
    posterior = br.fit(
        br_model(), obs, br.Product(br.Falloff(obs), br.Additive(obs), br.ImageWise(obs)), seed=seed
    )
    fit_seconds = time.process_time() - start
    out = []
    for family in ("exact", *FAMILIES):
        out.append(one(replace(posterior, family=family), truth, folder, a, family))
    out.append(one(posterior, truth, folder, a, "one scale", n_draws=1))
    out[0]["fit CPU s"] = round(fit_seconds, 1)
    if a.careless:
        usage = run(mono(METADATA, [unmerged], folder / "careless", a.careless), folder / "careless.txt")
        figures = score(a.score / "score_merge.py", folder / "careless_0.mtz", truth)
        out.append({"law": "careless", **{k: figures[k] for k in FIGURES}, "CPU s": usage.cpu})
    return [{"multiplicity": multiplicity, "seed": seed, **row} for row in out]


def br_model():
    """The default page."""
    from bayesref import programs

    return programs.load("merge")


def one(posterior, truth: Path, folder: Path, a, law: str, **options) -> dict:
    """Amplitudes by one family, scored."""
    from bayesref.io.write_mtz import write_mtz
    from bayesref.results.mtz import merged_table

    start = time.process_time()
    amplitudes = posterior.amplitudes(**options)
    seconds = time.process_time() - start
    merged = folder / f"{law.replace(' ', '_')}.mtz"
    write_mtz(merged_table(posterior.obs.asu, amplitudes, 0), merged)
    figures = score(a.score / "score_merge.py", merged, truth)
    gap = 0.0 if amplitudes.gap is None else float(amplitudes.gap.mean())
    return {"law": law, "gap": gap, **{k: figures[k] for k in FIGURES}, "CPU s": seconds}


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--seeds", type=int, nargs="+", default=[901, 902, 903])
    p.add_argument("--multiplicities", type=float, nargs="+", default=[8.0, 2.0])
    p.add_argument("--dmin", type=float, default=2.2, help="Å")
    p.add_argument(
        "--careless", type=int, default=0, metavar="N", help="run careless too, so many iterations"
    )
    a = p.parse_args()
    every = [row for m in a.multiplicities for seed in a.seeds for row in rows(seed, m, a)]
    means = []
    for m in a.multiplicities:
        for law in dict.fromkeys(row["law"] for row in every):
            mine = [row for row in every if (row["multiplicity"], row["law"]) == (m, law)]
            if mine:
                numbers = [k for k in mine[0] if isinstance(mine[0][k], float) and k != "multiplicity"]
                mean = {k: statistics.fmean(row[k] for row in mine) for k in numbers}
                means.append({"multiplicity": m, "seed": "mean", "law": law} | mean)
    table(every)
    print()
    table(means)


if __name__ == "__main__":
    main()
