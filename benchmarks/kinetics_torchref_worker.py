"""torchref's refinement of simulated series: rates, or occupancies of each delay, with standard errors.

Run by kinetics_torchref.py, one process of torchref's environment for each job; reads the folder that
`write_series` made (PDB files of the states, an MTZ file of each dataset) and prints one line of JSON.

    kinetics      KineticRefinement.refine_kinetics with its default weights: rates and the share that is activated
    differences   the same without its target of absolute amplitudes
    occupancies   KineticRefinement.refine_fractions, the dark dataset and one delay at a time
    program       torchref.difference-refine --refine-fractions, likewise; refines the light model too (one light state)

    r_i(h) = [(F_i - F̄) - (|F_calc,i| - F̄_calc)] / σ_i        dataset i of N, F̄ the mean over all: its difference target
    C = (JᵀJ)⁻¹ r·r / ((N - 1) n_hkl - n)                     J = ∂r/∂θ of n parameters at its minimum

torchref states no errors: C is what its own residuals give. Structures stay as they are in the files, as in the other
two programs, so structure factors are calculated once (its targets would calculate them anew at every step).
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import gemmi
import numpy as np
import torch

STARTS = ((7.0, 5.0), (8.0, 4.0), (6.0, 3.0), (9.0, 6.0))  # log k, those of the point estimate
STEPS, RATE = 100, 0.1  # of its Adam; then half as many of a tenth of the length
FAST = 1e7  # 1/s, of the excitation A -> B, which its schemes need and which is over at every delay


class Series:
    """What the folder holds: models of the states, dark first, and the table of series.toml."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.table = tomllib.loads((folder / "series.toml").read_text())
        self.t = [float(x["delay"].split()[0]) for x in self.table["light"]]
        self.files = [x["file"].removesuffix(".mtz") for x in self.table["light"]]
        self.states = list(self.table["states"])

    def refinement(self, files, **weights):
        """KineticRefinement of the dark dataset and `files`; a fifth of the molecules is excited to begin with."""
        from torchref import DatasetCollection
        from torchref.cli._common import load_model, load_reflection_data
        from torchref.experimental.kinetic import KineticRefinement, ModelCollection

        data = DatasetCollection(device="cpu")
        data.add_dataset("dark", load_reflection_data(str(self.folder / "dark.mtz"), device="cpu"))
        for file in files:
            data.add_dataset(file, load_reflection_data(str(self.folder / f"{file}.mtz"), device="cpu"))
        data.scale()
        dmin = gemmi.read_mtz_file(str(self.folder / "dark.mtz")).resolution_high()
        paths = [str(self.folder / self.table["states"][s]) for s in self.states]
        models = [keep_structure_factors(load_model(p, max_res=dmin, device="cpu")) for p in paths]
        models = ModelCollection(models, verbose=0)
        models.add_dark()
        n = len(self.states) - 1
        for file in files:
            models.add_timepoint(file, [0.8, *[0.2 / n] * n])
        return KineticRefinement(data, models, verbose=0, **weights)


def keep_structure_factors(model):
    """The model, which stays as it is, with its structure factors calculated once for each list of indices."""
    known, calculate = {}, model.forward

    def forward(hkl, *args, **options):
        key = hkl.numpy().tobytes()
        if key not in known:
            with torch.no_grad():
                known[key] = calculate(hkl, *args, **options)
        return known[key]

    model.forward = forward
    return model


def residuals(refinement, fractions: dict) -> np.ndarray:
    """r of its difference target, work set, with the given fractions of each dataset."""
    models, target = refinement.model_collection, refinement._diff_target
    for name, value in fractions.items():
        models[name].set_fraction_override(value)
    with torch.no_grad():
        x = target._loss_inputs()
    for name in fractions:
        models[name].clear_fraction_override()
    n = len(x.keys)
    variance = x.sigma**2 * (1 - 2 / n) + (x.sigma**2).sum(0) / n**2
    r = ((x.obs - x.obs.mean(0)) - (x.model - x.model.mean(0))) / variance.sqrt()
    return r[:, x.mask[0]].double().numpy().ravel()


def covariance(refinement, of, theta: np.ndarray) -> np.ndarray:
    """C of parameters theta, where of(theta) are the fractions."""
    step = 1e-3
    J = np.stack(
        [
            (residuals(refinement, of(theta + e)) - residuals(refinement, of(theta - e))) / (2 * step)
            for e in step * np.eye(len(theta))
        ],
        1,
    )
    r = residuals(refinement, of(theta))
    n = len(refinement.dataset_collection.keys())
    return np.linalg.pinv(J.T @ J) * (r @ r) / (len(r) * (n - 1) / n - len(theta))


