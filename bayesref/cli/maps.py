"""`bayesref maps`: two merged datasets and the dark model in, difference maps with their uncertainty out."""

import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from bayesref import programs
from bayesref._checks import InputError
from bayesref.cli.command import command_from
from bayesref.cli.tables import table, wide_console
from bayesref.data.merged import MergedData
from bayesref.data.series import TimeSeries
from bayesref.io.atomic import atomic_path, prepare_output
from bayesref.io.merged import check_against, read_merged, signed_columns
from bayesref.io.series import SeriesFiles, pair, read_series, rescaled
from bayesref.io.structure import read_structure
from bayesref.refinement.difference import (
    AmplitudeDifference,
    amplitude_difference,
    extrapolated,
    joint_difference,
)
from bayesref.refinement.states import DarkModel, fit_dark, to_model_scale
from bayesref.refinement.voxels import Voxels, difference_voxels, figure_of_merit, peaks
from bayesref.results.difference_maps import peak_table, plot_difference, write_difference_mtz, write_map
from bayesref.results.run import PACKAGES, plain, version_of, write_run

DATA = partial(typer.Option, rich_help_panel="Data")
MAPS = partial(typer.Option, rich_help_panel="Maps")
OUTPUT = partial(typer.Option, rich_help_panel="Output")


@dataclass(frozen=True, kw_only=True)
class MapsSettings:
    """What `bayesref maps` is asked to do; each field is an option and says what it is."""

    dark: Annotated[Path | None, DATA(help="Merged data without light (MTZ or mmCIF).")] = None
    light: Annotated[Path | None, DATA(help="Merged data after the light.")] = None
    differences: Annotated[
        Path | None,
        DATA(help="In place of both: differences_k.mtz of `bayesref merge --double-wilson-parents`."),
    ] = None
    model: Annotated[Path, DATA(help="Structure without light (PDB or mmCIF).", show_default=False)]
    labels: Annotated[str | None, DATA(metavar="F,SIGF", help="Columns.")] = None
    light_labels: Annotated[
        str | None, DATA(metavar="F,SIGF", help="Columns of the light data, where they differ.")
    ] = None
    dmin: Annotated[float | None, DATA(help="High-resolution limit, Å.")] = None

    k: Annotated[float, MAPS(min=0, help="Probabilities are of features above so many rms of the map.")] = 3.0
    draws: Annotated[int, MAPS(min=10, help="Draws that give the standard deviation of the map.")] = 100
    share: Annotated[
        str | None,
        MAPS(
            metavar="ALPHA[,SD]",
            help="Share of molecules that the light drives, with its standard deviation: also extrapolated amplitudes.",
        ),
    ] = None
    share_from: Annotated[
        Path | None,
        MAPS(
            help="posterior.nc of `bayesref kinetics`: the share at --delay, from the occupancy of the dark state."
        ),
    ] = None
    delay: Annotated[str | None, MAPS(help="Delay of the light data, for --share-from (10us).")] = None
    n_peaks: Annotated[int, MAPS("--peaks", min=1, help="Features to list.")] = 40
    threads: Annotated[int, MAPS(min=1, help="Threads.")] = 1
    seed: Annotated[int, MAPS(help="Of the random numbers.")] = 0

    out: Annotated[Path, OUTPUT("--out", "-o", help="Directory for the results.", show_default=False)]
    overwrite: Annotated[bool, OUTPUT("--overwrite", help="Replace files that are there already.")] = False
    quiet: Annotated[bool, OUTPUT("--quiet", "-q", help="Print nothing but errors.")] = False


