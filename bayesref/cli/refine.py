"""`bayesref refine`: a model and merged data in, the posterior of the structure out."""

import time
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from rich.console import Console

from bayesref import programs
from bayesref._checks import InputError
from bayesref.cli.command import command_from
from bayesref.cli.merge_refine import SpotOptions, is_unmerged, read_spots, run_joint, write_merged
from bayesref.cli.program import check_page, comma_list
from bayesref.cli.tables import table, wide_console
from bayesref.crystal.atoms import Crystal
from bayesref.crystal.free_flags import free_flags
from bayesref.data.merged import MergedData
from bayesref.io.anomalous_pairs import read_pairs
from bayesref.io.atomic import prepare_output
from bayesref.io.merged import check_against, read_merged
from bayesref.io.structure import check_refinable, read_structure
from bayesref.refinement.posterior import StructurePosterior
from bayesref.refinement.refine import mean_intensity
from bayesref.refinement.refine import refine as run
from bayesref.restraints.dictionary import load_dictionary
from bayesref.results.refined_write import Requests, write_refinement
from bayesref.validation.refinement import refinement_statistics

DATA = partial(typer.Option, rich_help_panel="Data")
MODEL = partial(typer.Option, rich_help_panel="Model and restraints")
INFERENCE = partial(typer.Option, rich_help_panel="Refinement")
OUTPUT = partial(typer.Option, rich_help_panel="Output")
FEWEST = 50  # reflections: the scale, the solvent and the errors alone have a dozen parameters


