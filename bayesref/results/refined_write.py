"""All files of a refinement.

refined.cif, refined.pdb     the model: most probable coordinates, means of all else; mmCIF with standard deviations
ensemble.cif                 draws of the posterior
maps.mtz                     2mFo-DFc, mFo-DFc, FOM, posterior amplitudes, flags
map_sigma.ccp4               where asked: standard deviation of 2mFo-DFc
posterior.nc                 draws of every site (ArviZ reads it)
statistics.csv, r_factors.png, b_factors.png, history.csv, geometry.txt, run.json
"""

import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bayesref.io.atomic import atomic_path
from bayesref.restraints.report import geometry_report
from bayesref.results.inference_data import write_posterior
from bayesref.results.refined_mtz import write_map_sigma, write_maps
from bayesref.results.refined_structure import (
    b_summary,
    maximum_shift,
    posterior_draws,
    write_ensemble,
    write_model,
)
from bayesref.results.refinement_plots import plot_b, plot_r
from bayesref.results.run import PACKAGES, plain, version_of, write_run


@dataclass(frozen=True)
class Requests:
    """What is to be written: draws in posterior.nc, models in the ensemble; seed, options and start of the program."""

    draws: int = 100
    ensemble: int = 20
    map_sigma: bool = False
    seed: int = 0
    options: dict | None = None
    start: float | None = None


def write_refinement(posterior, statistics: pd.DataFrame, out: Path, requests: Requests) -> dict:
    """Write everything; returns what run.json holds, and "geometry_table", a few lines for the terminal.

    Parameters
    ----------
    posterior : StructurePosterior
    statistics : by resolution, see `bayesref.validation.refinement`

    Raises
    ------
    InputError : a file cannot be written
    """
    mean = geometry_report(posterior.atoms.restraints, posterior.crystal.xyz, posterior.crystal.B)
    one = posterior.molecules(1, requests.seed)
    draw = geometry_report(posterior.atoms.restraints, one["xyz"][0], one["B"][0])
    write_model(posterior, out / "refined.cif")
    write_model(posterior, out / "refined.pdb")
    if requests.ensemble:
        write_ensemble(posterior, out / "ensemble.cif", requests.ensemble, requests.seed)
    write_maps(posterior.target, posterior.model, out / "maps.mtz")
    if requests.map_sigma:
        write_map_sigma(posterior, out / "map_sigma.ccp4", seed=requests.seed)
    write_posterior(
        {"posterior": posterior_draws(posterior, requests.draws, requests.seed)}, out / "posterior.nc"
    )
    for name, frame in (("statistics", statistics), ("history", pd.DataFrame(posterior.history))):
        with atomic_path(out / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False)
    text = f"Model\n\n{mean.table()}\n\nOne draw of the posterior\n\n{draw.table()}\n"
    with atomic_path(out / "geometry.txt") as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    plot_r(statistics, out / "r_factors.png")
    plot_b(posterior, out / "b_factors.png")
    record = run_record(posterior, statistics, mean, draw, requests)
    write_run(record, out / "run.json")
    return record | {"geometry_table": geometry_lines(mean, draw)}


def run_record(posterior, statistics, mean, draw, requests: Requests) -> dict:
    """What run.json holds."""
    last, data = statistics.iloc[-1].to_dict(), posterior.target.data
    sites = {
        k: {"mean": float(x.mean()), "sd": float(x.std())}
        for k, x in posterior.sites(400, requests.seed).items()
        if x[0].numel() == 1
    }
    mean_B, sd_B = b_summary(posterior)
    tau = [t**0.5 for t in posterior.atoms.temperature]
    return plain({
        "options": requests.options or {}, "seed": requests.seed, "versions": {p: version_of(p) for p in PACKAGES},
        "data": {**data.columns, "kind": data.kind, "reflections": len(data), "free": int(data.free.sum()),
                 "notes": list(data.notes)},
        "fit": {"reason": posterior.reason, "cycles": len(posterior.history),
                "parameters": len(posterior.mean), "determined_by_data": posterior.determined,
                "restraint_width": {"coordinates": tau[0], "B": tau[1]}},
        "figures": last, "sites": sites,
        "atoms": {"mean_B": mean_B, "median_sd_B": sd_B, "median_sd_xyz": float(posterior.esd["xyz"].median()),
                  "maximum_shift": maximum_shift(posterior)},
        "geometry": {"mean": mean.as_dict(), "draw": draw.as_dict()},
        "cost": {"seconds": None if requests.start is None else time.monotonic() - requests.start,
                 "cpu_seconds": time.process_time()},
    })  # fmt: skip


def geometry_lines(mean, draw) -> str:
    """rmsZ of the model and of one draw, which is as far from ideal as the posterior says that atoms are."""
    rows = zip(mean.deviations, draw.deviations, strict=True)
    lines = ["Geometry, rmsZ           model   one draw"]
    lines += [f"  {a.kind:<18}{a.rmsZ:>10.2f}{b.rmsZ:>11.2f}" for a, b in rows]
    return "\n".join(lines)
