"""Simulate a rotation data set, merge it, and see whether the posterior holds the truth.

python examples/merge_simulated.py --spots 8000 --out merge_simulated.png
"""

import argparse

import numpy as np
import reciprocalspaceship as rs
import torch
from bayesref.models import merge

import bayesref as br


def simulated(folder, dmin: float, seed: int):
    """Observations, and the amplitudes that they were made from."""
    from bayesref.io.simulation import write_simulation

    simulation = br.simulate_merge(dmin=dmin, multiplicity=6, images=40, seed=seed)
    spots, truth = write_simulation(simulation, folder)
    obs = br.read_unmerged([spots[0]], metadata_keys=["BATCH", "dHKL", "X", "Y"])
    table = rs.read_mtz(str(truth[0]))
    return obs, table.loc[[tuple(h) for h in obs.asu.hkl.tolist()], "FTRUE"].to_numpy(float)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dmin", type=float, default=3.0, help="resolution, Å")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--folder", default="merge_simulated", help="where the MTZ files go")
    p.add_argument("--out", default="merge_simulated.png", help="picture to write")
    a = p.parse_args()
    obs, truth = simulated(a.folder, a.dmin, a.seed)

    # log K = a Wilson plot + smooth functions of the metadata + what is left to each image
    scale = br.Product(br.Falloff(obs), br.Additive(obs), br.ImageWise(obs))
    posterior = br.fit(merge.model, obs, scale)
    print(f"{len(obs)} spots, {len(obs.asu)} reflections: {posterior.reason}")
    sites = posterior.sites(200)
    for name in ("a", "b", "c", "nu"):
        print(f"{name:3s} {float(sites[name].mean()):.3f} ± {float(sites[name].std()):.3f}")

    # Merged amplitudes have no scale of their own: one factor brings them to the truth's.
    found = posterior.amplitudes()
    F, SIGF = found.F.numpy(), found.SIGF.numpy()
    k = np.sum(truth * F / SIGF**2) / np.sum(F**2 / SIGF**2)
    z = torch.as_tensor((k * F - truth) / (k * SIGF))
    print(
        f"within 90 % intervals: {float((z.abs() < 1.645).double().mean()):.3f}, mean z² {float((z**2).mean()):.3f}"
    )
    plot(a.out, truth, k * F, k * SIGF)


def plot(path, truth, F, SIGF):
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
    axes.errorbar(truth, F, SIGF, fmt=".", ms=2, lw=0.5, alpha=0.4)
    axes.axline((0, 0), slope=1, color="k", lw=1)
    axes.set(xlabel="true F", ylabel="posterior mean of F ± SIGF")
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
