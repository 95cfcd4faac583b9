"""Refinement beside torchref, on the same model, data and free set.

    python benchmarks/refinement.py --torchref ENVIRONMENT/bin [--shake 0.3]

R factors are those that each program prints at its end; the free set is that of the file. Both start from the
deposited model, and from the same model with every atom shifted at random.
"""

import json
import os
import re
from pathlib import Path

from common import parser, program, run, table

DATA = {"1DUR": ("1dur/1dur.pdb", "1dur/1dur.mtz", "FP", "SIGFP")}
TWINS = {"1L2H": ("1l2h/1l2h.cif", "1l2h/1l2h.mtz")}  # refined by us alone: torchref knows no twins
SHAKE = """
import sys, torch, bayesref as br
from dataclasses import replace
crystal = br.read_structure(sys.argv[1])
g = torch.Generator().manual_seed(int(sys.argv[4]))
shift = float(sys.argv[3]) / 3**0.5 * torch.randn(crystal.xyz.shape, generator=g, dtype=torch.float64)
br.write_structure(replace(crystal, xyz=crystal.xyz + shift), sys.argv[2])
"""


def ours(model, data, folder: Path, *options) -> dict:
    """R factors, rmsZ of bonds of the mean model and of one draw, and cost."""
    out = folder / "bayesref"
    usage = run(
        [program("bayesref"), "refine", model, data, "--out", out, "--overwrite", *options],
        folder / "bayesref.txt",
    )
    record = json.loads((out / "run.json").read_text())
    bonds = {
        k: next(d for d in v["deviations"] if d["kind"] == "bonds")["rmsZ"]
        for k, v in record["geometry"].items()
    }
    figures = record["figures"]
    return {"R": figures["R"], "R-free": figures["R_free"], "bond rmsZ": f"{bonds['mean']:.2f} / {bonds['draw']:.2f}",
            "CPU s": round(usage.cpu, 1), "peak MB": round(usage.peak)}  # fmt: skip


def torchref(model, data, value, sigma, folder: Path, binaries: Path) -> dict:
    """R factors and cost of torchref.refine with its defaults, one thread."""
    os.environ.update(TORCHREF_NUM_THREADS="1", OMP_NUM_THREADS="1")
    command = [binaries / "torchref.refine", "-m", model, "-sf", data, "-csf", value, "-csig", sigma]
    usage = run([*command, "-o", folder / "torchref", "--device", "cpu", "-v", "1"], folder / "torchref.txt")
    text = (folder / "torchref.txt").read_text()
    work, free = (float(re.findall(rf"{name}:\s+([0-9.]+)", text)[-1]) for name in ("R-work", "R-free"))
    return {
        "R": work,
        "R-free": free,
        "bond rmsZ": "",
        "CPU s": round(usage.cpu, 1),
        "peak MB": round(usage.peak),
    }


def main() -> None:
    p = parser(__doc__)
    p.add_argument(
        "--torchref", type=Path, required=True, help="folder of the binaries of torchref's environment"
    )
    p.add_argument("--shake", type=float, nargs="*", default=[0.3], help="Å rms")
    p.add_argument("--seeds", type=int, nargs="*", default=[3, 4])
    a = p.parse_args()
    rows = []
    for name, (model, data, value, sigma) in DATA.items():
        starts = {"deposited": a.data / model}
        for rms in a.shake:
            for seed in a.seeds:
                path = a.work / "refinement" / f"{name}_{rms}_{seed}.pdb"
                path.parent.mkdir(parents=True, exist_ok=True)
                run(
                    [program("python"), "-c", SHAKE, a.data / model, path, rms, seed],
                    path.with_suffix(".txt"),
                )
                starts[f"shaken by {rms} Å, seed {seed}"] = path
        for start, path in starts.items():
            folder = a.work / "refinement" / f"{name} {start}".replace(" ", "_")
            case = {"crystal": name, "start": start}
            rows.append(case | {"program": "bayesref"} | ours(path, a.data / data, folder))
            rows.append(
                case
                | {"program": "torchref"}
                | torchref(path, a.data / data, value, sigma, folder, a.torchref)
            )
    for name, (model, data) in TWINS.items():
        for twin in ("none", "auto"):
            folder = a.work / "refinement" / f"{name}_twin_{twin}"
            found = ours(a.data / model, a.data / data, folder, "--twin", twin)
            sites = json.loads((folder / "bayesref" / "run.json").read_text())["sites"]
            alpha = f", fraction {sites['twin_fraction']['mean']:.3f}" if "twin_fraction" in sites else ""
            rows.append({"crystal": name, "start": f"--twin {twin}{alpha}", "program": "bayesref"} | found)
    table(rows)


if __name__ == "__main__":
    main()
