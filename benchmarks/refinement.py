"""Refinement beside torchref, on the same model, data and free set.

    python benchmarks/refinement.py --torchref ENVIRONMENT/bin [--crystals 1DUR HEWL PYP 8A6G] [--shake 0.3]

R factors are those that each program prints at its end. The free set is that of the file; 8A6G has none, and PYP is
merged here, so that bayesref's flags are made for both and given to both programs. Both start from the deposited
model, and from the same model with every atom shifted at random.
"""

import csv
import json
import os
import re
import sys
from argparse import BooleanOptionalAction
from pathlib import Path

from common import parser, program, run, table

# model, data, value, sigma, dictionaries; "merge" stands for data merged by bayesref from the file before it
DATA = {
    "1DUR": ("1dur/1dur.pdb", "1dur/1dur.mtz", "FP", "SIGFP", ()),
    "HEWL": ("hewl/RTSAD_HEWL_refine_25.pdb", "hewl/HEWL_SSAD_24IDC.mtz", "IMEAN", "SIGIMEAN", ()),
    "PYP": ("pyp/off.pdb", "pyp/off.mtz", "I", "SIGI", ("pyp/ligands.cif",)),
    "8A6G": ("8a6g/8a6g.pdb", "8a6g/scaled-test-data.mtz", "F_off", "SIGF_off", ()),
}
WILSON_B = 15.0  # Å², given to merged amplitudes, which have no fall-off of their own
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
    # The clock of the cycles, in the share of it that the whole run had of a processor.
    with (out / "history.csv").open() as file:
        wall = float(list(csv.DictReader(file))[-1]["seconds"])
    cycles = wall * record["cost"]["cpu_seconds"] / record["cost"]["seconds"]
    return {"R": figures["R"], "R-free": figures["R_free"], "bond rmsZ": f"{bonds['mean']:.2f} / {bonds['draw']:.2f}",
            "CPU s": round(usage.cpu, 1), "of it cycles": round(cycles, 1), "peak MB": round(usage.peak)}  # fmt: skip


def flagged(source: Path, value: str, sigma: str, out: Path) -> Path:
    """The two columns of a file with R-free flags made for them, 0 = free."""
    import gemmi
    import numpy as np

    from bayesref.crystal.free_flags import free_flags

    mtz = gemmi.read_mtz_file(str(source))
    columns = [np.array(mtz.column_with_label(x).array) for x in ("H", "K", "L", value, sigma)]
    table = np.column_stack(columns)
    table = table[np.isfinite(table).all(1) & (table[:, 4] > 0)]
    flags = free_flags(table[:, :3].astype(int), mtz.cell, mtz.spacegroup, 0.05)
    new = gemmi.Mtz(with_base=True)
    new.spacegroup = mtz.spacegroup
    new.add_dataset("data")
    new.set_cell_for_all(mtz.cell)
    kinds = [mtz.column_with_label(x).type for x in (value, sigma)]
    for label, kind in zip((value, sigma, "FreeR_flag"), (*kinds, "I"), strict=True):
        new.add_column(label, kind)
    new.set_data(np.column_stack([table, flags]).astype(np.float32))
    out.parent.mkdir(parents=True, exist_ok=True)
    new.write_to_file(str(out))
    return out


def merged(source: Path, folder: Path) -> Path:
    """Spots merged by bayesref, with a fall-off and R-free flags."""
    keys = ["--metadata", "X,Y,Wavelength,dHKL", "--free-fraction", 0.05, "--wilson-b", WILSON_B]
    command = [program("bayesref"), "merge", source, *keys, "--out", folder, "--overwrite"]
    run(command, folder.with_suffix(".txt"))
    return folder / "merged_0.mtz"


def torchref(model, data, value, sigma, dictionaries, folder: Path, binaries: Path) -> dict:
    """R factors and cost of torchref.refine with its defaults, one thread."""
    os.environ.update(TORCHREF_NUM_THREADS="1", OMP_NUM_THREADS="1")
    command = [binaries / "torchref.refine", "-m", model, "-sf", data, "-csf", value, "-csig", sigma]
    command += [x for d in dictionaries for x in ("--cif", d)]
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
    p.add_argument("--crystals", nargs="+", choices=DATA, default=list(DATA))
    p.add_argument("--twins", action=BooleanOptionalAction, default=True, help="the twin, by bayesref alone")
    p.add_argument("--shake", type=float, nargs="*", default=[0.3], help="Å rms")
    p.add_argument("--seeds", type=int, nargs="*", default=[3])
    a = p.parse_args()
    rows = []
    for name in a.crystals:
        model, data, value, sigma, cifs = DATA[name]
        base, cifs = a.work / "refinement", [a.data / c for c in cifs]
        path = a.data / data
        if name == "8A6G":
            path = flagged(path, value, sigma, base / "8a6g.mtz")
        if name == "PYP":
            path = merged(path, base / "pyp_merge")
        for start, first in starts(a, name, a.data / model).items():
            folder = base / f"{name} {start}".replace(" ", "_")
            case = {"crystal": name, "start": start}
            options = ["--labels", f"{value},{sigma}", *(x for c in cifs for x in ("--restraints", c))]
            rows.append(case | {"program": "bayesref"} | ours(first, path, folder, *options))
            print(rows[-1], file=sys.stderr, flush=True)
            them = torchref(first, path, value, sigma, cifs, folder, a.torchref)
            rows.append(case | {"program": "torchref"} | them)
            print(rows[-1], file=sys.stderr, flush=True)
    for name, (model, data) in TWINS.items() if a.twins else ():
        for twin in ("none", "auto"):
            folder = a.work / "refinement" / f"{name}_twin_{twin}"
            found = ours(a.data / model, a.data / data, folder, "--twin", twin)
            sites = json.loads((folder / "bayesref" / "run.json").read_text())["sites"]
            alpha = f", fraction {sites['twin_fraction']['mean']:.3f}" if "twin_fraction" in sites else ""
            rows.append({"crystal": name, "start": f"--twin {twin}{alpha}", "program": "bayesref"} | found)
    table(rows)


def starts(a, name: str, model: Path) -> dict[str, Path]:
    """The deposited model, and shifted ones."""
    out = {"deposited": model}
    for rms in a.shake:
        for seed in a.seeds:
            path = a.work / "refinement" / f"{name}_{rms}_{seed}.pdb"
            path.parent.mkdir(parents=True, exist_ok=True)
            run([program("python"), "-c", SHAKE, model, path, rms, seed], path.with_suffix(".txt"))
            out[f"shaken by {rms} Å, seed {seed}"] = path
    return out


if __name__ == "__main__":
    main()
