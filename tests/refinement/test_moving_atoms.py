"""Atoms of an excited state: their shifts found from a series, with honest errors."""

from dataclasses import replace

import pyro
import pytest
import torch
from bayesref.models import kinetic, refine

import bayesref as br
from bayesref._checks import InputError
from bayesref.inference.laplace import fit_small
from bayesref.refinement.moving_atoms import atoms_near
from bayesref.refinement.simulate_series import SeriesOptions, simulate_series
from bayesref.refinement.states import fit_states
from bayesref.refinement.toy_crystal import toy_crystal

D = {"dtype": torch.float64}


@pytest.fixture(scope="module")
def case():
    """Six atoms that move by 0.5 Å rms in a quarter of the molecules; the states are both given as the dark one."""
    dark = toy_crystal(80, cell=(18.0, 20.0, 22.0), seed=2)
    g = torch.Generator().manual_seed(3)
    rows = torch.arange(30, 36)
    true = 0.3 * torch.randn(6, 3, generator=g, **D)
    light = replace(dark, xyz=dark.xyz.index_add(0, rows, true))
    kinetics = br.Kinetics("B -> A", ground="A", start="B")
    t = torch.tensor([1e-4, 1e-3, 5e-3], **D)
    o = kinetics.occupancies({"B->A": torch.tensor(300.0, **D)}, t, activation=0.25)[:, [1, 0]]
    options = SeriesOptions(dmin=1.8, noise=0.02, error=0.05, own=0.002)
    series, data = simulate_series({"A": dark, "B": light}, o, t, options, seed=1)
    states = fit_states({"A": dark, "B": dark}, data, refine.model, {"B": (rows, None)})
    states = replace(states, names=kinetics.occupied, d=states.d[:, [1, 0]])
    return series, states, kinetics, true


def test_a_shift_changes_the_structure_factors_as_its_slope_says(case):
    _, states, _, true = case
    atoms = states.movers["B"]
    assert float(atoms.change(torch.zeros(6, 3, **D)).abs().max()) < 1e-6 * float(states.G.max())
    x = true.clone().requires_grad_()
    w = torch.linspace(-1, 1, len(states.G), **D)
    (grad,) = torch.autograd.grad((atoms.change(x).real * w).sum(), x)
    for i, j in ((0, 0), (3, 1), (5, 2)):
        e = torch.zeros(6, 3, **D)
        e[i, j] = 1e-3
        up, down = ((atoms.change(true + s * e).real.detach() * w).sum() for s in (1, -1))
        assert float(grad[i, j]) == pytest.approx(
            float(up - down) / 2e-3, rel=0.02, abs=1e-3 * float(grad.abs().max())
        )


def test_shifts_and_share_are_found_within_their_errors(case):
    series, states, kinetics, true = case
    model = pyro.condition(kinetic.model, data={"k B->A": torch.tensor(300.0, **D)})
    p = fit_small(model, (series, states, kinetics), n_starts=3, n_draws=300, seed=1)
    shift, alpha = p.sites["shift B"], p.sites["activation"]
    z = (shift.mean(0) - true) / shift.std(0)
    assert float(z.square().mean()) < 2.5
    assert torch.corrcoef(torch.stack([shift.mean(0).flatten(), true.flatten()]))[0, 1] > 0.9
    assert float(shift.std(0).mean()) < 0.15
    assert abs(float(alpha.mean()) - 0.25) < 3.5 * float(alpha.std())


def test_atoms_near_a_residue():
    crystal = toy_crystal(40)
    rows = atoms_near(crystal, "A/2", 0.1)
    assert [crystal.name[int(i)].split("/")[1] for i in rows] == ["UNK 2"] * 8
    assert len(atoms_near(crystal, "UNK", 0.1)) == 40
    with pytest.raises(InputError, match="no residue HC4"):
        atoms_near(crystal, "HC4", 3.0)