def maps(settings: MapsSettings) -> None:
    """Difference maps between two datasets, with the standard deviation of every voxel.

    Each difference is weighed by its posterior given its error and the size that differences have at its resolution.
    Features are listed with the probability that they are real.

    Example: bayesref maps --dark off.mtz --light on.mtz --model off.pdb --out maps
    """
    begin = time.monotonic()
    console = wide_console(quiet=settings.quiet)
    torch.set_num_threads(settings.threads)
    alpha = share_draws(settings)
    out = prepare_output(settings.out, settings.overwrite)
    series, dark = read_pair(settings)
    crystal = read_structure(settings.model)
    check_against(dark, crystal, str(settings.model))
    series, dark = rescaled(series, dark, to_model_scale(crystal, dark))
    model = fit_dark(crystal, dark, programs.load("refine"))
    if settings.differences is None:
        difference = amplitude_difference(series.asu, series.F, series.SIGF, anisotropy_columns(model))
    else:
        difference = joint_difference(
            series.asu, *given_difference(settings.differences, settings.dmin, dark)
        )
    n = int(torch.isfinite(difference.sigma).sum())
    console.print(
        f"{n:,} reflections in both to {float(series.asu.dHKL.min()):.2f} Å; dark model R {model.R:.3f}; "
        f"mean weight of a difference {float(difference.weight[torch.isfinite(difference.sigma)].mean()):.2f}; "
        f"{int(difference.far.sum())} differences beyond 6 standard deviations left out.",
        highlight=False,
    )
    phase = model.F.angle()
    voxels = difference_voxels(
        difference, series.F[:, 0], model.G, model.V, phase, settings.draws, settings.seed
    )
    found = peaks(voxels, crystal, settings.n_peaks)
    write(settings, out, series, model, difference, voxels, alpha)
    rows = peak_table(found, voxels.rms, settings.k)
    with atomic_path(out / "peaks.csv") as temporary:
        rows.to_csv(temporary, index=False)
    plot_difference(rows, difference, settings.k, out / "difference.png")
    record = {
        "options": asdict(settings), "versions": {p: version_of(p) for p in PACKAGES}, "R": model.R, "reflections": n,
        "left_out": int(difference.far.sum()), "rms": voxels.rms, "sd": float(voxels.sd.mean()),
        "peaks": rows.to_dict("records"),
        "cost": {"seconds": time.monotonic() - begin, "cpu_seconds": time.process_time()},
    }  # fmt: skip
    write_run(plain(record), out / "run.json")
    show(console, rows, voxels, settings)
    console.print(f"Results are in {out}.")


def read_pair(settings: MapsSettings) -> tuple[TimeSeries, MergedData]:
    """Both datasets, and the dark one as merged data."""
    if settings.differences is not None:
        if settings.dark or settings.light:
            raise InputError("--differences takes the place of --dark and --light; give one or the other.")
        if settings.labels or settings.light_labels:
            raise InputError("--differences has columns of its own; leave --labels and --light-labels out.")
        f = settings.differences
        files = SeriesFiles(f, {0.0: f}, ("F_off", "SIGF_off"), light_labels=("F_on", "SIGF_on"))
    elif settings.dark is None or settings.light is None:
        raise InputError("Maps need --dark and --light, or --differences.")
    elif settings.dark == settings.light and settings.light_labels in (None, settings.labels):
        raise InputError(
            f"--dark and --light are both {settings.dark}; give two datasets, or name their columns with --labels and "
            "--light-labels."
        )
    else:
        files = SeriesFiles(
            settings.dark,
            {0.0: settings.light},
            pair(settings.labels),
            light_labels=pair(settings.light_labels),
        )
    return read_series(files, settings.dmin)


def given_difference(path: Path, dmin: float | None, dark: MergedData) -> tuple[torch.Tensor, torch.Tensor]:
    """DF and SIGDF of --differences on the rows and the scale of the dark data."""
    raw = read_merged(path, labels=("F_off", "SIGF_off"), dmin=dmin)
    DF, SIGDF = signed_columns(path, ("DF", "SIGDF"), dark.asu)
    factor = dark.value / raw.value
    return torch.where(torch.isfinite(DF), DF, 0.0) * factor, torch.where(
        torch.isfinite(DF), SIGDF, torch.inf
    ) * factor


def anisotropy_columns(model: DarkModel) -> torch.Tensor:
    """sᵀ U s for each anisotropy that symmetry allows, (hkl, n)."""
    basis = model.atoms.aniso_basis()
    one = torch.eye(len(basis), dtype=torch.float64)
    columns = [model.atoms.anisotropy(b).log() for b in one]
    return torch.stack(columns, 1) if columns else torch.zeros(len(model.G), 0, dtype=torch.float64)


def share_draws(settings: MapsSettings) -> torch.Tensor | None:
    """Draws of the share that the light drives, (draw,), or None."""
    if settings.share and settings.share_from:
        raise InputError("Give either --share or --share-from, not both.")
    if settings.share:
        try:
            values = [float(x) for x in settings.share.split(",")]
        except ValueError:
            values = []
        mean, sd = [*values, 0.0][:2] if len(values) in (1, 2) else (0.0, 0.0)
        if not (0 < mean <= 1 and 0 <= sd < 0.5 * mean):
            raise InputError(
                f"--share is {settings.share}; expected a share above 0 and at most 1 and, optionally, a standard "
                "deviation below half of it, such as 0.2,0.03."
            )
        g = torch.Generator().manual_seed(settings.seed)
        x = mean + sd * torch.randn(4000, generator=g, dtype=torch.float64)
        return x[(x > 0.2 * mean) & (x <= 1)]
    if settings.share_from:
        return shares_of(settings.share_from, settings.delay)
    if settings.delay:
        raise InputError("--delay says which of --share-from to take; add that, or leave it out.")
    return None


