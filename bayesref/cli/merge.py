"""`bayesref merge`: unmerged intensities in, posterior amplitudes out."""

import time
from dataclasses import asdict, replace
from functools import partial

import torch
from rich.console import Console

from bayesref._checks import InputError
from bayesref.cli.command import command_from
from bayesref.cli.fit_notes import fit_notes
from bayesref.cli.options import MergeSettings
from bayesref.cli.program import Program, build_program, comma_list, number_pair
from bayesref.cli.progress import FitProgress
from bayesref.cli.related import dataset_tree
from bayesref.cli.resume import prepare, stoppable
from bayesref.cli.stills import as_indexed, stills_run, write_table
from bayesref.cli.tables import (
    read_sentence,
    read_table,
    scale_table,
    site_table,
    statistics_table,
    wide_console,
)
from bayesref.data.observations import Observations
from bayesref.inference import distributed
from bayesref.inference.checkpoint import fingerprint
from bayesref.inference.cross_validation import half_datasets, hold_out, predict
from bayesref.inference.fit import fit
from bayesref.inference.overlap_predictions import hold_out_overlaps, predict_overlaps, without
from bayesref.inference.posterior import Posterior
from bayesref.io.default_metadata import AUTO
from bayesref.io.unmerged import read_unmerged
from bayesref.results.differences import difference_figures, difference_lines
from bayesref.results.extras import Extras, fall_off, fall_off_of, read_flags
from bayesref.results.write import MergeResults, OverlapResults, write_all
from bayesref.validation.intensities import intensity_figures, intensity_lines
from bayesref.validation.merging import completeness, half_statistics, half_z, prediction_statistics
from bayesref.validation.twin_report import twin_figures, twin_lines

# Options of one method only, as `fit` names them.
METHOD_OPTIONS = {
    "deterministic": ("rounds", "tolerance"),
    "svi": ("epochs", "batch_images", "learning_rate", "tolerance"),
}


def merge(settings: MergeSettings) -> None:
    """Merge unmerged intensities: the posterior of every amplitude.

    One amplitude per reflection explains every spot that measured it, through a scale that depends on what is known
    of the spot (--metadata, --scale) and an error model that is learned. Amplitudes are integrated out exactly; their
    SIGF includes the uncertainty of the scale and of the error model.

    Example: bayesref merge off.mtz on.mtz --separate-files --metadata X,Y,Wavelength,dHKL --half-datasets 1 --out DIR
    """
    with distributed.processes(), stoppable(settings):
        _merge(settings if distributed.is_first() else replace(settings, quiet=True))


def _merge(settings: MergeSettings) -> None:
    start = time.monotonic()
    console = wide_console(quiet=settings.quiet)
    options, extras = fit_options(settings), output_extras(settings)
    torch.set_num_threads(settings.threads)
    out, checkpoint = prepare(settings, console)
    obs = read(settings)
    console.print(read_table(obs.report), read_sentence(obs.report), "", sep="\n")
    obs, stills = stills_run(settings, obs, console)
    program = build_program(settings, obs)
    for note in program.notes:
        console.print(note)
    held_out, fitted = split_off(settings, obs)
    progress = None if settings.quiet else console
    options |= stills.fit_options() if stills else {}
    posterior = run_fit(settings, fitted, program, {**options, "checkpoint": checkpoint}, progress)
    if stills:
        obs, held_out = as_indexed(stills, obs, held_out)
    posterior = replace(posterior, family=settings.posterior)
    console.print(
        f"Fit ended: {posterior.reason}; ELBO {posterior.elbo:,.1f} ± {posterior.elbo_error:.1f}.\n"
    )
    console.print(scale_table(program.scale, posterior), "", site_table(posterior), "", sep="\n")
    for line in [*fit_notes(posterior), *program.report(posterior)]:
        console.print(line)
    results = cross_validate(settings, posterior, obs, held_out, program, options, checkpoint)
    if results is None:
        return
    results = with_falloff_of_data(results, extras)
    for name, t in results.tables.items():
        console.print(statistics_table(name, t), "")
    if "posterior" in results.figures:
        lost = "{gap:,.1f} log units of ELBO, {gap_mean:.4f} per reflection".format(
            **results.figures["posterior"]
        )
        console.print(f"Amplitudes as {settings.posterior} laws lose {lost}.")
    for line in [*intensity_lines(results.figures), *twin_lines(results.figures)]:
        console.print(line)
    for line in difference_lines(results.figures):
        console.print(line)
    if "wilson_b" in results.figures:
        console.print(f"Amplitudes fall off as the data do, with B = {results.figures['wilson_b']:.1f} Å².")
    write_all(results, out, asdict(settings), settings.seed)
    if stills:
        write_table(stills, obs, results.predictions, out, console)
        stills.close()
    console.print(f"Results in {out}, after {time.monotonic() - start:.0f} s.")
    if posterior.reason.startswith("interrupted") and checkpoint is not None:
        console.print("They are of an interrupted fit; the same command with --resume continues it.")


