"""Structural states: what the model of each predicts, on the scale of the dark data.

F_s(h) = k A(h) [F_atoms,s + k_sol exp(-B_sol s²) F_mask,s]        k, A, solvent, D, β: fitted to the dark data
d_s(h) = D (F_s - F_0) e^{-iφ_0},    G = D |F_0|,    V = ε β

Some atoms of a state may move: then d_s is a function of their shifts, which a page samples.
"""

from dataclasses import dataclass, field, replace

import torch

from bayesref._checks import InputError
from bayesref.data.merged import MergedData
from bayesref.refinement.atomic_model import AtomicModel, of_atoms
from bayesref.refinement.moving_atoms import MovingAtoms
from bayesref.refinement.point_estimate import error_sites, fit_sites, start
from bayesref.refinement.refine import mean_intensity, shift_B
from bayesref.refinement.simulate import smooth_mean
from bayesref.refinement.target import Target
from bayesref.structure_factors.calculate import prepare, structure_factors
from bayesref.structure_factors.scale import add_solvent
from bayesref.structure_factors.solvent import SolventMask


@dataclass(frozen=True, eq=False)
class States:
    """Structure factors of the states, of which the first is the dark one.

    Attributes
    ----------
    names : of the states
    G, V : (hkl,), expected dark amplitude and variance of its error
    d : (hkl, state) complex, D (F_s - F_0) relative to the phase of F_0; zero for the first state
    R : of the dark model against the dark data
    movers : {state: MovingAtoms}
    """

    names: tuple[str, ...]
    G: torch.Tensor
    V: torch.Tensor
    d: torch.Tensor
    R: float
    movers: dict[str, MovingAtoms] = field(default_factory=dict)

    def change(self, occupancy: torch.Tensor, shifts: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        """D (F_calc,t - F_calc,0), (..., hkl, time), for occupancies (..., time, state).

        shifts : {state: (atom, 3)}, Å, of the states whose atoms move
        """
        d = self.d
        if shifts:
            columns = list(d.unbind(1))
            for name, shift in shifts.items():
                columns[self.names.index(name)] = self.movers[name].change(shift)
            d = torch.stack(columns, 1)
        return torch.einsum("hs,...ts->...ht", d, occupancy.to(d.dtype))


@dataclass(frozen=True, eq=False)
class DarkModel:
    """A model against the data without light: scale, solvent and errors fitted, atoms as given.

    Attributes
    ----------
    atoms : AtomicModel
    values : of the sites of the page
    G, V : (hkl,), expected amplitude D |F_calc| and variance of its error
    F : (hkl,) complex, F_atoms + solvent, before scale
    delta_B : Å², by which all B were moved to the fall-off of the data
    R : against the data
    """

    atoms: AtomicModel
    values: dict[str, torch.Tensor]
    G: torch.Tensor
    V: torch.Tensor
    F: torch.Tensor
    delta_B: float
    R: float


def fit_dark(crystal, dark: MergedData, page) -> DarkModel:
    """Scale, solvent and errors of a model given data; all reflections tell its errors, for its atoms stay."""
    Sigma = mean_intensity(dark)
    moved = shift_B(crystal, dark, Sigma)
    atoms = AtomicModel.of(moved, None, [], dark, Sigma)
    target = Target.of(page, dark, atoms)
    z = start(target)
    errors = error_sites(target, z)
    scales = [k for k in target.globals if k not in errors]
    for _ in range(3):
        z = fit_sites(target, z, errors)
        z = fit_sites(target, z, scales)
    z = fit_sites(target, z, errors)
    values = target.latents.unpack(z)
    with torch.no_grad():
        G, V = target.expected(values)
        F = _total(atoms.F_atoms(*of_atoms(values)), atoms.F_mask, values, atoms.stol2)
    R = float((dark.F_obs - G).abs().sum() / dark.F_obs.sum())
    return DarkModel(atoms, values, G, V, F, float((moved.B - crystal.B).median()), R)


def fit_states(crystals: dict, dark: MergedData, page, moving: dict | None = None) -> States:
    """States of crystals of one cell, the first of them dark, on the scale of the dark data.

    Parameters
    ----------
    crystals : {name: Crystal}
    dark : MergedData; its free set, if any, sets β
    page : model page of refinement, models/refine.py
    moving : {state: (rows of its atoms that move, Restraints of all of them or None)}

    Raises
    ------
    InputError : fewer than two states
    """
    if len(crystals) < 2:
        raise InputError(f"Found {len(crystals)} states; expected the dark one and at least one more.")
    first, *others = crystals.items()
    model = fit_dark(first[1], dark, page)
    movers = {}
    with torch.no_grad():
        ratio = model.G / model.F.abs().clamp(min=1e-9)  # k A D
        turn = model.F.conj() / model.F.abs().clamp(min=1e-9)
        columns = [torch.zeros_like(model.F)]
        for name, crystal in others:
            shifted = _with_B(crystal, model.delta_B)
            solvent = _total(0.0, SolventMask(dark.asu.hkl)(shifted), model.values, dark.asu.stol2)
            rows, restraints = (moving or {}).get(name, (torch.zeros(0, dtype=torch.int64), None))
            plan = prepare(shifted, dark.asu.hkl)
            atoms = MovingAtoms(shifted, rows, plan, solvent - model.F, turn * ratio, restraints)
            columns.append(atoms.change(torch.zeros(len(rows), 3, dtype=torch.float64)))
            if len(rows):
                movers[name] = atoms
    return States(tuple(crystals), model.G, model.V, torch.stack(columns, 1), model.R, movers)


def to_model_scale(crystal, dark: MergedData) -> torch.Tensor:
    """Factor on amplitudes, (hkl,): ratio of the root mean squares of model and data, smooth in resolution."""
    with torch.no_grad():
        F = structure_factors(crystal, dark.asu.hkl, rel_error=1e-2).to(torch.complex128)
        F = add_solvent(F, SolventMask(dark.asu.hkl)(crystal), dark.asu.stol2, 0.35, 46.0)
    model = smooth_mean(F.abs() ** 2 / dark.asu.epsilon, dark.asu.stol2)
    return (model / smooth_mean(dark.value**2 / dark.asu.epsilon, dark.asu.stol2)).sqrt()


def _total(F_atoms, F_mask, values, stol2):
    return add_solvent(F_atoms, F_mask, stol2, values["k_sol"], values["B_sol"])


def _with_B(crystal, delta):
    return replace(crystal, B=(crystal.B + delta).clamp(min=2.0))
