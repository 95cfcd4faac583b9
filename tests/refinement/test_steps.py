"""Refinement in steps: what a step holds stays, what it moves gets better, and the end is of all atoms."""

from dataclasses import replace

import pytest
import torch

from bayesref._checks import InputError
from bayesref.refinement.point_estimate import fit_globals, refine_point, start
from bayesref.refinement.refine import refine
from bayesref.refinement.simulate import RefineOptions, simulate_refine
from bayesref.refinement.steps import CYCLES, SITES, take_steps


def displaced(target):
    """The target with atoms 0.1 Å away and B too high."""
    crystal, g = target.atoms.crystal, torch.Generator().manual_seed(4)
    xyz = crystal.xyz + 0.06 * torch.randn(crystal.xyz.shape, generator=g, dtype=torch.float64)
    return replace(target, atoms=target.atoms.moved(xyz, crystal.B * 1.3, torch.zeros(0)))


def rms(a, b):
    return float((a - b).square().mean().sqrt())


@pytest.mark.parametrize("step", list(SITES))
def test_a_step_moves_its_own_sites_alone(problem, step):
    truth, target = problem[0].atoms.crystal, displaced(problem[0])
    before = target.atoms.crystal
    found = refine_point(target, 2, sites=SITES[step])
    after = found.target.latents.unpack(found.z)
    moved, held = ("xyz", "B") if step == "xyz" else ("B", "xyz")
    torch.testing.assert_close(after[held], getattr(before, held), rtol=1e-12, atol=1e-12)
    assert rms(after[moved], getattr(truth, moved)) < 0.7 * rms(getattr(before, moved), getattr(truth, moved))


def test_steps_are_taken_in_their_order(problem):
    rows, notes = [], []
    target, history, stopped = take_steps(
        displaced(problem[0]), ("xyz", "rigid-body", "b"), 1, rows.append, notes.append
    )
    assert [r["step"] for r in history] == ["xyz", "b"]
    assert [(r["step"], r["cycle"]) for r in rows] == [("xyz", -1), ("xyz", 0), ("b", -1), ("b", 0)]
    assert not stopped
    assert "Rigid bodies" in notes[0]
    z, z_before = start(target), start(displaced(problem[0]))
    assert (
        target.value_and_grad(fit_globals(target, z))[0]
        > target.value_and_grad(fit_globals(target, z_before))[0]
    )


def test_an_interrupted_step_is_the_last(problem):
    def stop(row):
        if row["cycle"] == 0:
            raise KeyboardInterrupt

    _, history, stopped = take_steps(displaced(problem[0]), ("xyz", "b"), CYCLES, stop, lambda text: None)
    assert stopped
    assert {r["step"] for r in history} == {"xyz"}


def test_the_end_is_the_same_by_steps(molecules):
    crystal, library = molecules
    data = simulate_refine(crystal, RefineOptions(dmin=1.6, error=0.03, free_fraction=0.15), seed=2)
    at_once = refine(crystal, data, library, cycles=8)
    by_steps = refine(crystal, data, library, cycles=8, steps=("xyz", "b"))
    assert rms(by_steps.crystal.xyz, at_once.crystal.xyz) < 0.3 * float(at_once.esd["xyz"].mean())
    assert by_steps.history[0]["step"] == "xyz"
    assert "step" not in by_steps.history[-1]
    with pytest.raises(InputError, match="no step 'atoms'; give some of rigid-body, xyz, b"):
        refine(crystal, data, library, steps=("atoms",))
