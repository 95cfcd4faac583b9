"""Are the intervals of refined structures honest? Deposited models as the truth, simulated data, known parameters.

    python benchmarks/refine_calibration.py --crystals 1dur pyp --seeds 1 2

For each crystal and seed: merged intensities of the deposited model (isotropic, with solvent and with model errors of
8 % of the intensity, growing with resolution), a start shaken by 0.2 Å with all B at their median, `refine` as it is.
The share of true coordinates and B factors within 90 % intervals (mean ± 1.645 esd), for all atoms and for thirds by
true B: rigid, middle, mobile. It should be 0.85 to 0.95, and 0.80 to 0.97 in each third. Of occupancies, one of each
group of conformers counts (PYP has eight groups, 1DUR none). Beside it the mean field: the same optimum, with
parameters taken for independent. The last rows are all seeds together.
"""

import time
from argparse import BooleanOptionalAction
from dataclasses import replace

import torch
from common import parser, table

from bayesref.io.structure import read_structure
from bayesref.refinement.posterior import mean_field
from bayesref.refinement.refine import isotropic, refine
from bayesref.refinement.simulate import RefineOptions, simulate_refine
from bayesref.restraints.dictionary import load_dictionary

MODELS = {"1dur": ("1dur/1dur.pdb", 2.0, ()), "pyp": ("pyp/off.pdb", 1.8, ("pyp/ligands.cif",))}
SHAKE = 0.2  # Å rms


def run(a, name: str, seed: int) -> list[dict]:
    """Rows of one simulation: structured Gaussian and mean field."""
    path, dmin, dictionaries = MODELS[name]
    truth = isotropic(read_structure(a.data / path))
    residues = sorted({n.split("/")[1].rsplit(" ", 1)[0] for n in truth.name})
    library = load_dictionary(residues, [a.data / d for d in dictionaries]).monlib
    options = RefineOptions(dmin=dmin)
    if not a.free:
        options = replace(options, free_fraction=0.0)
    data = simulate_refine(truth, options, seed)
    g = torch.Generator().manual_seed(seed)
    shift = SHAKE / 3**0.5 * torch.randn(truth.xyz.shape, generator=g, dtype=torch.float64)
    start = replace(truth, xyz=truth.xyz + shift, B=truth.B.median().expand_as(truth.B).clone())
    begin = time.process_time()
    posterior = refine(start, data, library, hydrogens="none")
    seconds = time.process_time() - begin
    found = {"structured": scores(posterior, truth), "mean field": scores(mean_field(posterior), truth)}
    widths = "{:.2f} {:.2f}".format(*(t**0.5 for t in posterior.atoms.temperature))
    if a.keep:
        torch.save(
            {"truth": truth.B, "names": truth.name, **found["structured"]}, a.work / f"{name}_{seed}.pt"
        )
    return [{"law": k, "seed": seed, "z": z, "widths": widths, "CPU s": seconds} for k, z in found.items()]


def scores(posterior, truth) -> dict[str, torch.Tensor]:
    """(mean - truth)/esd of coordinates (atom, 3), B factors (atom,) and occupancies (group,); thirds of atoms."""
    c = posterior.atoms.conformers
    first = c.atom[[int(((c.group == g) & (c.which == 0)).nonzero()[0]) for g in range(len(c.total))]]
    z = {
        k: (getattr(posterior.crystal, k) - getattr(truth, k)) / posterior.esd[k]
        for k in ("xyz", "B", "occupancy")
    }
    return {**z, "occupancy": z["occupancy"][first], "third": truth.B.argsort().argsort() * 3 // len(truth.B)}


def shares(found: list[dict]) -> dict:
    """Share within 90 % intervals of some simulations, of all and of thirds."""
    z, row = {k: torch.cat([f[k] for f in found]) for k in found[0]}, {}
    third = z.pop("third")
    for k, x in z.items():
        inside = (x.abs() < 1.645).double()
        row[k] = round(float(inside.mean()), 3) if len(x) else ""
        if len(x) == len(third):
            row[f"{k} by third"] = " ".join(f"{float(inside[third == t].mean()):.3f}" for t in range(3))
    return row


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--crystals", nargs="+", choices=MODELS, default=list(MODELS))
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    p.add_argument("--free", action=BooleanOptionalAction, default=True, help="set a free set aside")
    p.add_argument("--keep", action="store_true", help="keep the scores of every atom in --work")
    a = p.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in a.crystals:
        runs = [row for seed in a.seeds for row in run(a, name, seed)]
        for law in ("structured", "mean field"):
            mine = [r for r in runs if r["law"] == law]
            for seed, some in [(r["seed"], [r]) for r in mine] + [("all", mine)]:
                cost = (
                    {"widths": some[0]["widths"], "CPU s": round(some[0]["CPU s"])} if seed != "all" else {}
                )
                rows.append(
                    {"crystal": name, "law": law, "seed": seed, **shares([r["z"] for r in some]), **cost}
                )
    table(rows)


if __name__ == "__main__":
    main()
