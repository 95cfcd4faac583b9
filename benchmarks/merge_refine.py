"""Does a structure improve the amplitudes, and merging with it the structure? Simulated spots of a known crystal.

    python benchmarks/merge_refine.py --seeds 1 2 3 --sig0 60 200

Spots of multiplicity 3 of 1DUR's model (solvent, model errors of 6 % of the intensity growing with resolution, ten per
cent free), a starting model shaken by 0.2 Å, and two ways: `merge`, then refinement; or both at once. Scored against
the true amplitudes after one scale that is smooth in resolution, work and free reflections apart:

    log score = ‹log p(F_true)›, p normal with mean F and standard deviation SIGF, amplitudes over √⟨F²/ε⟩: high
    cc        = correlation of F with the truth, over √⟨F²/ε⟩
    cover90   = share of true amplitudes within 90 % intervals

`alone` are amplitudes of the first merge, `joint` of the last, `rmsd` the distance of all atoms from the truth.
"""

import time
from dataclasses import replace

import torch
from common import parser, table

from bayesref.data.simulate import MergeOptions
from bayesref.distributions import wilson_sigma
from bayesref.io.structure import read_structure
from bayesref.io.unmerged import read_unmerged
from bayesref.io.write_mtz import write_mtz
from bayesref.refinement.joint import merge_and_refine
from bayesref.refinement.refine import isotropic
from bayesref.refinement.simulate import RefineOptions
from bayesref.refinement.simulate_spots import simulate_spots, truth_of
from bayesref.restraints.dictionary import load_dictionary
from bayesref.scaling.additive import Additive
from bayesref.scaling.basis import bumps
from bayesref.scaling.falloff import Falloff
from bayesref.scaling.image_wise import ImageWise
from bayesref.scaling.scale import Product

KEYS = ["BATCH", "dHKL", "X", "Y"]


class Scorer:
    """Compares amplitudes with the truth T (hkl,)."""

    def __init__(self, T, asu):
        s2 = asu.stol2
        x = (s2 - s2.mean()) / s2.std()
        limits = (float(s2.min()), float(s2.max()))
        self.columns = torch.cat([torch.stack([torch.ones_like(x), x], 1), bumps(s2, 12, limits)], 1)
        self.T, self.unit = T, wilson_sigma(T**2, 0.01 * T**2 + 1, s2, asu.epsilon, asu.centric).sqrt()

    def scale(self, F, SIGF):
        """Smooth factor that brings F to the truth, by robust least squares."""
        X, log_k = self.columns, torch.full_like(F, float((self.T.mean() / F.mean()).log()))
        ridge = 1e-2 * torch.eye(X.shape[1], dtype=F.dtype)
        for _ in range(12):
            k = log_k.exp()
            z = (self.T - k * F) / (k * SIGF)
            w = (1 + (z / 2) ** 2) ** -0.25
            A = (w * F / SIGF)[:, None] * X
            log_k = log_k + (X @ torch.linalg.solve(A.T @ A + ridge, A.T @ (w * z))).clamp(-0.5, 0.5)
        return log_k.exp()

    def __call__(self, amplitudes, rows) -> dict:
        k = self.scale(amplitudes.F, amplitudes.SIGF)
        F, S, T = (
            x[rows]
            for x in (k * amplitudes.F / self.unit, k * amplitudes.SIGF / self.unit, self.T / self.unit)
        )
        z = (T - F) / S
        return {
            "cc": float(torch.corrcoef(torch.stack([F, T]))[0, 1]),
            "cover90": float((z.abs() < 1.645).double().mean()),
            "log score": float(torch.distributions.Normal(F, S).log_prob(T).mean()),
        }


def one(a, seed: int, sig0: float) -> list[dict]:
    """Rows of one simulation: work and free set."""
    torch.set_num_threads(1)
    truth = isotropic(read_structure(a.data / "1dur" / "1dur.pdb"))
    model = RefineOptions(dmin=2.0, error=0.06, free_fraction=0.1)
    simulation = simulate_spots(truth, model, MergeOptions(multiplicity=3, sig0=sig0, seed=seed))
    path = a.work / "merge_refine" / f"{seed}_{sig0:g}.mtz"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mtz(simulation.spots, path)
    obs = read_unmerged(path, metadata_keys=KEYS)
    free = truth_of(simulation, obs.asu.hkl, "FreeR_flag") == 0
    g = torch.Generator().manual_seed(seed)
    shift = 0.2 / 3**0.5 * torch.randn(truth.xyz.shape, generator=g, dtype=torch.float64)
    library = load_dictionary(sorted({n.split("/")[1].rsplit(" ", 1)[0] for n in truth.name})).monlib
    begin, steps = time.process_time(), []
    scale = Product(Falloff(obs), Additive(obs), ImageWise(obs))
    joint = merge_and_refine(
        replace(truth, xyz=truth.xyz + shift), obs, scale, library, free, hydrogens="none",
        report_round=lambda row: steps.append(row),
    )  # fmt: skip
    seconds, score = time.process_time() - begin, Scorer(truth_of(simulation, obs.asu.hkl), obs.asu)
    rows = []
    for name, chosen, R in (("work", ~free, "R"), ("free", free, "R_free")):
        both = {k: score(x, chosen) for k, x in (("alone", joint.sequential), ("joint", joint.amplitudes))}
        row = {"sig0": sig0, "seed": seed, "set": name}
        row |= {f"{k} {way}": round(both[way][k], 4) for k in both["alone"] for way in both}
        row |= {"R alone": round(steps[0][R], 4), "R joint": round(steps[-1][R], 4)}
        rmsd = (joint.structure.crystal.xyz - truth.xyz).square().sum(1).mean().sqrt()
        rows.append(row | {"rmsd": round(float(rmsd), 3), "CPU s": round(seconds, 1)})
    return rows


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    p.add_argument(
        "--sig0", type=float, nargs="+", default=[60.0, 200.0], help="noise of a weak spot; ⟨K F²⟩ is 500"
    )
    a = p.parse_args()
    table([row for sig0 in a.sig0 for seed in a.seeds for row in one(a, seed, sig0)])


if __name__ == "__main__":
    main()
