"""Structure factors with gradients: find the B factors behind a set of amplitudes by gradient descent.

    python examples/structure_factors.py

A small crystal is made up, its amplitudes are calculated with known B factors, and the B factors are found again
from a flat start. Give a PDB or mmCIF file to do the same with it.
"""

import argparse
from dataclasses import replace

import gemmi
import torch

import bayesref as br


def made_up(n: int, seed: int = 0) -> br.Crystal:
    """Carbon atoms at random places of a small orthorhombic cell."""
    g = torch.Generator().manual_seed(seed)
    cell = gemmi.UnitCell(18, 21, 24, 90, 90, 90)
    sides = torch.tensor([18.0, 21.0, 24.0], dtype=torch.float64)
    return br.Crystal(
        xyz=torch.rand(n, 3, generator=g, dtype=torch.float64) * sides,
        B=10 + 20 * torch.rand(n, generator=g, dtype=torch.float64),
        U=None,
        anisotropic=torch.zeros(n, dtype=torch.bool),
        occupancy=torch.ones(n, dtype=torch.float64),
        scatterer=("C",) * n,
        name=tuple(f"A/C {i}/C" for i in range(n)),
        altloc=("",) * n,
        cell=cell,
        spacegroup=gemmi.SpaceGroup("P 21 21 21"),
    )


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", nargs="?", help="PDB or mmCIF; default: a made-up crystal")
    p.add_argument("--dmin", type=float, default=1.8, help="resolution, Å")
    p.add_argument("--steps", type=int, default=60)
    a = p.parse_args()
    truth = br.read_structure(a.model) if a.model else made_up(30)
    hkl = torch.tensor(gemmi.make_miller_array(truth.cell, truth.spacegroup, a.dmin), dtype=torch.int64)

    plan = br.prepare(truth, hkl, rel_error=1e-4)  # grid, blur, radii: once
    print(f"{len(truth)} atoms, {len(hkl)} reflections to {a.dmin:g} Å; check {br.self_check(truth, plan)}")
    target = br.fcalc(truth, plan=plan).abs().detach()

    log_B = torch.full_like(truth.B, float(truth.B.median().log())).requires_grad_()
    optimiser = torch.optim.LBFGS([log_B], max_iter=a.steps, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        F = br.fcalc(replace(truth, B=log_B.exp()), plan=plan).abs()
        value = ((F - target) ** 2).sum() / (target**2).sum()
        value.backward()
        return value

    before = float(loss().detach())
    optimiser.step(loss)
    error = float((log_B.exp() - truth.B).abs().median())
    print(f"residual {before:.2e} -> {float(loss().detach()):.2e}; B found again to {error:.3f} Å² (median)")


if __name__ == "__main__":
    main()
