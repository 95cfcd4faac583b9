"""What the benchmarks share: run a program and measure it, run a scorer, print a table.

    CPU s      user time of the program and its threads, start-up included
    peak MB    largest resident memory of the program

Only the standard library is imported at the top: a program started from a large parent would be charged for
the parent's memory.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHARED = HERE.parent.parent / "shared"


@dataclass(frozen=True)
class Usage:
    """What one run took: user CPU s, wall s, peak resident memory in MB."""

    cpu: float
    wall: float
    peak: float


def parser(doc: str) -> argparse.ArgumentParser:
    """Options that every benchmark has."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    score = Path(os.environ.get("BAYESREF_SCORE", SHARED / "score"))
    data = Path(os.environ.get("BAYESREF_DATA", SHARED / "data"))
    p.add_argument("--score", type=Path, default=score, help="folder of the scorers, or $BAYESREF_SCORE")
    p.add_argument("--data", type=Path, default=data, help="folder of the real data, or $BAYESREF_DATA")
    p.add_argument("--work", type=Path, default=HERE / "work", help="folder for files made on the way")
    return p


def program(name: str) -> str:
    """A console script of this Python's environment, else of the PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        sys.exit(f"{name} is not installed beside {sys.executable} nor on the PATH; pip install it.")
    return found


def run(command: list, log: Path) -> Usage:
    """Run a program to its end, output to `log`; stop the benchmark where it fails."""
    command = [str(c) for c in command]
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with log.open("w") as f:
        pid = os.posix_spawn(
            command[0],
            command,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, f.fileno(), 1), (os.POSIX_SPAWN_DUP2, f.fileno(), 2)],
        )
        _, status, usage = os.wait4(pid, 0)
    if status:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        code = os.waitstatus_to_exitcode(status)
        sys.exit(f"{' '.join(command)}\nended with {code}; the end of its output:\n{tail}")
    # Linux counts ru_maxrss in KiB.
    return Usage(usage.ru_utime, time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e6)


def score(script: Path, *arguments) -> dict:
    """The JSON that a scorer prints."""
    if not script.exists():
        sys.exit(f"There is no scorer {script}; name its folder with --score or $BAYESREF_SCORE.")
    command = [sys.executable, "-W", "ignore", script, *arguments]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{script.name} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(rows: list[dict]) -> None:
    """Print rows as Markdown, columns in the order of the first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = [[_text(row.get(c, "")) for c in columns] for row in rows]
    width = [max(len(c), *(len(r[i]) for r in text)) for i, c in enumerate(columns)]
    for line in [columns, ["-" * w for w in width], *text]:
        print("| " + " | ".join(x.ljust(w) for x, w in zip(line, width, strict=True)) + " |", flush=True)


def _text(value) -> str:
    if isinstance(value, Usage):
        raise TypeError("Give the fields of Usage that the table shows.")
    return f"{value:.4g}" if isinstance(value, float) else str(value)
