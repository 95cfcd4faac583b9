"""Related datasets: is r found, are differences honest, and what is gained over merging each dataset alone?

    python benchmarks/double_wilson.py [--r 0.5 0.9 0.99] [--seeds 1]
    python benchmarks/double_wilson.py --pyp [--careless FOLDER]

Simulated pairs: F_on = |r F_off + √(1 - r²) F_new|, two files of spots with known scales and errors. `oracle` is the
exact posterior for one who knows r, scales and errors, with the tree and with r = 0: no program can do better on
average, and the ratio of the two errors is what the prior can gain. Photoactive yellow protein: the height of the
largest feature within 3 Å of the chromophore (HC4 69) in the difference map, in standard deviations of the map.
--careless names the folder of its pyp_0.mtz and pyp_1.mtz (merge_cost.py makes them).
"""

from pathlib import Path

from common import Usage, parser, program, run, table

KEYS = "X,Y,Wavelength,dHKL,Hobs,Kobs,Lobs"
NEAR = 3.0  # Å


def simulate(r: float, seed: int, folder: Path) -> dict:
    """Two unmerged files and the truth: {h, F (2, hkl), epsilon, centric, a and b (2, hkl) of the likelihoods}."""
    import gemmi
    import numpy as np
    import reciprocalspaceship as rs

    rng = np.random.default_rng(seed)
    cell, group = gemmi.UnitCell(28, 36, 43, 90, 90, 90), gemmi.SpaceGroup("P 21 21 21")
    h = rs.utils.generate_reciprocal_asu(cell, group, 2.3, False)
    ops = group.operations()
    h = h[~ops.systematic_absences(h.astype(np.int32))].astype(np.int32)
    epsilon, centric = ops.epsilon_factor_without_centering_array(h), ops.centric_flag_array(h)
    s2, n = 0.25 / cell.calculate_d_array(h) ** 2, len(h)

    def draw():
        z = (rng.normal(size=n) + 1j * rng.normal(size=n)) / 2**0.5
        return np.sqrt(epsilon) * np.where(centric, rng.normal(size=n), z)

    off = draw()
    F = np.abs([off, r * off + np.sqrt(1 - r * r) * draw()])
    likelihood = np.zeros((2, 2, n))
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(2):
        i = np.repeat(np.arange(n), rng.poisson(4, size=n))
        image = rng.integers(0, 60, size=len(i))
        u = image / 60
        K = 300 * (1 + 0.3 * np.cos(2 * np.pi * u + k)) * np.exp(-2 * (12 + 5 * u) * s2[i]) * (1 + 0.2 * k)
        true = K * F[k][i] ** 2
        sd = np.sqrt(60**2 + 4 * true + (0.03 * true) ** 2)
        intensity = true + sd * rng.normal(size=len(i))
        likelihood[k] = [np.bincount(i, x, n) for x in (K**2 / sd**2, K * intensity / sd**2)]
        columns = {"I": intensity, "SIGI": sd, "BATCH": image + 1}
        data = rs.DataSet(
            dict(zip("HKL", h[i].T, strict=True)) | columns, cell=cell, spacegroup=group, merged=False
        )
        types = dict.fromkeys("HKL", "H") | {"I": "J", "SIGI": "Q", "BATCH": "B"}
        data.astype(types).set_index(["H", "K", "L"]).write_mtz(str(folder / f"{('off', 'on')[k]}.mtz"))
    return {
        "h": h,
        "F": F,
        "epsilon": epsilon,
        "centric": centric,
        "a": likelihood[:, 0],
        "b": likelihood[:, 1],
    }


def oracle(truth: dict, r: float):
    """Mean and sd of F_on - F_off for one who knows scales and errors, (hkl,) each."""
    import numpy as np
    import torch

    from bayesref.distributions import WilsonTree, bracket, legendre, nodes
    from bayesref.distributions.wilson_tree_nodes import solve

    n = len(truth["h"])
    both = {k: torch.from_numpy(np.repeat(truth[k], 2)) for k in ("epsilon", "centric")}
    a, b = (torch.from_numpy(truth[k].T.reshape(-1).copy()) for k in "ab")
    parent = torch.stack([torch.full((n,), -1), 2 * torch.arange(n)], 1).reshape(-1)
    tree = WilsonTree(both["epsilon"].double(), both["centric"], parent, torch.full((2 * n,), r).double())

    def log_L(F):
        return F**2 * (b - 0.5 * a * F**2)

    lo, hi = tree.interval(20.0)
    if r:  # as far as the row's own spots or its relative's allow
        single = bracket(lambda F: log_L(F) + tree.marginal.log_prob(F), lo, hi, drop=25.0)
        lo, hi = (x.reshape(n, 2) for x in single)
        lo, hi = (x[:, None].expand(n, 2).reshape(-1) for x in (0.5 * lo.amin(1), hi.amax(1)))

    def place(N):
        return nodes(lo, hi, N), (legendre(N)[1][:, None] * 0.5 * (hi - lo)).log()

    F, _ = place(96)
    posterior = solve(tree, log_L(F), place)
    mean, C = (posterior.weight * F).sum(0), posterior.covariance
    variance = C[0::2, 0] + C[1::2, 1] - 2 * C[1::2, 0]
    return (mean[1::2] - mean[0::2]).numpy(), variance.sqrt().numpy()


