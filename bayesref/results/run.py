"""run.json: what was run, with what, at what cost, and what came out.

options, seed     as given
versions          of Python and of the packages that numbers depend on
data              crystal, resolution, spots, reflections, images, files
fit               why it stopped, ELBO and its standard error, log units
sites             posterior mean and sd of each number of the model
figures           statistics of all data, by table
cost              seconds (wall), CPU s (user and system), peak memory in MB; null where it is not known
"""

import json
import math
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bayesref.inference.posterior import Posterior
from bayesref.io.atomic import atomic_path

PACKAGES = (
    "bayesref", "torch", "pyro-ppl", "gemmi", "reciprocalspaceship", "numpy", "scipy", "pandas", "arviz",
)  # fmt: skip


def run_record(
    posterior: Posterior, obs, options: dict, seed: int, figures: dict, seconds: float | None
) -> dict:
    """All that run.json holds, as numbers, strings, lists and dicts.

    Parameters
    ----------
    obs : all observations, those held out among them
    figures : {table: {statistic: value}}
    seconds : since the program began, or None
    """
    record = {
        "options": options,
        "seed": seed,
        "versions": {"python": platform.python_version()} | {p: version_of(p) for p in PACKAGES},
        "data": _data(obs),
        "fit": {
            "reason": posterior.reason,
            "converged": posterior.converged,
            "elbo": posterior.elbo,
            "elbo_error": posterior.elbo_error,
            "steps": len(posterior.history),
            "seconds": posterior.history[-1]["seconds"] if posterior.history else None,
        },
        "sites": _sites(posterior, seed),
        "figures": figures,
        "cost": {"seconds": seconds, "cpu_seconds": time.process_time(), "peak_mb": _peak_memory()},
    }
    return plain(record)


def _data(obs):
    asu = obs.asu
    d = asu.dHKL
    return {
        "files": list(obs.files),
        "cell": list(asu.cell.parameters),
        "spacegroup": asu.spacegroup.xhm(),
        "dmax": float(d.max()) if len(d) else None,
        "dmin": float(d.min()) if len(d) else None,
        "spots": len(obs),
        "reflections": len(asu),
        "datasets": asu.n_dataset,
        "images": obs.n_image,
        "anomalous": asu.anomalous,
        "metadata": list(obs.metadata_keys),
    }


def _sites(posterior, seed):
    return {
        k: {"mean": float(x.mean()), "sd": float(x.std())}
        for k, x in posterior.sites(400, seed).items()
        if x[0].numel() == 1
    }


def _peak_memory() -> float | None:
    """Largest resident memory so far, MB; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def plain(x: Any) -> Any:
    """`x` as JSON knows it: infinities and NaN become null, what has no counterpart its text."""
    if isinstance(x, dict):
        return {str(k): plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple | set):
        return [plain(v) for v in x]
    if isinstance(x, torch.Tensor | np.ndarray | np.generic):
        return plain(x.tolist())
    if isinstance(x, float):
        return x if math.isfinite(x) else None
    return x if x is None or isinstance(x, bool | int) else str(x)


def version_of(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_run(record: dict, path: str | Path) -> None:
    """Write atomically.

    Raises
    ------
    InputError : the file cannot be written
    """
    with atomic_path(path) as temporary:
        Path(temporary).write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
