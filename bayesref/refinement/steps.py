"""What moves first: rigid bodies, coordinates or displacements by themselves, before everything moves at once.

    rigid-body    each chain as one, see `refinement.rigid_body`
    xyz           coordinates and conformers, displacements held
    b             displacements, coordinates held

Nothing stays held: the refinement ends with all atoms free, and its posterior is of all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from bayesref._checks import InputError
from bayesref.refinement.atomic_model import of_atoms
from bayesref.refinement.point_estimate import INTERRUPTED, refine_point, start
from bayesref.refinement.rigid_body import fit_bodies
from bayesref.refinement.target import Target

SITES = {"xyz": ("xyz", "w"), "b": ("B", "A", "tls")}
STEPS = ("rigid-body", *SITES)
CYCLES = 5  # of one step, at most: it need not converge, since all atoms move afterwards


def check_steps(steps: Sequence[str]) -> None:
    """Raise `InputError` for a step that there is not."""
    for name in steps:
        if name not in STEPS:
            raise InputError(f"There is no step {name!r}; give some of {', '.join(STEPS)}, in their order.")


def take_steps(
    target: Target, steps: Sequence[str], cycles: int, report: Callable, note: Callable
) -> tuple[Target, list[dict], bool]:
    """The target after these steps, the rows of their history, and whether one was interrupted.

    Parameters
    ----------
    cycles : of one step, no more than five
    report : called as by `refine_point`, with rows that say which step they belong to
    note : called with each thing that the user should know
    """
    history: list[dict] = []
    for name in steps:
        if name == "rigid-body":
            target = _as_bodies(target, note)
            continue
        found = refine_point(
            target, min(cycles, CYCLES), report=lambda row, name=name: report(row | {"step": name}), sites=SITES[name]
        )  # fmt: skip
        history += [row | {"step": name} for row in found.history]
        values = found.target.latents.unpack(found.z)
        target = _from_here(found.target, values)
        if found.reason == INTERRUPTED:
            return target, history, True
    return target, history, False


def _as_bodies(target: Target, note: Callable) -> Target:
    z, motion = fit_bodies(target, start(target))
    shift, angle = motion[:, 3:].norm(dim=1), motion[:, :3].norm(dim=1) * 180 / torch.pi
    note(
        f"Rigid bodies: {len(motion)} moved by up to {float(shift.max()):.2f} Å and {float(angle.max()):.2f}°."
    )
    return _from_here(target, target.latents.unpack(z))


def _from_here(target: Target, values: dict) -> Target:
    """The target that starts where atoms are; loose ones are expected about there."""
    atoms = target.atoms.moved(*of_atoms(values))
    return replace(target, atoms=replace(atoms, reference=atoms.crystal.xyz.clone()))