def shares_of(path: Path, delay: str | None) -> torch.Tensor:
    """1 - occupancy of the dark state at a delay, from the draws of `bayesref kinetics`."""
    import xarray

    from bayesref.kinetics.units import seconds

    if not path.is_file():
        raise InputError(f"There is no file {path}; --share-from takes posterior.nc of `bayesref kinetics`.")
    try:
        opened = xarray.open_dataset(path, group="posterior")
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is no posterior.nc of `bayesref kinetics`; give that file.") from error
    with opened as draws:
        if "occupancy" not in draws or "dark" not in draws.attrs:
            raise InputError(f"{path} holds no occupancies of `bayesref kinetics`; give its posterior.nc.")
        known = draws["delay"].values
        if delay is None:
            raise InputError(
                f"--share-from needs --delay; {path} has {', '.join(f'{t:g} s' for t in known)}."
            )
        t = seconds(delay)
        i = int(abs(known - t).argmin())
        if abs(known[i] - t) > 1e-6 * max(abs(t), 1e-15):
            raise InputError(f"{path} has no delay {delay}; it has {', '.join(f'{x:g} s' for x in known)}.")
        x = 1 - draws["occupancy"].sel(state=draws.attrs["dark"]).isel(delay=i).values.reshape(-1)
    return torch.from_numpy(x).double().clamp(min=1e-3)


def write(
    settings, out, series, model: DarkModel, difference: AmplitudeDifference, voxels: Voxels, alpha
) -> None:
    """The MTZ and the maps."""
    F, SIGF, asu = series.F, series.SIGF, series.asu
    phase = torch.rad2deg(model.F.angle())
    fom = figure_of_merit(F[:, 0], model.G, model.V, asu.centric)
    gone = torch.isinf(difference.sigma)
    blank = lambda x: torch.where(gone, torch.nan, x)  # noqa: E731
    turned = lambda x: torch.where(x < 0, torch.remainder(phase + 360, 360) - 180, phase)  # noqa: E731
    coefficient = fom * difference.mean
    columns = {
        ("F_DARK", "F"): F[:, 0], ("SIGF_DARK", "Q"): SIGF[:, 0],
        ("F_LIGHT", "F"): blank(F[:, 1] / difference.scale), ("SIGF_LIGHT", "Q"): blank(SIGF[:, 1] / difference.scale),
        ("DF", "D"): blank(difference.d), ("SIGDF", "Q"): difference.sigma,
        ("WDF", "D"): difference.mean, ("SIGWDF", "Q"): difference.sd,
        ("PHIC", "P"): phase, ("FOM", "W"): fom,
        ("FDIFF", "F"): coefficient.abs(), ("PHDIFF", "P"): turned(coefficient),
    }  # fmt: skip
    if alpha is not None:
        FEXT, SIGFEXT = extrapolated(difference, F, SIGF, alpha)
        m = figure_of_merit(FEXT, model.G, model.V + SIGFEXT**2, asu.centric)
        twice = torch.where(asu.centric, m * FEXT, 2 * m * FEXT - model.G)
        twice = torch.where(torch.isinf(SIGFEXT), model.G, twice)
        missing = torch.isinf(SIGFEXT)
        columns |= {
            ("FEXT", "F"): torch.where(missing, torch.nan, FEXT), ("SIGFEXT", "Q"): SIGFEXT,
            ("FEXTWT", "F"): twice.abs(), ("PHEXTWT", "P"): turned(twice),
        }  # fmt: skip
    write_difference_mtz(asu, columns, out / "difference.mtz")
    for name, values in (
        ("difference", voxels.mean),
        ("difference_sd", voxels.sd),
        ("probability", voxels.probability(settings.k)),
    ):
        write_map(voxels.grid, values, out / f"{name}.ccp4")


def show(console, rows, voxels: Voxels, settings: MapsSettings) -> None:
    """The highest features."""
    console.print(
        f"Mean map: rms {voxels.rms:.4f} e/Å³; standard deviation of a voxel "
        f"{float(voxels.sd.mean()) / voxels.rms:.2f} rms.", highlight=False,
    )  # fmt: skip
    t = table("Features", "height (rms)", "sd", f"P(> {settings.k:g} rms)", "atom", "distance (Å)")
    for r in rows.head(12).to_dict("records"):
        t.add_row(
            f"{r['height']:+.1f}",
            f"{r['sd']:.1f}",
            f"{r['probability']:.3f}",
            r["atom"],
            f"{r['distance']:.1f}",
        )
    console.print(t)


command = command_from(MapsSettings, maps)
