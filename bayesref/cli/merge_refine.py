"""`bayesref refine` on unmerged data: options of the spots, what is read, and what is written beyond a refinement."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import gemmi
import pandas as pd
import reciprocalspaceship as rs
import torch
import typer
from rich.console import Console

from bayesref import programs
from bayesref._checks import InputError
from bayesref.cli.fit_notes import fit_notes
from bayesref.cli.merge import read as read_observations
from bayesref.cli.options import MergeSettings
from bayesref.cli.program import build_scale
from bayesref.cli.progress import FitProgress
from bayesref.cli.tables import read_sentence, read_table
from bayesref.crystal.free_flags import free_flags
from bayesref.data.merged import MergedData
from bayesref.data.observations import Observations
from bayesref.io.atomic import atomic_path
from bayesref.io.default_metadata import AUTO
from bayesref.io.merged import read_flags_for
from bayesref.io.write_mtz import write_mtz
from bayesref.refinement.joint import JointPosterior, merge_and_refine
from bayesref.results.mtz import merged_table
from bayesref.scaling.scale import Scale

SPOTS = partial(typer.Option, rich_help_panel="Unmerged data")
FREE = 0.05  # share of reflections set aside where nothing is said: unmerged files have no flags


@dataclass(frozen=True, kw_only=True)
class SpotOptions:
    """Options that only unmerged data have."""

    metadata: Annotated[
        str, SPOTS("--metadata", "-m", metavar="KEYS", help="Columns that the scale depends on, as in merge.")
    ] = AUTO
    scale: Annotated[str, SPOTS(metavar="TERMS", help="Terms of the scale, as in merge.")] = (
        "falloff,additive,image"
    )
    rounds: Annotated[int, SPOTS(min=1, help="At most so many rounds of merging and refinement.")] = 4


@dataclass(frozen=True, eq=False)
class Spots:
    """Unmerged data as they are refined against.

    Attributes
    ----------
    obs : Observations, Friedel mates merged
    scale : of the spots
    free : (hkl,) bool
    notes : for the user
    """

    obs: Observations
    scale: Scale
    free: torch.Tensor
    notes: tuple[str, ...]

    def reflections(self, path: Path) -> MergedData:
        """Their reflections, to compare with a model; they have no values yet."""
        zero = torch.zeros(len(self.obs.asu), dtype=torch.float64)
        return MergedData(self.obs.asu, "I", zero, zero + 1, self.free, {"file": str(path)})


def is_unmerged(path: Path) -> bool:
    """Whether a file holds spots: an integration program's, or an MTZ with batches or equivalent indices."""
    if path.suffix.lower() in (".hkl", ".stream", ".refl"):
        return True
    if path.suffix.lower() != ".mtz" or not path.is_file():
        return False
    try:
        mtz = gemmi.read_mtz_file(str(path))
    except (RuntimeError, ValueError):
        return False  # the reader of merged data says what is wrong
    return bool(mtz.batches) or "M/ISYM" in mtz.column_labels()


def read_spots(settings, console: Console) -> Spots:
    """Spots, their scale and the free set, as the options of `bayesref refine` ask.

    Raises
    ------
    InputError : the file, the flags or the scale
    """
    if settings.labels:
        raise InputError("--labels names columns of merged data; the data are unmerged, leave it out.")
    mine = MergeSettings(
        files=[settings.data], metadata=settings.metadata, scale=settings.scale, spacegroup=settings.spacegroup,
        dmin=settings.dmin, dmax=settings.dmax, seed=settings.seed, out=settings.out,
    )  # fmt: skip
    obs = read_observations(mine).compact()
    console.print(read_table(obs.report), read_sentence(obs.report), "", sep="\n")
    scale, notes = build_scale(mine, obs)
    free, note = _free_set(settings, obs.asu)
    return Spots(obs, scale, free, (*notes, note))


def _free_set(settings, asu) -> tuple[torch.Tensor, str]:
    """Free reflections and where they are from."""
    if settings.free_file is not None:
        if settings.free_fraction is not None:
            raise InputError("--free-fraction makes flags and --free-file copies them; give one of the two.")
        notes: list[str] = []
        free = read_flags_for(asu, settings.free_file, settings.free_label, settings.free_value, notes)
        return free, "; ".join(notes)
    fraction = FREE if settings.free_fraction is None else settings.free_fraction
    flags = free_flags(asu.hkl.numpy(), asu.cell, asu.spacegroup, fraction, settings.seed)
    return torch.from_numpy(flags == 0), f"a free set of {100 * (flags == 0).mean():.1f} % was made"


def run_joint(settings, crystal, spots: Spots, library, console: Console, options: dict) -> JointPosterior:
    """Merging and refinement by turns, with their progress shown."""
    if settings.adp != "isotropic":
        raise InputError(
            f"--adp {settings.adp}: joint refinement of unmerged data has isotropic displacements; "
            "use bayesref merge first."
        )
    for note in spots.notes:
        console.print(f"  {note}", highlight=False)
    page = programs.load(settings.page or "merge_refine")
    with FitProgress(console, len(spots.obs), 0.5, 0, "Merge") as progress:
        joint = merge_and_refine(
            crystal, spots.obs, spots.scale, library, spots.free, page, rounds=settings.rounds,
            seed=settings.seed, report_fit=progress.report,
            report_round=lambda row: console.print(round_line(row), highlight=False), **options,
        )  # fmt: skip
    console.print(f"\nRounds ended: {joint.reason}.")
    for note in fit_notes(joint.merging):
        console.print(note)
    target = joint.structure.target
    columns = {**target.data.columns, "file": str(settings.data)}
    target = replace(target, data=replace(target.data, columns=columns, notes=spots.notes))
    return replace(joint, structure=replace(joint.structure, target=target))


def round_line(row: dict) -> str:
    """A row of the rounds as a line."""
    how = "merged alone, then refined" if row["round"] == 0 else f"round {row['round']}"
    return (
        f"[bold]{how}: ELBO {row['elbo']:,.1f}, R {row['R']:.4f}, R-free {row['R_free']:.4f}, "
        f"moved {row['moved']:.3f} Å[/bold]"
    )


def write_merged(joint: JointPosterior, out: Path) -> None:
    """merged_0.mtz as of `bayesref merge`, on the scale of the structure and with its flags; rounds.csv."""
    asu = joint.merging.obs.asu
    table = merged_table(asu, joint.amplitudes)
    free = pd.Series(
        (~joint.structure.target.data.free).long().numpy(), index=[tuple(h) for h in asu.hkl.tolist()]
    )
    flags = free.reindex([tuple(h) for h in table.get_hkls().tolist()]).to_numpy()
    table = table.assign(FreeR_flag=rs.DataSeries(flags, index=table.index, dtype="I"))
    write_mtz(table, out / "merged_0.mtz")
    with atomic_path(out / "rounds.csv") as temporary:
        pd.DataFrame(joint.history).to_csv(temporary, index=False)
