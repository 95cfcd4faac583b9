"""Merges killed by `kill -9` at random times, resumed each time: is the result that of an undisturbed run, bit for bit?

    python benchmarks/checkpoints.py [--kills 20] [--methods deterministic svi] [--dmin 3]

Every attempt is the command `bayesref merge`, killed at a time drawn evenly from the length of a run, then the same
with --resume, until so many were killed; the last is left alone. `steps`: how many steps of the fit the checkpoint
held after each kill. CPU s of undisturbed runs: without checkpoints, with the default interval, and with one after
every evaluation.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from common import parser, program, run, table

OPTIONS = {"deterministic": [], "svi": ["--epochs", 12]}


def command(method: str, spots: Path, out: Path, *more) -> list[str]:
    words = [program("bayesref"), "merge", spots, "--metadata", "BATCH,dHKL,X,Y", "--samples", 8, "--quiet"]
    return [str(w) for w in [*words, "--method", method, *OPTIONS[method], "--out", out, *more]]


def killed(words: list[str], out: Path, delay: float) -> bool:
    """Start, and kill after `delay` seconds; whether it was still running."""
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as attempt:
        time.sleep(delay)
        os.kill(attempt.pid, signal.SIGKILL)
    return attempt.returncode == -signal.SIGKILL and not (out / "run.json").exists()


def steps(out: Path) -> int:
    """Steps of the fit in the checkpoint."""
    file = out / "checkpoint" / "fit.json"
    return len(json.loads(file.read_text())["state"]["journal"]) if file.exists() else 0


def same(one: Path, other: Path) -> bool:
    """Whether latents, amplitudes and their draws agree to the last bit."""
    import xarray as xr

    a, b = (xr.load_dataset(x / "posterior.nc", group="posterior", engine="h5netcdf") for x in (one, other))
    return a.equals(b)


def one(method: str, spots: Path, a) -> dict:
    """A row of the table."""
    work = a.work / "checkpoints" / method
    costs = {}
    for name, every in (("none", ["0"]), ("default", []), ("every", ["1"])):
        more = ["--checkpoint-every", *every] if every else []
        usage = run(command(method, spots, work / name, "--overwrite", *more), work / f"{name}.txt")
        costs[f"CPU s, {name}"] = usage.cpu
    out, rng, held, kills = work / "killed", random.Random(7), [], 0
    words, length = command(method, spots, out, "--resume", "--checkpoint-every", 1), usage.wall
    shutil.rmtree(out, ignore_errors=True)
    while kills < a.kills:
        if killed(words, out, rng.uniform(0.2, 1) * length):
            kills += 1
            held.append(steps(out))
        else:  # it had ended: begin again
            shutil.rmtree(out, ignore_errors=True)
    run(words, work / "killed.txt")
    return (
        {"method": method, "kills": kills, "same bits": same(work / "none", out)}
        | costs
        | {"steps": str(held)}
    )


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--kills", type=int, default=20)
    p.add_argument("--methods", nargs="+", choices=tuple(OPTIONS), default=tuple(OPTIONS))
    p.add_argument("--dmin", type=float, default=3.0, help="resolution of the simulated spots, Å")
    a = p.parse_args()
    out = a.work / "checkpoints" / "simulated"
    run(
        [
            program("bayesref"),
            "simulate",
            "merge",
            "--out",
            out,
            "--dmin",
            a.dmin,
            "--seed",
            1,
            "--overwrite",
        ],
        out.with_suffix(".txt"),
    )
    table([one(m, out / "unmerged_0.mtz", a) for m in a.methods])


if __name__ == "__main__":
    main()
