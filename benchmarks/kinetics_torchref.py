"""Rates from simulated series by torchref, beside those that kinetics_simulations.py found for the same series.

    python benchmarks/kinetics_simulations.py calibration --series 40
    python benchmarks/kinetics_torchref.py --series 10 --torchref ENVIRONMENT/bin

Each series is written as PDB and MTZ files and given to torchref in its own environment, one process for each job
(kinetics_torchref_worker.py says which); jobs that fail or take too long are counted, with what they printed last.
Where torchref answers with occupancies, the curve of the point estimate goes through them. Structures, their number
and the scheme are those that made the data, as in the other methods. Jobs that were done are not done again
(work/kinetics_torchref.json).
"""

import argparse
import json
import os
import resource
import subprocess
from pathlib import Path

import gemmi
import numpy as np
import scipy.stats
from kinetics_simulations import WORK, cases, curve, read, save, simulated

from bayesref.io.write_series import write_series

HERE = Path(__file__).parent
JOBS = ("kinetics", "differences", "occupancies", "program")
EQUAL = 0.02  # standard deviation of occupancies of the program, which states none; the curve's scatter replaces it


def main(seeds, binaries: Path, jobs: list[str], limit: float) -> None:
    """Every series to torchref; one table with what `calibration` found for them."""
    for seed, scheme, rates, activation in cases(max(seeds) + 1):
        done = {(r["seed"], r["job"]) for r in read("torchref")}
        todo = [job for job in jobs if (seed, job) not in done]
        if seed not in seeds or not todo:
            continue
        series, _, kinetics, _, crystals = simulated(seed, scheme, rates, activation)
        folder = WORK / "torchref" / f"series_{seed}"
        write_series(series, crystals, {"scheme": scheme, "ground": "A", "start": "B"}, folder, True)
        share_free_set(folder)
        for job in todo:
            if job == "program" and len(crystals) > 2:
                continue  # it takes one light model
            found = answer(job, folder, binaries, limit)
            print(f"series {seed}, {job}:", {k: v for k, v in found.items() if k != "covariance"}, flush=True)
            rows = rows_of(seed, job, rates, found, series, kinetics)
            save("torchref", read("torchref") + rows)
    known = {seed: [] for seed in seeds}
    for r in read("calibration"):
        if r["kind"] == "rate" and r["seed"] in known:
            known[r["seed"]].append(r)
    table([r for r in read("torchref") if r["seed"] in seeds], known, jobs)


def rows_of(seed, job, rates, found, series, kinetics) -> list[dict]:
    """A row for each rate: its truth, and log k with its standard error where the job did not fail."""
    x, sd = np.full(len(rates), np.nan), np.full(len(rates), np.nan)
    if "log_k" in found:
        x, sd = np.array(found["log_k"]), np.array(found["sd"])
    elif "occupancy" in found:
        o = np.array(found["occupancy"])
        equal = np.broadcast_to(EQUAL**2 * np.eye(o.shape[1]), (len(o), o.shape[1], o.shape[1]))
        x, sd = curve(o, np.array(found.get("covariance", equal)), series, kinetics)
    rows = [{"seed": seed, "job": job, "name": n, "truth": np.log(k)} | found for n, k in rates.items()]
    if "failed" not in found:
        rows = [r | {"x": x[j], "sd": sd[j]} for j, r in enumerate(rows)]
    return rows


def table(rows, known, jobs) -> None:
    """Errors of log rates by each method on the series that all of them finished."""
    print("| log rates | series | failed | rms error | median error | mean log score | 90 % intervals hold |")
    print("|---|---|---|---|---|---|---|")
    for job in jobs:
        mine = [r for r in rows if r["job"] == job]
        done = [r for r in mine if "x" in r]
        seeds = sorted({r["seed"] for r in done})
        if not done:
            print(f"| torchref, {job} | 0 | {len({r['seed'] for r in mine})} | | | | |")
            continue
        error = np.array([r["x"] - r["truth"] for r in done])
        sd = np.array([r["sd"] for r in done])
        line(f"torchref, {job}", len(seeds), len({r["seed"] for r in mine}) - len(seeds), error,
             scipy.stats.norm.logpdf(error, 0, sd), np.abs(error) < 1.645 * sd)  # fmt: skip
        same = [r for s in seeds for r in known.get(s, [])]
        for name, which in (("here", ""), ("least squares", "point_")):
            if same:
                values = [np.array([r[which + k] for r in same]) for k in ("error", "score", "inside")]
                line(f"{name}, the same series", len({r["seed"] for r in same}), 0, *values)


def line(name, n_series, failed, error, score, inside) -> None:
    """A row of the table."""
    rms, middle = np.sqrt(np.mean(error**2)), np.median(np.abs(error))
    print(
        f"| {name} | {n_series} | {failed} | {rms:.3f} | {middle:.3f} | {score.mean():.2f} | {inside.mean():.3f} |"
    )


def share_free_set(folder: Path) -> None:
    """One reflection in twenty is free, the same in all files: torchref would draw other ones in each."""
    for path in folder.glob("*.mtz"):
        mtz = gemmi.read_mtz_file(str(path))
        free = (np.random.default_rng(0).permutation(mtz.nreflections) % 20).astype(np.float32)
        mtz.add_column("FreeR_flag", "I")
        mtz.set_data(np.column_stack([np.array(mtz)[:, :-1], free]))
        mtz.write_to_file(str(path))


def answer(job: str, folder: Path, binaries: Path, limit: float) -> dict:
    """What kinetics_torchref_worker.py answers in torchref's environment, or {"failed": why}."""
    command = [
        binaries / "python",
        "-W",
        "ignore",
        HERE / "kinetics_torchref_worker.py",
        job,
        folder,
    ]
    threads = {"OMP_NUM_THREADS": "1", "TORCHREF_NUM_THREADS": "1", "PYTHONPATH": ""}
    begin = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    try:
        done = subprocess.run(
            [str(x) for x in command], capture_output=True, text=True, timeout=limit, env=os.environ | threads
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {limit:.0f} s"}
    cost = {
        "cpu": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begin, 1),
        "not finite": (done.stdout + done.stderr).count("non-finite loss"),
    }
    (folder / f"{job}.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]} | cost
    return json.loads(done.stdout.splitlines()[-1]) | cost


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=10, help="the first so many of calibration")
    parser.add_argument("--seeds", type=int, nargs="+", help="these, in place of the first so many")
    parser.add_argument(
        "--torchref", type=Path, required=True, help="folder of the binaries of torchref's environment"
    )
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS[:3]))
    parser.add_argument("--limit", type=float, default=1200, help="s of wall time for each job")
    asked = parser.parse_args()
    main(asked.seeds or list(range(asked.series)), asked.torchref, asked.jobs, asked.limit)