def kinetics(series: Series, **weights) -> dict:
    """Rates by its `refine_kinetics` from several starts; the one of the least loss is kept."""
    from torchref.experimental.kinetic import occupancies_kinetics

    flow = "A->B,B->C,C->A" if len(series.states) == 3 else "A->B,B->A"
    slow = flow.split(",")[1:]
    refinement = series.refinement(series.files, **weights)
    found = []
    for start in STARTS:
        scheme = occupancies_kinetics(
            flow, series.t, light_activated=True, activation_level=0.2, verbose=0,
            rate_constants={"A->B": FAST} | dict(zip(slow, np.exp(start).tolist(), strict=False)),
        )  # fmt: skip
        scheme.kinetics.set_baseline("A", 0.8, refinable=True)
        if refinement.loss_state is None:
            index = {f: i for i, f in enumerate(series.files)}
            refinement.setup(kinetic_model=scheme, timepoints_map=index)
        refinement._kinetic_model = scheme
        refinement.refine_kinetics(niter=STEPS, lr=RATE)
        refinement.refine_kinetics(niter=STEPS // 2, lr=RATE / 10)
        found.append((loss_of(refinement, scheme, series.files), scheme))
    _, scheme = min(found, key=lambda x: x[0])
    inner = scheme.kinetics
    baseline = inner._baseline_A

    def fractions(theta):
        with torch.no_grad():
            inner.log_rate_constants[1:] = torch.tensor(theta[:-1], dtype=torch.float32)
            baseline.fill_(float(theta[-1]))
            o = scheme()
        return {f: o[:, i] for i, f in enumerate(series.files)}

    theta = np.append(inner.log_rate_constants.detach()[1:].double().numpy(), float(baseline))
    C = covariance(refinement, fractions, theta)
    return {
        "log_k": theta[:-1].tolist(), "sd": np.sqrt(np.diag(C)[:-1]).tolist(),
        "activation": 1 / (1 + float(np.exp(theta[-1]))), "losses": [x[0] for x in found],
    }  # fmt: skip


def loss_of(refinement, scheme, files) -> float:
    """What `refine_kinetics` makes least."""
    models, w = refinement.model_collection, refinement._weights
    with torch.no_grad():
        o = scheme()
        for i, f in enumerate(files):
            models[f].set_fraction_override(o[:, i])
        total = w["xray/difference"] * refinement._diff_target() + w["xray/ml"] * refinement._ml_target()
        for f in files:
            models[f].clear_fraction_override()
    return float(total)


def occupancies(series: Series) -> dict:
    """Fractions of each delay by its `refine_fractions`, dark and that delay alone, without the dark state's."""
    found, C = [], []
    for file in series.files:
        refinement = series.refinement([file])
        refinement.setup()
        refinement.model_collection.unfreeze_all_fractions()
        refinement.refine_fractions()
        o = refinement.model_collection[file].fractions.detach()[1:].double().numpy()

        def fractions(theta, file=file):
            return {file: torch.tensor([1 - theta.sum(), *theta], dtype=torch.float32)}

        found.append(o.tolist())
        C.append(covariance(refinement, fractions, o).tolist())
    return {"occupancy": found, "covariance": C}


def program(series: Series, cycles: int = 3) -> dict:
    """Fraction of each delay by its command `torchref.difference-refine`."""
    found = []
    binary = Path(sys.executable).parent / "torchref.difference-refine"
    for file in series.files:
        out = series.folder / f"program_{file}"
        models = [str(series.folder / series.table["states"][s]) for s in series.states]
        command = [binary, "-dm", models[0], "-lm", models[1], "-dsf", series.folder / "dark.mtz"]
        command += ["-lsf", series.folder / f"{file}.mtz", "--fraction", "0.2", "--refine-fractions"]
        command += ["--n-cycles", str(cycles), "--device", "cpu", "-v", "0", "-o", out]
        subprocess.run([str(x) for x in command], check=True, stdout=sys.stderr)
        summary = json.loads(next(out.glob("*_summary.json")).read_text())
        found.append(summary["results"]["fractions"][1:])
    return {"occupancy": found}


if __name__ == "__main__":
    what = {
        "kinetics": kinetics,
        "differences": lambda s: kinetics(s, xray_weight_ml=0.0),
        "occupancies": occupancies,
        "program": program,
    }
    print(json.dumps(what[sys.argv[1]](Series(Path(sys.argv[2])))))