def read(settings: MergeSettings) -> Observations:
    """The observations that the options ask for."""
    tree = dataset_tree(settings)
    obs = read_unmerged(
        settings.files,
        metadata_keys=AUTO if settings.metadata == AUTO else comma_list(settings.metadata),
        positional_keys=comma_list(settings.positional_keys),
        n_frequencies=settings.n_frequencies,
        intensity_key=settings.intensity_key,
        sigma_key=settings.sigma_key,
        image_key=settings.image_key,
        wavelength_key=settings.wavelength_key,
        keep_harmonics=settings.keep_harmonics,
        wavelength_range=wavelength_range(settings),
        anomalous=settings.anomalous,
        separate=settings.separate_files,
        spacegroup=settings.spacegroup,
        cell=parse_cell(settings.cell),
        dmin=settings.dmin,
        dmax=settings.dmax,
        isigi_cutoff=settings.isigi_cutoff,
        cell_tolerance=settings.cell_tolerance,
        image_resolution=settings.image_resolution,
    )
    return obs if tree is None else tree.arrange(obs)


def wavelength_range(settings: MergeSettings) -> tuple[float, float] | str | None:
    """Wavelengths of the beam, where overlapped Laue spots are to be taken apart."""
    asked = settings.wavelength_range
    if asked is not None and settings.keep_harmonics:
        raise InputError(
            "--wavelength-range takes overlapped spots apart, --keep-harmonics does not; give one."
        )
    return asked if asked == "auto" else number_pair(asked, "--wavelength-range")


def split_off(settings: MergeSettings, obs: Observations) -> tuple[torch.Tensor | None, Observations]:
    """Spots to hold out (spot,), or None, and the others; of overlapped spots, a like share of their own."""
    if not settings.test_fraction:
        return None, obs
    held_out = hold_out(obs, settings.test_fraction, settings.seed)
    fitted = obs.subset(~held_out)
    return held_out, without(fitted, overlaps_out(settings, obs)) if obs.overlaps else fitted


def overlaps_out(settings: MergeSettings, obs: Observations) -> torch.Tensor:
    """Overlapped spots held out, (spot,) bool."""
    return hold_out_overlaps(obs, settings.test_fraction or 0.0, settings.seed)


def fit_options(settings: MergeSettings) -> dict:
    """Options of `fit` for the method asked for; those not given keep its defaults."""
    given = {
        k: getattr(settings, k)
        for k in ("rounds", "tolerance", "epochs", "batch_images", "learning_rate")
        if getattr(settings, k) is not None
    }
    for k in given:
        if k not in METHOD_OPTIONS[settings.method]:
            other = "svi" if settings.method == "deterministic" else "deterministic"
            raise InputError(f"--{k.replace('_', '-')} belongs to --method {other}; leave it out.")
        if given[k] <= 0:
            raise InputError(f"--{k.replace('_', '-')} is {given[k]:g}; it must be above zero.")
    return given | {"method": settings.method, "seed": settings.seed}


def output_extras(settings: MergeSettings) -> Extras:
    """Columns and files beyond the usual; wrong ones are told before the fit."""
    fraction, file = settings.free_fraction, settings.free_flags
    if fraction is not None and file is not None:
        raise InputError("--free-fraction makes flags and --free-flags copies them; give one of the two.")
    if fraction is not None and not 0 < fraction <= 0.5:
        raise InputError(f"--free-fraction is {fraction:g}; it must be above 0 and at most 0.5.")
    if file is not None:
        read_flags(file)
    B = fall_off(settings.wilson_b)
    return Extras(settings.e_values, fraction, settings.free_seed, file, settings.scaled, B)


def run_fit(
    settings: MergeSettings,
    obs: Observations,
    program: Program,
    options: dict,
    console: Console | None,
    title: str = "Fit",
) -> Posterior:
    """Fit with its progress shown."""
    tolerance, epochs = options.get("tolerance", 0.5), options.get("epochs", 40)
    with FitProgress(console, len(obs), tolerance, epochs, title) as progress:
        try:
            return fit(
                program.model, obs, program.scale, fixed=program.fixed, report=progress.report, **options
            )
        except FloatingPointError as e:
            raise InputError(f"{e} Try other fixed values, fewer scale terms, or a cut-off.") from e


