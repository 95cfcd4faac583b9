"""Structure factors and gradients against torchref, cctbx and gemmi: CPU time, error, memory.

    python benchmarks/structure_factors.py [--cases NAME ...] [--programs NAME ...] [--envs DIR]

Every program runs in its own environment under benchmarks/.envs (made with pip at the first use) on the same PDB
file and reflections, with one thread. Times are CPU seconds: cores may be shared. Errors are relative L2 norms
against direct summation in float64: F over 2,000 reflections, gradients of L = Σ w |F|² with w random on those
reflections and zero elsewhere, so that every program does all its work.
"""

import argparse
import os
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import torch

from bayesref.crystal.form_factors import form_factors
from bayesref.io.structure import read_structure
from bayesref.structure_factors.direct import direct

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("BAYESREF_DATA", HERE.parents[1] / "shared" / "data"))
WORK = HERE / "work"
WORKER = HERE / "structure_factors_worker.py"
PEERS = {
    "torchref": ["torch==2.13.0", "torchref==0.7.0"],
    "cctbx": ["cctbx-base"],
    "gemmi": ["gemmi", "numpy"],
}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TORCHREF_NUM_THREADS")
SINGLE = dict.fromkeys(THREADS, "1")
PROGRAMS = [
    "bayesref 1e-2",
    "bayesref 1e-3",
    "bayesref 1e-4",
    "bayesref 1e-3, 2 threads",
    "torchref",
    "cctbx",
    "cctbx tight",
    "gemmi",
    "gemmi tight",
]
TRUTH = 2000


def one_model(name):
    return lambda: gemmi.read_structure(str(DATA / name))


def eight_copies():
    """Eight turned copies of the PYP model in a P1 cell with 60 % solvent: 8,912 atoms."""
    single, rng = gemmi.read_structure(str(DATA / "pyp/off.pdb")), np.random.default_rng(0)
    out = gemmi.Structure()
    out.cell, out.spacegroup_hm = gemmi.UnitCell(70, 70, 70, 90, 90, 90), "P 1"
    model, centre = gemmi.Model(1), single[0].calculate_center_of_mass()
    for copy, corner in enumerate(np.ndindex(2, 2, 2)):
        turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        for chain in single[0]:
            new = chain.clone()
            new.name = "ABCDEFGH"[copy] + (chain.name if len(single[0]) > 1 else "")
            for residue in new:
                for atom in residue:
                    r = (
                        turn @ (np.array(atom.pos.tolist()) - np.array(centre.tolist()))
                        + 35 * np.array(corner)
                        + 17
                    )
                    atom.pos = gemmi.Position(*r)
            model.add_chain(new)
    out.add_model(model)
    return out


CASES = {
    "1dur 2.0": (one_model("1dur/1dur.pdb"), 2.0),
    "pyp 1.6": (one_model("pyp/off.pdb"), 1.6),
    "8912 atoms 2.0": (eight_copies, 2.0),
    "8912 atoms 1.5": (eight_copies, 1.5),
}


def prepare_case(name):
    """Model, reflections and truth on disk: (case, model, truth)."""
    WORK.mkdir(exist_ok=True)
    stem = name.replace(" ", "_")
    model, case, truth = WORK / f"{stem}.pdb", WORK / f"{stem}.npz", WORK / f"{stem}_truth.npz"
    if not truth.exists():
        make, d_min = CASES[name]
        make().write_pdb(str(model))
        crystal = read_structure(model)
        hkl = gemmi.make_miller_array(crystal.cell, crystal.spacegroup, d_min).astype(np.int64)
        rng = np.random.default_rng(1)
        rows = rng.permutation(len(hkl))[:TRUTH]
        weight = np.zeros(len(hkl))
        weight[rows] = rng.standard_normal(len(rows))
        np.savez(case, hkl=hkl, weight=weight, d_min=d_min)
        leaves = [x.clone().requires_grad_() for x in (crystal.xyz, crystal.B, crystal.occupancy)]
        moved = replace(crystal, xyz=leaves[0], B=leaves[1], occupancy=leaves[2])
        F = direct(moved, torch.from_numpy(hkl[rows]), form_factors(crystal.scatterer))
        (torch.from_numpy(weight[rows]) * F.abs() ** 2).sum().backward()
        np.savez(
            truth,
            rows=rows,
            F=F.detach().numpy(),
            atoms=crystal.xyz.numpy(),
            **{k: x.grad.numpy() for k, x in zip(("xyz", "B", "occupancy"), leaves, strict=True)},
        )
    return case, model, np.load(truth)


def python_of(program, envs):
    """The interpreter of a program's environment, made where it is missing."""
    peer = program.split()[0]
    if peer == "bayesref":
        return sys.executable
    home = envs / peer
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PEERS[peer]], check=True)
    return str(python)


def error(found, truth):
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def measure(program, name, envs):
    case, model, truth = prepare_case(name)
    out = WORK / "out.npz"
    environment = {**os.environ, **({} if "threads" in program else SINGLE)}
    subprocess.run(
        [python_of(program, envs), WORKER, program, case, model, out],
        check=True,
        env=environment,
        stderr=subprocess.DEVNULL if program.startswith("torchref") else None,
    )
    found = np.load(out)
    row = {
        k: float(found[k])
        for k in ("cpu_forward", "wall_forward", "cpu_both", "wall_both", "megabytes")
        if k in found
    }
    row["F"] = error(found["F"][truth["rows"]], truth["F"])
    for key in ("xyz", "B", "occupancy"):
        if key in found:
            row[key] = error(found[key], truth[key])
    return row


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--programs", nargs="+", default=PROGRAMS, choices=PROGRAMS)
    parser.add_argument("--envs", type=Path, default=HERE / ".envs")
    options = parser.parse_args()
    columns = [
        "cpu_forward",
        "cpu_both",
        "wall_forward",
        "wall_both",
        "megabytes",
        "F",
        "xyz",
        "B",
        "occupancy",
    ]
    for name in options.cases:
        print(
            f"\n{name}\n| program | forward, CPU ms | and gradients, CPU ms | wall ms | wall ms | MB "
            "| F | xyz | B | occ |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|")
        for program in options.programs:
            row = measure(program, name, options.envs)
            cells = []
            for i, column in enumerate(columns):
                value = row.get(column)
                cells.append(
                    "-"
                    if value is None
                    else f"{1e3 * value:.1f}"
                    if i < 4
                    else f"{value:.0f}"
                    if i == 4
                    else f"{value:.1e}"
                )
            print(f"| {program} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
