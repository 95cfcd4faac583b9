"""One call for structure factors, and the check that it keeps its promise.

    F = structure_factors(crystal, hkl)                         complex, e^{+2πi h·x}, electrons, no solvent
    plan = prepare(crystal, hkl, rel_error=1e-3)                once
    F = structure_factors(replace(crystal, xyz=xyz), plan=plan) many times, with gradients

The error is that of F in the L2 norm over the reflections; gradients keep within five times of it.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from bayesref._checks import InputError
from bayesref.crystal.atoms import Crystal, check_crystal
from bayesref.crystal.form_factors import Table, form_factors
from bayesref.structure_factors.direct import direct
from bayesref.structure_factors.fft import fft
from bayesref.structure_factors.plan import Plan, make_plan

Method = Literal["fft", "direct"]
GRADIENT_FACTOR = 5.0  # gradients may be this much less accurate than F


def prepare(
    crystal: Crystal,
    hkl: torch.Tensor,
    rel_error: float = 1e-3,
    table: Table = "it92",
    wavelength: float | None = None,
    dtype: torch.dtype | None = None,
) -> Plan:
    """Grid, blur, radii and form factors for a crystal and its reflections.

    Parameters
    ----------
    crystal : checked here; parameters may move afterwards, B factors within the range they have now
    hkl : (hkl, 3) integer
    rel_error : relative L2 error of F, 1e-6 to 0.1
    table : "it92", "wk95" or "electron"
    wavelength : Å, for f' and f''; None leaves both out
    dtype : torch.float32 or torch.float64 for the grid; by default float32 unless rel_error is below 1e-5

    Raises
    ------
    InputError
        For bad parameters or indices.
    """
    check_crystal(crystal)
    return make_plan(
        crystal, _indices(hkl), form_factors(crystal.scatterer, table, wavelength), rel_error, dtype
    )


def structure_factors(
    crystal: Crystal,
    hkl: torch.Tensor | None = None,
    *,
    plan: Plan | None = None,
    method: Method = "fft",
    rel_error: float = 1e-3,
    table: Table = "it92",
    wavelength: float | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """F(h) of a crystal, (..., hkl) complex, differentiable in coordinates, B, U and occupancy.

    Parameters
    ----------
    crystal : parameters with any leading dimensions, (state, atom, 3) -> (state, hkl)
    hkl : (hkl, 3) integer; not needed with a plan
    plan : from `prepare`; without one it is made here, at about 50 ms
    method : "fft", or "direct": float64 summation, slow, exact, with second derivatives
    rel_error, table, wavelength : see `prepare`
    backend : of the density: "reference", "cpu", "cuda"; by default that of the device

    Raises
    ------
    InputError
        For bad parameters, or where neither hkl nor plan is given.
    """
    if (hkl is None) == (plan is None):
        raise InputError("Give either hkl or a plan.")
    if method not in ("fft", "direct"):
        raise InputError(f"Unknown method {method!r}; choose fft or direct.")
    if hkl is not None and method == "direct":
        factors = form_factors(crystal.scatterer, table, wavelength)
        return direct(crystal, _indices(hkl).to(crystal.xyz.device), factors)
    if hkl is not None:
        plan = prepare(crystal, hkl, rel_error, table, wavelength)
    assert plan is not None  # for the type checker
    return direct(crystal, plan.hkl, plan.factors) if method == "direct" else fft(crystal, plan, backend)


@dataclass(frozen=True)
class SelfCheck:
    """Relative L2 errors against direct summation.

    Attributes
    ----------
    F, xyz, B, U, occupancy : float; U is 0 where all atoms are isotropic
    rel_error : what was asked of F
    """

    F: float
    xyz: float
    B: float
    U: float
    occupancy: float
    rel_error: float

    @property
    def ok(self) -> bool:
        worst = max(self.xyz, self.B, self.U, self.occupancy)
        return self.rel_error >= self.F and worst <= GRADIENT_FACTOR * self.rel_error

    def __str__(self) -> str:
        return (
            f"{'passed' if self.ok else 'FAILED'}: F {self.F:.1e} (asked {self.rel_error:.0e}); gradients of xyz "
            f"{self.xyz:.1e}, B {self.B:.1e}, U {self.U:.1e}, occupancy {self.occupancy:.1e}"
        )


def self_check(crystal: Crystal, plan: Plan, n: int = 200, seed: int = 0) -> SelfCheck:
    """Compare F and the gradients of a sum of intensities with `direct`, on `n` random reflections of the plan.

    Run it at the start of every refinement, and again where B factors have moved far: it costs n times the number of
    atoms times the number of operators, about a second for 10,000 atoms. One state (no leading dimensions).
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(plan.hkl), generator=generator)[:n].to(plan.hkl.device)
    few = replace(plan, gather=replace(plan.gather, hkl=plan.hkl[rows], weight=plan.gather.weight[rows]))
    weight = torch.randn(len(rows), generator=generator, dtype=torch.float64).to(plan.hkl.device)
    found = _value_and_gradients(crystal, lambda c: fft(c, few), weight)
    truth = _value_and_gradients(crystal, lambda c: direct(c, few.hkl, plan.factors), weight)
    F, xyz, B, occupancy, *U = (_relative(x, y) for x, y in zip(found, truth, strict=True))
    return SelfCheck(F, xyz, B, U[0] if U else 0.0, occupancy, plan.rel_error)


def _value_and_gradients(crystal, function, weight):
    names = ["xyz", "B", "occupancy"] + (["U"] if crystal.U is not None else [])
    leaves = {name: getattr(crystal, name).detach().double().requires_grad_() for name in names}
    F = function(replace(crystal, **leaves))
    value = (weight * F.abs().double() ** 2).sum()  # of B too where all atoms are anisotropic and have none
    gradients = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return [F.detach(), *gradients]


def _relative(x: torch.Tensor, truth: torch.Tensor) -> float:
    size = torch.linalg.vector_norm(truth)
    return (
        float(torch.linalg.vector_norm(x - truth) / size) if size > 0 else float(torch.linalg.vector_norm(x))
    )


def _indices(hkl: torch.Tensor) -> torch.Tensor:
    if hkl.ndim != 2 or hkl.shape[-1] != 3 or hkl.is_floating_point():
        raise InputError(f"hkl has shape {tuple(hkl.shape)} and type {hkl.dtype}; expected integers (n, 3).")
    return hkl.to(torch.int64)