def parse_cell(text: str | None) -> tuple[float, ...] | None:
    """Six numbers, Å and degrees, from 'a,b,c,α,β,γ'."""
    if text is None:
        return None
    try:
        cell = tuple(float(x) for x in comma_list(text.replace(" ", ",")))
    except ValueError:
        cell = ()
    if len(cell) != 6:
        raise InputError(f"--cell {text} is not six numbers; give a,b,c in Å and α,β,γ in degrees.")
    return cell


def cross_validate(
    settings, posterior, obs, held_out, program, options, checkpoint=None
) -> MergeResults | None:
    """Amplitudes, halves, predictions and their statistics; None in all but the first of several processes."""
    amplitudes = posterior.amplitudes(n_samples=settings.samples, seed=settings.seed)
    refit = None
    if settings.refit:
        refit = partial(_refit, program, options, checkpoint, posterior)
    halves = half_datasets(posterior, settings.half_datasets, settings.seed, refit)
    if not distributed.is_first():
        return None
    predictions = predict(posterior, obs)
    asu, tables = posterior.obs.asu, {}
    for k in range(asu.n_dataset):
        tables[f"data_{k}"] = completeness(asu, amplitudes, dataset=k)
        if halves:
            tables[f"halves_{k}"] = half_statistics(asu, halves, dataset=k)
    spots = prediction_statistics(asu.dHKL[obs.hkl_id], obs.I, predictions.I, held_out)
    tables["spots"] = spots if held_out is not None else spots.drop(columns="ccpred")
    overlaps = overlap_results(settings, posterior, obs, tables)
    z, label = half_z(halves), "(F₁ - F₂)/σ of half datasets"
    if not halves:
        z, label = ((obs.I - predictions.I) / predictions.SIGI).numpy(), "(I - I expected)/σ of spots"
    figures = {name: {k: float(v) for k, v in t.iloc[-1].items()} for name, t in tables.items()}
    if amplitudes.gap is not None:
        figures["posterior"] = {"gap": float(amplitudes.gap.sum()), "gap_mean": float(amplitudes.gap.mean())}
    figures |= {f"intensities_{k}": intensity_figures(asu, amplitudes, k) for k in range(asu.n_dataset)}
    figures |= {f"twinning_{k}": twin_figures(asu, amplitudes, k) for k in range(asu.n_dataset)}
    tree = dataset_tree(settings)
    if tree is not None:
        figures |= difference_figures(asu, amplitudes, halves, tree)
    return MergeResults(
        posterior, amplitudes, predictions, obs, held_out, halves, tables, z, label, figures, tree=tree,
        overlaps=overlaps,
    )  # fmt: skip


def overlap_results(settings, posterior, obs, tables) -> OverlapResults | None:
    """Predictions of overlapped Laue spots and, among `tables`, how good they are; None without such spots."""
    if not obs.overlaps:
        return None
    held, spots = overlaps_out(settings, obs), obs.overlaps
    expected = predict_overlaps(posterior, obs, held)
    dHKL = obs.asu.dHKL[spots.orders.hkl_id[spots.first]]
    out = held if settings.test_fraction else None
    table = prediction_statistics(dHKL, spots.I, expected.I, out, expected.z)
    tables["overlaps"] = table if out is not None else table.drop(columns="ccpred")
    return OverlapResults(expected, out)


def with_falloff_of_data(results: MergeResults, extras: Extras) -> MergeResults:
    """The results with what to write beside the amplitudes, its B a number."""
    if extras.wilson_b != "data":
        return replace(results, extras=extras)
    B = fall_off_of(
        results.posterior.obs.asu.stol2[results.obs.hkl_id].numpy(), results.predictions.K.numpy()
    )
    return replace(results, extras=replace(extras, wilson_b=B), figures=results.figures | {"wilson_b": B})


def _refit(program, options, checkpoint, posterior, half) -> Posterior:
    """Fit a half, with a checkpoint of its own; it starts where the fit of all spots ended, which its name says."""
    name = f"half-{fingerprint(posterior.mean, half)[:12]}"
    own = None if checkpoint is None else replace(checkpoint, name=name)
    return fit(program.model, half, program.scale, fixed=program.fixed, checkpoint=own, **options)


command = command_from(MergeSettings, merge)