def one(r: float, seed: int, a) -> list[dict]:
    """Rows of the table: the tree, each dataset alone, and the two oracles."""
    import numpy as np

    folder = a.work / "double_wilson" / f"{r}_{seed}"
    truth = simulate(r, seed, folder)
    rows = []
    for name, flags in (("related", ["--double-wilson-parents", "None,0"]), ("alone", [])):
        command = [
            program("bayesref"),
            "merge",
            folder / "off.mtz",
            folder / "on.mtz",
            "--separate-files",
            *flags,
        ]
        usage = run(
            [*command, "-m", "BATCH,dHKL", "--out", folder / name, "--overwrite"], folder / f"{name}.txt"
        )
        h, D, s = measured(folder / name, related=bool(flags))
        rows.append(
            score(name, r, seed, truth, h, D, s) | found(folder / name) | {"CPU s": round(usage.cpu, 1)}
        )
    seen = (truth["a"] > 0).all(0)
    for name, known in (("related", r), ("alone", 0.0)):
        D, s = oracle(truth, known)
        rows.append(score(f"oracle, {name}", r, seed, truth, truth["h"][seen], D[seen], s[seen]))
    gain, best = rows[1]["rms error"] / rows[0]["rms error"], rows[3]["rms error"] / rows[2]["rms error"]
    rows[0]["gain"], rows[2]["gain"] = round(float(gain), 4), round(float(best), 4)
    assert np.isfinite([gain, best]).all()
    return rows


def measured(folder: Path, related: bool):
    """Indices, differences and their sd."""
    import numpy as np
    import reciprocalspaceship as rs

    if related:
        d = rs.read_mtz(str(folder / "differences_1.mtz"))
        return d.get_hkls(), d["DF"].to_numpy(float), d["SIGDF"].to_numpy(float)
    off, on = (rs.read_mtz(str(folder / f"merged_{k}.mtz"))[["F", "SIGF"]] for k in (0, 1))
    d = on.join(off, how="inner", lsuffix="_on", rsuffix="_off")
    F1, s1, F0, s0 = (d[k].to_numpy(float) for k in ("F_on", "SIGF_on", "F_off", "SIGF_off"))
    return d.get_hkls(), F1 - F0, np.hypot(s1, s0)


def score(name, r, seed, truth, h, D, s) -> dict:
    """Root mean square error, what the sd says it is, and how honest that is."""
    import numpy as np

    place = {tuple(x): i for i, x in enumerate(truth["h"].tolist())}
    i = np.array([place[tuple(x)] for x in np.asarray(h).tolist()])
    true = truth["F"][1][i] - truth["F"][0][i]
    k = np.sum(true * D / s**2) / np.sum(D**2 / s**2) if not name.startswith("oracle") else 1.0
    error = D - true
    return {
        "r": r, "seed": seed, "merged": name, "n": len(D), "rms error": round(float(np.sqrt(np.mean(error**2))), 4),
        "rms SIGDF": round(float(np.sqrt(np.mean(s**2))), 4), "z2": round(float(np.mean((error / s) ** 2)), 3),
        "cover90": round(float(np.mean(np.abs(error) < 1.6449 * s)), 4),
        "cc": round(float(np.corrcoef(D, true)[0, 1]), 4), "slope": round(float(k), 3),
    }  # fmt: skip


def found(folder: Path) -> dict:
    """r and its sd, where it was learned."""
    import json

    sites = json.loads((folder / "run.json").read_text())["sites"]
    return {f"r {k}": round(sites["r_1"][k], 4) for k in ("mean", "sd")} if "r_1" in sites else {}


def pyp(a) -> list[dict]:
    """Rows of the table of difference maps."""
    folder, data = a.work / "double_wilson" / "pyp", a.data / "pyp"
    command = [
        program("bayesref"),
        "merge",
        data / "off.mtz",
        data / "2ms.mtz",
        "--separate-files",
        "-m",
        KEYS,
    ]
    command += ["--half-datasets", 1, "--overwrite"]
    rows = []
    for name, flags in (("related", ["--double-wilson-parents", "None,0"]), ("alone", [])):
        usage = Usage(0, 0, 0)
        if not (folder / name / "run.json").exists():
            usage = run([*command, *flags, "--out", folder / name], folder / f"{name}.txt")
        h, D, s = measured(folder / name, related=bool(flags))
        merged = folder / name / "merged_0.mtz"
        rows.append({"program": f"bayesref, {name}"} | maps(h, D, s, merged, a) | found(folder / name))
        rows[-1]["CPU s"] = round(usage.cpu, 1)
    if a.careless:
        h, D, s = careless_differences(a.careless)
        rows.append({"program": "careless 0.5.4"} | maps(h, D, s, a.careless / "pyp_0.mtz", a))
    return rows


