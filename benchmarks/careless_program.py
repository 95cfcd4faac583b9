"""careless 0.5.4 in a virtual environment of its own, benchmarks/.envs/careless, made when it is missing."""

import subprocess
import sys
from pathlib import Path

from common import HERE

ENVIRONMENT = HERE / ".envs" / "careless"
VERSION = "0.5.4"


def careless() -> Path:
    """Its console script."""
    script = ENVIRONMENT / "bin" / "careless"
    if not script.exists():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        subprocess.run([ENVIRONMENT / "bin" / "pip", "install", f"careless=={VERSION}"], check=True)
    return script


def mono(metadata: str, files: list[Path], base: Path, iterations: int, *flags: str) -> list:
    """Command line of `careless mono`; its merged files are base_0.mtz, base_1.mtz, ..."""
    base.parent.mkdir(parents=True, exist_ok=True)
    flags = (f"--iterations={iterations}", "--disable-progress-bar", *flags)
    return [careless(), "mono", *flags, metadata, *files, base]
