"""`bayesref simulate refine`: merged intensities of a known structure."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import gemmi
import numpy as np
import torch
import typer

from bayesref._checks import InputError
from bayesref.cli.command import command_from
from bayesref.crystal.twin_laws import twin_law
from bayesref.io.atomic import atomic_path, prepare_output
from bayesref.io.structure import check_refinable, read_structure, write_structure
from bayesref.refinement.refine import isotropic
from bayesref.refinement.simulate import RefineOptions, simulate_refine
from bayesref.refinement.twin_simulate import simulate_twin

DATA = partial(typer.Option, rich_help_panel="Data")
ERRORS = partial(typer.Option, rich_help_panel="Errors")


@dataclass(frozen=True, kw_only=True)
class SimulateRefineSettings:
    """Options of `bayesref simulate refine`."""

    model: Annotated[Path, typer.Argument(help="Model that is the truth: PDB or mmCIF.", show_default=False)]
    out: Annotated[Path, DATA("--out", "-o", help="Directory for the files.", show_default=False)]
    dmin: Annotated[float, DATA(help="Resolution limit, Å.")] = 2.0
    free_fraction: Annotated[float, DATA(min=0, max=0.5, help="Share of R-free reflections.")] = 0.05
    shake: Annotated[float, DATA(min=0, help="Shift of the model to start from, Å rms.")] = 0.2
    scale: Annotated[float, DATA(help="On amplitudes.")] = 1.0
    twin: Annotated[
        str | None,
        DATA(metavar="k,h,-l", help="Twin law; its fraction is --twin-fraction. [default: no twin]"),
    ] = None
    twin_fraction: Annotated[float, DATA(min=0, max=1, help="Share of the second domain of a twin.")] = 0.25
    seed: Annotated[int, DATA(help="Of the random numbers.")] = 1
    overwrite: Annotated[bool, DATA("--overwrite", help="Replace files that are there already.")] = False
    error: Annotated[
        float, ERRORS(min=0, help="Share of ⟨F²/ε⟩ that the model misses at low resolution.")
    ] = 0.08
    rise: Annotated[float, ERRORS(help="Logarithm of its growth up to dmin.")] = 1.0
    noise: Annotated[float, ERRORS(min=0, help="SIGI of a weak reflection over the mean intensity.")] = 0.05
    relative: Annotated[float, ERRORS(min=0, help="Relative error of strong reflections.")] = 0.03
    k_sol: Annotated[float, ERRORS(min=0, help="Solvent density, electrons/Å³.")] = 0.35
    b_sol: Annotated[float, ERRORS(help="Solvent B, Å².")] = 46.0


def refine(settings: SimulateRefineSettings) -> None:
    """Simulate merged intensities of a model, with errors of the model and of the measurement.

    Writes data.mtz (I, SIGI, FreeR_flag: 0 is free), truth.pdb, and start.pdb: the truth with every atom shifted, to
    refine and to compare.
    """
    if not settings.scale > 0:
        raise InputError(f"--scale is {settings.scale:g}; it must be above zero.")
    if settings.twin is None and settings.twin_fraction != SimulateRefineSettings.twin_fraction:
        raise InputError("--twin-fraction changes nothing without --twin; add that or leave it out.")
    truth = isotropic(read_structure(settings.model))
    check_refinable(truth, settings.model)
    out = prepare_output(settings.out, settings.overwrite)
    options = RefineOptions(
        settings.dmin, settings.error, settings.rise, settings.noise, settings.relative, settings.k_sol,
        settings.b_sol, settings.free_fraction, settings.scale,
    )  # fmt: skip
    if settings.twin is None:
        data = simulate_refine(truth, options, settings.seed)
    else:
        law = twin_law(settings.twin, truth.cell, truth.spacegroup)
        data = simulate_twin(truth, law, settings.twin_fraction, options, settings.seed)
    write_intensities(data, out / "data.mtz")
    g = torch.Generator().manual_seed(settings.seed)
    shift = settings.shake / 3**0.5 * torch.randn(truth.xyz.shape, generator=g, dtype=torch.float64)
    for name, crystal in (("truth", truth), ("start", replace(truth, xyz=truth.xyz + shift))):
        with atomic_path(out / f"{name}.pdb") as temporary:
            write_structure(crystal, temporary)
    print(
        f"{len(data)} reflections to {settings.dmin:g} Å, {int(data.free.sum())} of them free; {len(truth)} atoms, "
        f"shifted by {settings.shake:g} Å rms in start.pdb: {out}"
    )


def write_intensities(data, path: Path) -> None:
    """I, SIGI and FreeR_flag (0 is free) as an MTZ."""
    mtz = gemmi.Mtz(with_base=True)
    mtz.spacegroup = data.asu.spacegroup
    mtz.add_dataset("simulated")
    mtz.set_cell_for_all(data.asu.cell)
    for label, kind in (("I", "J"), ("SIGI", "Q"), ("FreeR_flag", "I")):
        mtz.add_column(label, kind)
    columns = (data.value, data.sigma, (~data.free).double())
    mtz.set_data(np.column_stack([data.asu.hkl.numpy(), *(x.numpy() for x in columns)]).astype(np.float32))
    with atomic_path(path) as temporary:
        mtz.write_to_file(str(temporary))


command = command_from(SimulateRefineSettings, refine)