def careless_differences(folder: Path):
    """F_on - F_off of its amplitudes, F_on first brought to the scale k exp(-B s²) of F_off."""
    import numpy as np
    import reciprocalspaceship as rs

    off, on = (rs.read_mtz(str(folder / f"pyp_{k}.mtz"))[["F", "SigF"]] for k in (0, 1))
    d = on.join(off, how="inner", lsuffix="_on", rsuffix="_off")
    F1, s1, F0, s0 = (d[k].to_numpy(float) for k in ("F_on", "SigF_on", "F_off", "SigF_off"))
    s2 = 0.25 / d.compute_dHKL()["dHKL"].to_numpy(float) ** 2
    k = scale_to(F1, F0, s1, s2)
    return d.get_hkls(), k * F1 - F0, np.hypot(k * s1, s0)


def scale_to(F, target, sigma, s2):
    """k exp(-B s²) that brings F to the target by least squares, (hkl,)."""
    import numpy as np
    from scipy.optimize import least_squares

    x = np.array([np.log(np.sum(F * target) / np.sum(F**2)), 0.0])
    x = least_squares(
        lambda p: (np.exp(p[0] - p[1] * s2) * F - target) / np.median(target), x, loss="soft_l1"
    ).x
    return np.exp(x[0] - x[1] * s2)


def maps(h, D, s, merged: Path, a) -> dict:
    """Height of the features near the chromophore, in sd of the map, without and with weights.

    Differences are brought to the model's scale, weights are 1/(1 + s²/⟨s²⟩ + D²/⟨D²⟩).
    """
    import gemmi
    import numpy as np
    import reciprocalspaceship as rs

    model = gemmi.read_structure(str(a.data / "pyp" / "off.pdb"))
    dark = rs.read_mtz(str(merged))
    d_min = float(dark.compute_dHKL()["dHKL"].min()) - 1e-3
    calculator = gemmi.DensityCalculatorX()
    calculator.d_min = d_min
    calculator.grid.setup_from(model)
    calculator.set_refmac_compatible_blur(model[0])
    calculator.put_model_density_on_grid(model[0])
    grid = gemmi.transform_map_to_f_phi(calculator.grid)

    def calculated(hkl):
        value = np.array([grid.get_value(*(int(i) for i in x)) for x in hkl])
        return value * np.exp(
            calculator.blur * 0.25 / model.cell.calculate_d_array(np.asarray(hkl, np.int32)) ** 2
        )

    s2 = 0.25 / model.cell.calculate_d_array(np.asarray(h, np.int32)) ** 2
    F = dark.loc[list(map(tuple, np.asarray(h).tolist()))]["F"].to_numpy(float)
    model_F = calculated(h)
    k = scale_to(F, np.abs(model_F), np.ones_like(F), s2)
    D, s, phase = k * D, k * s, np.angle(model_F)
    weights = 1 / (1 + s**2 / np.mean(s**2) + D**2 / np.mean(D**2))
    return {
        "n": len(D), "height": _height(model, h, D, phase), "height, weighted": _height(model, h, weights * D, phase),
    }  # fmt: skip


def _height(model, h, D, phase) -> float:
    """Largest |Δρ| near the chromophore over the sd of the map."""
    import gemmi
    import numpy as np

    group = gemmi.SpaceGroup(model.spacegroup_hm)
    data = gemmi.ComplexAsuData(
        model.cell, group, np.asarray(h, np.int32), (D * np.exp(1j * phase)).astype(np.complex64)
    )
    grid = data.transform_f_phi_to_map(sample_rate=3.0)
    array = np.array(grid, copy=False)
    grid.normalize()
    mask = gemmi.Int8Grid(grid.nu, grid.nv, grid.nw)
    mask.set_unit_cell(model.cell)
    mask.spacegroup = group
    for residue in (r for c in model[0] for r in c if r.name == "HC4"):
        for atom in residue:
            mask.set_points_around(atom.pos, radius=NEAR, value=1)
    return round(float(np.abs(array[np.array(mask, copy=False) > 0]).max()), 2)


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--r", type=float, nargs="+", default=[0.5, 0.9, 0.99])
    p.add_argument("--seeds", type=int, nargs="+", default=[1])
    p.add_argument("--pyp", action="store_true", help="the real data instead")
    p.add_argument("--careless", type=Path, help="folder of careless's pyp_0.mtz and pyp_1.mtz")
    a = p.parse_args()
    table(pyp(a) if a.pyp else [row for r in a.r for seed in a.seeds for row in one(r, seed, a)])


if __name__ == "__main__":
    main()
