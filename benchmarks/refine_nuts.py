"""The Gaussian posterior of a structure against a Markov chain of the exact one: 5E5Z, a peptide of seven residues.

    python benchmarks/refine_nuts.py --draws 1000

47 atoms and 403 reflections to 1.7 Å: as few measurements for a parameter as a refinement ever has. Hamiltonian Monte
Carlo in the coordinates of the Gaussian (`bayesref.refinement.hamiltonian`); errors of the model and widths of the
restraints are those of the Gaussian. Per kind of parameter:

    |Δmean| < 0.2     share of parameters whose means differ by less than 0.2 standard deviations of the Gaussian
    0.8 < r < 1.25    share whose standard deviations have such a ratio r, chain over Gaussian
    r                 its quantiles 5, 50 and 95 %

P 2₁ has no origin along y: the centroid is taken off the coordinates of every draw of both.
"""

import time

import torch
from common import parser, table

from bayesref.io.merged import read_merged
from bayesref.io.structure import read_structure
from bayesref.refinement.hamiltonian import sample_structure
from bayesref.refinement.refine import refine
from bayesref.restraints.dictionary import load_dictionary


def relative(z, posterior) -> dict[str, torch.Tensor]:
    """Parameters of draws z (draw, latent) by kind, (draw, n): coordinates about their centroid, log B, and others."""
    latents, errors = posterior.target.latents, set(posterior.error_rows.tolist())
    column = {k: latents.columns([k]) for k in latents.sites}
    xyz = z[:, column["xyz"]].reshape(len(z), -1, 3)
    others = [c for k, c in column.items() if k not in ("xyz", "B") and not errors & set(c.tolist())]
    return {
        "coordinates": (xyz - xyz.mean(1, keepdim=True)).flatten(1),
        "log B": z[:, column["B"]],
        "scale, solvent": z[:, torch.cat(others)],
    }


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--draws", type=int, default=1000, help="of each of two chains")
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    torch.set_num_threads(1)
    crystal = read_structure(a.data / "5e5z" / "5e5z.pdb")
    data = read_merged(a.data / "5e5z" / "5e5z.mtz")
    library = load_dictionary(sorted({n.split("/")[1].rsplit(" ", 1)[0] for n in crystal.name})).monlib
    posterior = refine(crystal, data, library, hydrogens="none")
    begin = time.process_time()
    chain = sample_structure(posterior, a.draws, seed=a.seed)
    seconds = time.process_time() - begin
    exact = relative(chain.z.flatten(0, 1), posterior)
    gauss = relative(posterior.draw(4000, a.seed), posterior)
    rows = []
    for kind in exact:
        m, s = gauss[kind].mean(0), gauss[kind].std(0)
        shift, r = (exact[kind].mean(0) - m) / s, exact[kind].std(0) / s
        q = r.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=r.dtype)).tolist()
        rows.append({
            "parameters": kind, "n": len(r), "|Δmean| < 0.2": float((shift.abs() < 0.2).double().mean()),
            "rms Δmean": float(shift.square().mean().sqrt()),
            "0.8 < r < 1.25": float(((r > 0.8) & (r < 1.25)).double().mean()),
            "r": " ".join(f"{x:.2f}" for x in q),
        })  # fmt: skip
    table(rows)
    print(
        f"\n{2 * a.draws} draws in {seconds:.0f} CPU s, {chain.evaluations} gradients, {chain.accepted:.0%} accepted, "
        f"median R-hat {float(chain.split_r_hat().median()):.3f}"
    )


if __name__ == "__main__":
    main()
