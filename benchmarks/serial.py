"""Serial stills with known truth: partiality, scales of images, ambiguous indexing, bad images.

    python benchmarks/serial.py --images 500 2000 20000 [--careless --iterations 2000]

`bayesref simulate serial` writes a stream; amplitudes are scored against its truth in whichever setting fits (the way
of indexing that all images share is arbitrary), ways of indexing and bad images against images_truth.csv. careless,
which knows of neither, merges stills that have neither (--one-way --bad 0), and bayesref the same: rows named easy.

Only Wilson's prior, ⟨F²⟩ = ε, tells the fall-off of merged amplitudes with resolution, and a simulated set of F follows
it up to chance. That error is one number for all amplitudes, which multiplicity does not lessen: z2 and cover90 of a
single set are then a matter of luck. `B` is the difference to the truth, its standard deviation `sd B` is by theory;
`z2 own` and `cover90 own` are about the truth times k exp(-B s²), with SIGF from draws treated alike.
"""

from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import reciprocalspaceship as rs
from careless_program import mono
from common import parser, program, run, table

FLAGS = ["--method", "svi", "--on-disk", "--samples", "400", "--overwrite"]
RESOLVE = ["--reindex", "auto", "--image-outliers", "--image-quality", "--cell-tolerance", "0.02"]
CARELESS_METADATA = "ewald_offset,dHKL,image_id"
INDEX = ["H", "K", "L"]


def score(merged: Path, truth: Path) -> dict:
    """cc, z2, cover90 of F on the scale of the truth, and what `own` gives, in the better of the lattice's settings."""
    data, true = rs.read_mtz(str(merged)), rs.read_mtz(str(truth)).reset_index()
    data = data[(data["N"] > 0)] if "N" in data else data
    known = pd.Series(true["FTRUE"].to_numpy(float), index=pd.MultiIndex.from_frame(true[INDEX].astype(int)))
    sigma = "SIGF" if "SIGF" in data else "SigF"  # the latter is careless's
    h, F, S = (x.to_numpy(float) for x in (data.reset_index()[INDEX], data["F"], data[sigma]))
    laws = gemmi.find_twin_laws(data.cell, data.spacegroup, 1.0, False)
    best: dict = {"cc": -1.0}
    for R in [np.eye(3), *(np.array(op.rot) / op.DEN for op in laws)]:
        asu, _ = rs.utils.hkl_to_asu((h @ R).astype(np.int32), data.spacegroup)
        T = known.reindex(pd.MultiIndex.from_arrays(asu.T, names=INDEX)).to_numpy()
        ok = np.isfinite(T)
        k = np.sum(F[ok] * T[ok] / S[ok] ** 2) / np.sum(F[ok] ** 2 / S[ok] ** 2)
        z = (k * F[ok] - T[ok]) / (k * S[ok])
        cc = np.corrcoef(F[ok], T[ok])[0, 1]
        if cc > best["cc"]:
            best = {"cc": round(cc, 4), "z2": np.mean(z**2), "cover90": np.mean(np.abs(z) < 1.645)}
            s2 = data.cell.calculate_1_d2_array(h[ok]) / 4
            draws = drawn(merged.with_name("posterior.nc"), h[ok])
            best |= own(F[ok], S[ok], T[ok], s2, draws) if draws is not None else {}
            best |= {
                "sd B": wilson_sd(s2, data.spacegroup.operations().centric_flag_array(h[ok].astype(np.int32)))
            }
    return best


def drawn(path: Path, h):
    """Draws of F of these reflections, (draw, hkl); None where there are none."""
    import xarray  # here, since a large parent would be charged to the programs it starts

    if not path.exists():
        return None
    draws = xarray.open_dataset(path, group="posterior", engine="h5netcdf")
    if "F" not in draws:
        return None
    constant = xarray.open_dataset(path, group="constant_data", engine="h5netcdf")
    row = {x: i for i, x in enumerate(zip(*(constant[c].values.tolist() for c in INDEX), strict=True))}
    return draws["F"].values[0][:, [row[tuple(x)] for x in h.astype(int).tolist()]].astype(float)


def brought(x, to, weight, s2):
    """x k exp(-B s²) nearest to another set of amplitudes, and B."""
    k, B = np.sum(weight**2 * x * to) / np.sum(weight**2 * x**2), 0.0
    for _ in range(10):
        near = k * x * np.exp(-B * s2)
        J = np.stack([near / k, -near * s2], 1) * weight[:, None]
        step = np.linalg.lstsq(J, (to - near) * weight, rcond=None)[0]
        k, B = k + step[0], B + step[1]
    return k * x * np.exp(-B * s2), B


