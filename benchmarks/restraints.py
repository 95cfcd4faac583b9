"""Time of the restraints of the data sets' models, milliseconds on one core.

    OMP_NUM_THREADS=1 python benchmarks/restraints.py --monlib $CLIBD_MON

Residues that the monomer library lacks are left without restraints. Each figure is the least of ten.
"""

import os
import time
from pathlib import Path

import gemmi
import torch
from common import parser

from bayesref.io.structure import read_structure
from bayesref.restraints.report import geometry_report
from bayesref.restraints.restraints import build_restraints

MODELS = (
    "1dur/1dur.pdb",
    "pyp/off.pdb",
    "1l2h/1l2h.cif",
    "8a6g/8a6g.pdb",
    "hewl/RTSAD_HEWL_refine_25.pdb",
)


def least(call, times: int = 10) -> float:
    """Shortest time of a call, ms; it was called once before."""
    call()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return 1000 * min(found)


def by_torch(restraints, xyz: torch.Tensor):
    """log p and its slope by automatic differentiation."""
    x = xyz.clone().requires_grad_()
    return torch.autograd.grad(restraints.log_prob(x), x)


def main():
    p = parser(__doc__)
    p.add_argument("--monlib", default=os.environ.get("CLIBD_MON"), help="folder of a CCP4 monomer library")
    p.add_argument("--reports", action="store_true", help="print the report of each model too")
    options = p.parse_args()
    torch.set_num_threads(1)
    print(f"{'model':<32}{'atoms':>7}{'terms':>7}  build  slope  torch   hess  refresh")
    for model in MODELS:
        crystal = read_structure(Path(options.data) / model)
        names = sorted({n.split("/")[1].split()[0] for n in crystal.name})
        monlib = gemmi.MonLib()
        messages: list[str] = []
        monlib.read_monomer_lib(options.monlib, names, messages.append)
        free = tuple(n for n in names if n not in monlib.monomers)

        def build(crystal=crystal, monlib=monlib, free=free):
            return build_restraints(crystal, monlib, unrestrained=free)

        restraints, xyz = build(), crystal.xyz.numpy()
        figures = [
            least(build, 3),
            least(lambda r=restraints, x=xyz: r.value_and_grad(x)),
            least(lambda r=restraints, x=crystal.xyz: by_torch(r, x)),
            least(lambda r=restraints, x=xyz: r.hessian(x)),
            least(lambda r=restraints, x=xyz: r.refresh(x)),
        ]
        print(f"{model:<32}{len(crystal):>7}{len(restraints):>7}" + "".join(f"{f:7.1f}" for f in figures))
        if options.reports:
            print(geometry_report(restraints, crystal.xyz, crystal.B).table())


if __name__ == "__main__":
    main()