@dataclass(frozen=True, kw_only=True)
class RefineSettings(SpotOptions):
    """What `bayesref refine` is asked to do; each field is an option and says what it is."""

    model: Annotated[
        Path, typer.Argument(help="Model: PDB or mmCIF.", rich_help_panel="Input", show_default=False)
    ]
    data: Annotated[
        Path,
        typer.Argument(
            help="Merged data: MTZ or structure-factor mmCIF; or unmerged spots.",
            rich_help_panel="Input",
            show_default=False,
        ),
    ]

    labels: Annotated[
        str | None, DATA(metavar="I,SIGI", help="Columns of the data; otherwise chosen and named.")
    ] = None
    free_label: Annotated[str | None, DATA(help="Column of the R-free flags.")] = None
    free_value: Annotated[int | None, DATA(help="Its value that means free; otherwise recognised.")] = None
    free_file: Annotated[Path | None, DATA(help="Another file to take the flags from.")] = None
    free_fraction: Annotated[
        float | None,
        DATA(help="Make a free set of this share, where the data have none. [default: work without one]"),
    ] = None
    anomalous: Annotated[
        bool,
        DATA("--anomalous", help="Friedel mates, I(+) and I(-), apart; needs the wavelength; refines f''."),
    ] = False
    dmin: Annotated[float | None, DATA(help="High-resolution limit, Å.")] = None
    dmax: Annotated[float | None, DATA(help="Low-resolution limit, Å.")] = None
    spacegroup: Annotated[str | None, DATA(help="In place of that of the data.")] = None

    restraints: Annotated[
        list[Path] | None, MODEL("--restraints", "-r", help="Dictionary of a ligand (CIF); may be repeated.")
    ] = None
    monlib: Annotated[Path | None, MODEL(help="CCP4 monomer library. [default: $CLIBD_MON]")] = None
    unrestrained: Annotated[str, MODEL(metavar="RES,...", help="Residues to leave without restraints.")] = ""
    guess: Annotated[str, MODEL(metavar="RES,...", help="Residues to hold near their present geometry.")] = ""
    ramachandran: Annotated[
        bool, MODEL("--ramachandran", help="Restrain φ and ψ to their regions; they no longer validate.")
    ] = False
    ncs: Annotated[
        bool, MODEL("--ncs", help="Make chains of one sequence alike, but where they truly differ.")
    ] = False
    hydrogens: Annotated[
        Literal["riding", "keep", "none"],
        MODEL(help="Hydrogens: placed by the dictionary, on their parents; those of the model; or none."),
    ] = "riding"
    hydrogen_contacts: Annotated[
        bool, MODEL("--hydrogen-contacts", help="Riding hydrogens keep their distance from other atoms.")
    ] = False
    adp: Annotated[
        Literal["isotropic", "anisotropic", "tls", "tls+anisotropic"],
        MODEL(
            help="Displacements: spheres; ellipsoids; rigid groups and spheres; rigid groups and ellipsoids."
        ),
    ] = "isotropic"
    tls_group: Annotated[
        list[str] | None,
        MODEL(metavar="A/1-50,60-80", help="TLS group; may be repeated. [default: each chain]"),
    ] = None
    wavelength: Annotated[float | None, MODEL(help="Å; adds f' and f'' to the form factors.")] = None
    form_factors: Annotated[Literal["it92", "wk95", "electron"], MODEL(help="Table of form factors.")] = (
        "it92"
    )

    page: Annotated[
        str | None,
        INFERENCE(
            "--page", help="Model page: a name (bayesref models list) or a file. [default: that of --adp]"
        ),
    ] = None
    steps: Annotated[
        str,
        INFERENCE(
            metavar="STEP,...",
            help="What moves first: rigid-body (each chain as one), xyz, b, in any order; then all at once.",
        ),
    ] = ""
    twin: Annotated[
        str, INFERENCE(metavar="auto|none|k,h,-l", help="Twin law: tried on the data, none, or this one.")
    ] = "auto"
    cycles: Annotated[int, INFERENCE(min=0, help="At most so many cycles; 0 = scale and errors only.")] = 15
    shake: Annotated[float, INFERENCE(min=0, help="Shift atoms at random by this much first, Å rms.")] = 0.0
    rel_error: Annotated[float, INFERENCE(help="Relative error of structure factors.")] = 1e-3
    threads: Annotated[int, INFERENCE(min=1, help="Threads.")] = 1
    seed: Annotated[int, INFERENCE(help="Of the random numbers.")] = 0

    out: Annotated[Path, OUTPUT("--out", "-o", help="Directory for the results.", show_default=False)]
    draws: Annotated[int, OUTPUT(min=1, help="Draws of the posterior to keep in posterior.nc.")] = 100
    ensemble: Annotated[int, OUTPUT(min=0, help="Models in ensemble.cif; 0 = none.")] = 20
    map_sigma: Annotated[bool, OUTPUT("--map-sigma", help="Map of the standard deviation of 2mFo-DFc.")] = (
        False
    )
    bins: Annotated[int, OUTPUT(min=1, help="Resolution bins of the statistics.")] = 12
    overwrite: Annotated[bool, OUTPUT("--overwrite", help="Replace files that are there already.")] = False
    quiet: Annotated[bool, OUTPUT("--quiet", "-q", help="Print nothing but errors.")] = False