def own(F, S, T, s2, draws) -> dict:
    """B of the amplitudes against the truth, and how honest the errors are that amplitudes have to themselves."""
    sd = np.std([brought(d, F, 1 / S, s2)[0] for d in draws], axis=0, ddof=1)
    near, B = brought(T, F, 1 / sd, s2)
    z = (F - near) / sd
    return {"B": B, "z2 own": np.mean(z**2), "cover90 own": np.mean(np.abs(z) < 1.645)}


def wilson_sd(s2, centric) -> float:
    """Standard deviation of B from amplitudes known exactly, of which log F² has a slope -2B: Fisher's information."""
    X, weight = np.stack([np.ones_like(s2), s2], 1), np.where(centric, 0.5, 1.0)
    return float(np.sqrt(np.linalg.inv(X.T @ (X * weight[:, None]))[1, 1]) / 2)


def images(found: Path, truth: Path) -> dict:
    """Images indexed otherwise than the rest, bad images found, and good ones called bad."""
    true = pd.read_csv(truth)
    mine = pd.read_csv(found)
    true = true.set_index("image").loc[mine["image"]]
    good, called = ~true["bad"].to_numpy(), (mine["p_bad"] > 0.5).to_numpy()
    way = pd.crosstab(
        true["operator"].to_numpy()[good & ~called], mine["operator"].to_numpy()[good & ~called]
    )
    return {
        "indexed otherwise": int(way.to_numpy().sum() - way.max(axis=1).sum()),
        "bad found": f"{int((called & ~good).sum())} of {int((~good).sum())}",
        "good called bad": int((called & good).sum()),
    }


def simulate(n: int, a, easy: bool) -> Path:
    """Folder with serial.stream, truth.mtz, images_truth.csv."""
    out = a.work / "serial" / f"{n}{'_easy' if easy else ''}"
    flags = ["--one-way", "--bad", 0] if easy else ["--foreign", 0.01]
    command = [program("bayesref"), "simulate", "serial", "--images", n, "--dmin", a.dmin, "--seed", a.seed]
    run([*command, *flags, "--overwrite", "--out", out], a.work / "serial" / f"simulate_{n}.txt")
    return out


def merge(n: int, a, easy: bool) -> dict:
    """A row of the table: bayesref."""
    folder = simulate(n, a, easy)
    out, stream = folder / "out", folder / "serial.stream"
    flags = [*FLAGS, "--metadata", a.metadata, *([] if easy else RESOLVE), *a.options.split()]
    command = [program("bayesref"), "merge", stream, "--spacegroup", "P 63", *flags, "--out", out]
    usage = run(command, folder / "merge.txt")
    row = {"program": "bayesref", "stills": f"{n:,}{' easy' if easy else ''}"}
    row |= score(out / "merged_0.mtz", folder / "truth.mtz")
    row |= {} if easy else images(out / "images.csv", folder / "images_truth.csv")
    return row | {"CPU s": round(usage.cpu), "peak MB": round(usage.peak)}


def merge_careless(n: int, a) -> dict:
    """A row of the table: careless on the easy stills."""
    folder = simulate(n, a, easy=True)
    flags = ["--spacegroups", "P 63", "--image-layers=1", "--studentt-likelihood-dof=16"]
    base = folder / "careless" / "merged"
    command = mono(
        CARELESS_METADATA, [folder / "serial.stream"], base, a.iterations, *flags, "--refine-uncertainties"
    )
    usage = run(command, folder / "careless.txt")
    row = {"program": f"careless, {a.iterations:,} iterations", "stills": f"{n:,} easy"}
    row |= score(base.with_name("merged_0.mtz"), folder / "truth.mtz")
    return row | {"CPU s": round(usage.cpu), "peak MB": round(usage.peak)}


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--images", type=int, nargs="+", default=[500, 2000])
    p.add_argument("--dmin", type=float, default=3.0)
    p.add_argument("--seed", type=int, default=21)
    p.add_argument("--careless", action="store_true", help="beside careless, on the fewest of the images")
    p.add_argument("--iterations", type=int, default=2000, help="of careless")
    p.add_argument("--metadata", default="ewald_offset", help="of bayesref")
    p.add_argument("--options", default="", help="more options of `bayesref merge`, in one string")
    a = p.parse_args()
    rows = [merge(n, a, easy=False) for n in a.images]
    if a.careless:
        rows += [merge(min(a.images), a, easy=True), merge_careless(min(a.images), a)]
    table(rows)


if __name__ == "__main__":
    main()
