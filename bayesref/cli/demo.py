"""`bayesref demo`: two time points with known amplitudes, merged and compared with the truth.

    z = (k F - F_true)/(k SIGF),      k: one scale per dataset, by weighted least squares

A posterior is honest when the mean of z² is 1 and its 50 and 90 % intervals hold 50 and 90 % of the truth.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import reciprocalspaceship as rs
import typer
from rich.console import Console
from scipy.special import ndtri

from bayesref.cli.command import command_from
from bayesref.cli.kinetics import KineticsSettings, kinetics
from bayesref.cli.merge import merge
from bayesref.cli.options import MergeSettings
from bayesref.cli.resume import stop_with
from bayesref.cli.simulate_kinetics import SeriesSettings
from bayesref.cli.simulate_kinetics import kinetics as simulate_kinetics
from bayesref.cli.tables import table
from bayesref.data.simulate import simulate_merge
from bayesref.io.atomic import atomic_path, prepare_output
from bayesref.io.simulation import write_simulation
from bayesref.kinetics.kinetics import Kinetics
from bayesref.kinetics.units import per_second

OPTION = partial(typer.Option, show_default=True)


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Options of `bayesref demo`."""

    out: Annotated[Path, OPTION("--out", "-o", help="Directory for everything.")] = Path("demo")
    dmin: Annotated[float, OPTION(help="Resolution limit, Å; more reflections take longer.")] = 2.2
    multiplicity: Annotated[float, OPTION(help="Mean number of spots per reflection.")] = 8.0
    seed: Annotated[int, OPTION(help="Of the random numbers.")] = 1
    kinetics: Annotated[bool, OPTION(help="End with a pump-probe series and its rates.")] = True
    overwrite: Annotated[bool, OPTION("--overwrite", help="Replace the results of an earlier run.")] = False


@dataclass(frozen=True)
class Truth:
    """Posterior against truth, on the scale of the truth; one row per reflection.

    Attributes
    ----------
    F, SIGF : (hkl,) posterior mean and standard deviation
    true : (hkl,) amplitude that was simulated
    """

    F: np.ndarray
    SIGF: np.ndarray
    true: np.ndarray

    @property
    def z(self) -> np.ndarray:
        return (self.F - self.true) / self.SIGF

    def cover(self, q: float) -> float:
        """Share of the truth inside the central interval of probability q of a normal posterior."""
        return float(np.mean(np.abs(self.z) < ndtri(0.5 + 0.5 * q)))

    def figures(self) -> list[str]:
        """Correlation, coverage of 50 and 90 %, mean z², rms error and rms SIGF."""
        rms = (np.sqrt(np.mean(x**2)) for x in (self.F - self.true, self.SIGF))
        values = [np.corrcoef(self.F, self.true)[0, 1], self.cover(0.5), self.cover(0.9), np.mean(self.z**2)]
        return [f"{v:.3f}" for v in (*values, *rms)]


def demo(settings: DemoSettings) -> None:
    """Simulate two time points and merge them, then a pump-probe series, merged, with its rates; compare with truth.

    The amplitudes of the two datasets correlate by 0.95, as those before and after a small structural change. The
    series has three states and eight delays. Takes two or three minutes.
    """
    out, console = prepare_output(settings.out, settings.overwrite), Console()
    simulation = simulate_merge(
        n_datasets=2, r=0.95, dmin=settings.dmin, multiplicity=settings.multiplicity, seed=settings.seed
    )
    unmerged, truth = write_simulation(simulation, out / "simulated", settings.overwrite)
    console.print(f"Simulated, with seed {settings.seed}:\n{simulation}\n", highlight=False)
    merge(
        MergeSettings(
            files=unmerged,
            out=out / "merged",
            metadata="BATCH,X,Y,dHKL",
            separate_files=True,
            half_datasets=1,
            seed=settings.seed,
            overwrite=settings.overwrite,
        )
    )
    stop_with(out / "merged")
    tables = [compare(out / "merged" / f"merged_{t}.mtz", path) for t, path in enumerate(truth)]
    change = difference(*tables)
    sets = {"F, first": as_truth(tables[0]), "F, second": as_truth(tables[1]), "difference": change}
    t = table(
        "Truth against posterior",
        "",
        "correlation",
        "cover 50 %",
        "cover 90 %",
        "mean z²",
        "rms error",
        "rms SIGF",
    )
    for name, x in sets.items():
        t.add_row(name, *x.figures())
    t.add_row("ideal", "", "0.500", "0.900", "1.000", "", "")
    console.print("", t, sep="\n")
    console.print(
        f"The true differences have an rms of {np.sqrt(np.mean(change.true**2)):.3f}.", highlight=False
    )
    plot(out / "demo.png", sets)
    console.print(
        f"Plot in {out / 'demo.png'}; spots and truth in {out / 'simulated'}, results in {out / 'merged'}."
    )
    if settings.kinetics:
        series(settings, out, console)