def refine(settings: RefineSettings) -> None:
    """Refine a model against merged data or spots: posterior coordinates, B factors, occupancies, scale and errors.

    Restraints are densities with their own standard deviations; data and restraints are weighed by the errors of the
    model, learned from the free reflections (or, without any, from each reflection against the structure without it).
    Nothing is tuned. Standard deviations of every atom come from the curvature of both.

    Unmerged data are merged and refined against jointly: the structure is the prior of the amplitudes, and what the
    scale of the spots leaves open is an uncertainty of the structure.

    Example: bayesref refine model.pdb data.mtz --out refined
    """
    start = time.monotonic()
    console = wide_console(quiet=settings.quiet)
    torch.set_num_threads(settings.threads)
    out = prepare_output(settings.out, settings.overwrite)
    refuse_idle(settings)
    crystal = read_structure(settings.model)
    check_refinable(crystal, settings.model)
    spots = read_spots(settings, console) if is_unmerged(settings.data) else None
    data = read_data(settings) if spots is None else spots.reflections(settings.data)
    if len(data) < FEWEST:
        raise InputError(
            f"{settings.data} has {len(data)} reflections, too few to refine against; give all there are."
        )
    check_against(data, crystal, str(settings.model))
    pairs = None
    if settings.anomalous:
        data, pairs = friedel_mates(settings, data)
    if spots is None:
        print_input(console, settings, crystal, data)
    else:
        console.print(f"{settings.data} is unmerged: merging and refinement are joint.")
    residues = sorted({n.split("/")[1].rsplit(" ", 1)[0] for n in crystal.name})
    unrestrained, guess = comma_list(settings.unrestrained), comma_list(settings.guess)
    dictionary = load_dictionary(residues, settings.restraints or (), settings.monlib, unrestrained, guess)
    for line in sources(dictionary.source, unrestrained, guess):
        console.print(line, highlight=False)
    if settings.shake:
        crystal = shaken(crystal, settings.shake, settings.seed)
        console.print(f"Atoms were shifted by {settings.shake:g} Å rms.")
    options: dict = {
        "unrestrained": unrestrained, "guess": guess, "adp": settings.adp, "tls_groups": settings.tls_group or (),
        "ramachandran": settings.ramachandran, "ncs": settings.ncs, "hydrogens": settings.hydrogens,
        "hydrogen_contacts": settings.hydrogen_contacts,
        "steps": comma_list(settings.steps), "cycles": settings.cycles, "rel_error": settings.rel_error,
        "table": settings.form_factors, "wavelength": settings.wavelength, "note": console.print,
        "report": lambda row: console.print(progress_line(row), highlight=False),
    }  # fmt: skip
    if spots is None:
        page = programs.load(settings.page) if settings.page else None
        if page is not None and settings.page is not None:
            check_page(page, settings.page, ("data", "atoms"), "bayesref refine")
        posterior = run(crystal, data, dictionary.monlib, page, twin=settings.twin, pairs=pairs, **options)
    else:
        if settings.twin not in ("auto", "none"):
            raise InputError(
                "--twin takes merged data; run bayesref merge first, and refine against merged_1.mtz."
            )
        joint = run_joint(settings, crystal, spots, dictionary.monlib, console, options)
        posterior = joint.structure
        write_merged(joint, out)
    statistics = refinement_statistics(posterior.target, posterior.model, settings.bins)
    requests = Requests(
        settings.draws, settings.ensemble, settings.map_sigma, settings.seed, asdict(settings), start
    )
    record = write_refinement(posterior, statistics, out, requests)
    print_result(console, posterior, record, statistics, out)


def refuse_idle(settings: RefineSettings) -> None:
    """Raise `InputError` for an option that would change nothing."""
    usual = {f.name: f.default for f in fields(settings)}
    for names, given, why in (
        (
            ("metadata", "scale", "rounds"),
            is_unmerged(settings.data),
            "is about spots; give them, not merged data",
        ),
        (("tls_group",), "tls" in settings.adp, "is about rigid groups; add --adp tls"),
        (("hydrogen_contacts",), settings.hydrogens == "riding", "is about riding hydrogens; let them ride"),
    ):
        for name in names:
            if not given and settings.data.is_file() and getattr(settings, name) != usual[name]:
                raise InputError(f"--{name.replace('_', '-')} {why}, or leave it out.")


def friedel_mates(settings: RefineSettings, data: MergedData):
    """The data as means of Friedel mates, and their differences."""
    if settings.wavelength is None:
        raise InputError("--anomalous needs --wavelength, in Å, for f' and f''.")
    if is_unmerged(settings.data):
        raise InputError("--anomalous takes merged data; run bayesref merge --anomalous first.")
    return read_pairs(settings.data, data, mean_intensity(data))


def read_data(settings: RefineSettings) -> MergedData:
    """Merged data with a free set, as the options ask."""
    data = read_merged(
        settings.data, labels=comma_list(settings.labels) or None, free_label=settings.free_label,
        free_value=settings.free_value, free_file=settings.free_file, dmin=settings.dmin, dmax=settings.dmax,
        spacegroup=settings.spacegroup,
    )  # fmt: skip
    if settings.free_fraction is None:
        return data
    if bool(data.free.any()):
        raise InputError(f"{settings.data} has R-free flags already; leave --free-fraction out to use them.")
    asu = data.asu
    flags = free_flags(asu.hkl.numpy(), asu.cell, asu.spacegroup, settings.free_fraction, settings.seed)
    note = f"a free set of {100 * (flags == 0).mean():.1f} % was made"
    return replace(data, free=torch.from_numpy(flags == 0), notes=(*data.notes, note))


def shaken(crystal: Crystal, rms: float, seed: int) -> Crystal:
    """The crystal with every atom shifted at random."""
    g = torch.Generator().manual_seed(seed)
    shift = torch.randn(crystal.xyz.shape, generator=g, dtype=crystal.xyz.dtype)
    return replace(crystal, xyz=crystal.xyz + rms / 3**0.5 * shift)


def sources(source: dict[str, str], unrestrained, guess) -> list[str]:
    """Where the restraints of each residue come from."""
    places: dict[str, list[str]] = {}
    for name, place in source.items():
        places.setdefault(place, []).append(name)
    lines = [f"Restraints of {', '.join(names)}: {place}." for place, names in places.items()]
    if guess:
        lines.append(f"Restraints of {', '.join(guess)}: guessed from their present coordinates.")
    if unrestrained:
        lines.append(f"[bold]{', '.join(unrestrained)} have no restraints.[/bold]")
    return lines


def print_input(console: Console, settings: RefineSettings, crystal: Crystal, data: MergedData) -> None:
    """What was read, and by which columns."""
    asu, kind = data.asu, {"I": "intensities", "F": "amplitudes"}[data.kind]
    console.print(
        f"{settings.model}: {len(crystal)} atoms, {crystal.spacegroup.xhm()}\n"
        f"{settings.data}: {len(data):,} {kind} to {float(asu.dHKL.min()):.2f} Å from columns "
        f"{data.columns['value']}, {data.columns['sigma']}",
        highlight=False,
    )
    for note in data.notes:
        console.print(f"  {note}", highlight=False)
    if not bool(data.free.any()):
        console.print(
            "  errors of the model are learned from each reflection left out; --free-fraction 0.05 makes a free set"
        )
    n_parameters, n_work = 4 * len(crystal), int((~data.free).sum())
    if n_work < n_parameters:
        console.print(
            f"[bold]{n_work:,} work reflections are fewer than {n_parameters:,} parameters; "
            "restraints will decide much.[/bold]"
        )


def progress_line(row: dict) -> str:
    """A row of the history as a line."""
    free = "" if row["R_free"] != row["R_free"] else f", R-free {row['R_free']:.4f}"
    step = f"{row['step']}, " if "step" in row else ""
    if "moved" not in row:
        return f"{step}before: R {row['R']:.4f}{free}"
    return f"{step}cycle {row['cycle'] + 1}: R {row['R']:.4f}{free}, moved {row['moved']:.3f} Å, {row['seconds']:.1f} s"


def print_result(
    console: Console, posterior: StructurePosterior, record: dict, statistics, out: Path
) -> None:
    """Tables at the end."""
    t = table("By resolution", "d (Å)", "work", "free", "R", "R-free", "CC", "FOM", "error share")
    for i, row in enumerate(statistics.to_dict("records")):
        last = i == len(statistics) - 1
        label = "all" if last else f"{row['dmax']:.2f} - {row['dmin']:.2f}"
        numbers = [row[k] for k in ("R", "R_free", "CC", "FOM", "error")]
        t.add_row(
            label, f"{row['n']:,}", f"{row['n_free']:,}", *("-" if x != x else f"{x:.3f}" for x in numbers),
            style="bold" if last else None,
        )  # fmt: skip
    console.print(f"\nRefinement ended: {posterior.reason}.\n", t, "")
    g = table("Scale and solvent", "", "mean", "sd")
    for name, x in record["sites"].items():
        g.add_row(name, f"{x['mean']:.4g}", f"{x['sd']:.2g}")
    console.print(g, f"\n{record['geometry_table']}\n", f"Results are in {out}.", sep="\n")


command = command_from(RefineSettings, refine)