def series(settings: DemoSettings, out: Path, console: Console) -> None:
    """A pump-probe series of three states and eight delays, spots: merged together, then rates and occupancies."""
    console.print("\n[bold]A pump-probe series[/bold]: A, excited to B, returns by way of C\n")
    asked = SeriesSettings(
        out=out / "series",
        dmin=settings.dmin + 0.4,
        atoms=120,
        multiplicity=settings.multiplicity,
        seed=settings.seed,
        overwrite=settings.overwrite,
    )
    simulate_kinetics(asked)
    kinetics(
        KineticsSettings(
            series=out / "series" / "series.toml", out=out / "kinetics", starts=2, draws=200, seed=settings.seed,
            overwrite=settings.overwrite,
        )
    )  # fmt: skip
    found = pd.read_csv(out / "kinetics" / "rates.csv").set_index("parameter")
    rates = [per_second(x) for x in asked.rates.split(",")]
    truths = dict(zip((f"k {name}" for name in Kinetics(asked.scheme).rates), rates, strict=True))
    t = table("Truth against posterior", "", "truth", "median", "90 % from", "to")
    for name, true in (truths | {"activation": asked.activation}).items():
        t.add_row(name, f"{true:g}", *(f"{found.loc[name, c]:.4g}" for c in ("median", "low", "high")))
    console.print("", t, f"Occupancies over time: {out / 'kinetics' / 'kinetics.png'}.", sep="\n")


def compare(merged: Path, truth: Path) -> rs.DataSet:
    """Rows F SIGF FTRUE of the reflections of both files, F on the scale of FTRUE."""
    both = rs.read_mtz(str(truth))[["FTRUE"]].join(rs.read_mtz(str(merged))[["F", "SIGF"]], how="inner")
    F, SIGF, true = (both[c].to_numpy(float) for c in ("F", "SIGF", "FTRUE"))
    k = np.sum(true * F / SIGF**2) / np.sum(F**2 / SIGF**2)
    both["F"], both["SIGF"] = k * F, k * SIGF
    return both


def as_truth(both: rs.DataSet) -> Truth:
    """The columns of `compare` as arrays."""
    return Truth(*(both[c].to_numpy(float) for c in ("F", "SIGF", "FTRUE")))


def difference(first: rs.DataSet, second: rs.DataSet) -> Truth:
    """Second minus first dataset, their errors taken as independent."""
    both = first.join(second, how="inner", lsuffix="1", rsuffix="2")
    F, true = ((both[f"{c}2"] - both[f"{c}1"]).to_numpy(float) for c in ("F", "FTRUE"))
    return Truth(F, np.hypot(*(both[f"SIGF{i}"].to_numpy(float) for i in (1, 2))), true)


def plot(path: Path, sets: dict[str, Truth]) -> None:
    """Posterior with error bars against truth, and the coverage of every central interval."""
    from matplotlib.figure import Figure  # takes a second, which other commands save

    figure = Figure(figsize=(4 * (len(sets) + 1), 4), layout="constrained")
    axes = figure.subplots(1, len(sets) + 1)
    q = np.linspace(0.02, 0.98, 49)
    for ax, (name, x) in zip(axes, sets.items(), strict=False):
        some = np.linspace(0, len(x.F) - 1, min(400, len(x.F))).astype(int)
        ax.errorbar(x.true[some], x.F[some], x.SIGF[some], fmt=".", ms=3, lw=0.5, alpha=0.6)
        ax.axline((0, 0), slope=1, color="k", lw=0.8)
        ax.set(title=name, xlabel="true", ylabel="posterior mean ± SIGF")
        axes[-1].plot(q, [x.cover(p) for p in q], label=name)
    axes[-1].axline((0, 0), slope=1, color="k", lw=0.8)
    axes[-1].set(
        title="calibration", xlabel="probability of the interval", ylabel="share of the truth inside"
    )
    axes[-1].legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


command = command_from(DemoSettings, demo)
