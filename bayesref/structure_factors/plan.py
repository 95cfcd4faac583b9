"""Grid, blur and radii of the FFT method from one number, the relative error asked for.

    n_i >= 2 σ a_i / d_min                    grid sizes, with factors 2, 3, 5
    R_j² = p_e + q_e (B_j - B_e)              radius of an atom of scatterer e: smooth in B, fitted to `find_radius`

For each oversampling σ, the blur follows from half the error budget (aliases) and the radii from the other half
(truncation); the σ of least predicted time is taken.
"""

from dataclasses import dataclass

import gemmi
import numpy as np
import torch
from scipy.fft import next_fast_len

from bayesref._checks import InputError
from bayesref.crystal.atoms import B_PER_U, Crystal, symmetric
from bayesref.crystal.cell import hkl_stol2, orthogonalization
from bayesref.crystal.form_factors import FormFactors
from bayesref.crystal.operators import operators
from bayesref.structure_factors import error_model
from bayesref.structure_factors.transform import Gather

OVERSAMPLING = (1.15, 1.25, 1.4, 1.6, 1.8, 2.1, 2.5, 3.0)
SAFETY = 0.8  # of the error budget: atoms do not lie at random places
# measured, ns: a grid point through the FFT both ways, and a run of 16 points of one atom both ways
FFT_POINT, ATOM_RUN = 9.0, 110.0
LANES = 16
QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)


@dataclass(frozen=True)
class Plan:
    """Everything about a calculation that does not change with the atoms' parameters.

    Attributes
    ----------
    shape : (nx, ny, nz) of the grid
    blur : β, Å², added to every B on the grid
    radius : (scatterer, 3) float64: p Å², q, B_e Å² of R² = p + q (B - B_e)
    factors : form factors of the atoms
    gather : reflections, operators, weights k_h = (V/N) exp(β s²)
    orth : (3, 3) orthogonalisation matrix, Å
    groups : ((rows or None for all atoms, anisotropic), ...), rows (n,) int64: atoms splatted together
    anomalous : bool, whether any atom has f''
    rel_error : what was asked for; `predicted` what the error model says
    dtype : of the grid
    """

    shape: tuple[int, int, int]
    blur: float
    radius: torch.Tensor
    factors: FormFactors
    gather: Gather
    orth: torch.Tensor
    groups: tuple[tuple[torch.Tensor | None, bool], ...]
    anomalous: bool
    rel_error: float
    predicted: float
    dtype: torch.dtype

    @property
    def hkl(self) -> torch.Tensor:
        return self.gather.hkl


def make_plan(
    crystal: Crystal,
    hkl: torch.Tensor,
    factors: FormFactors,
    rel_error: float = 1e-3,
    dtype: torch.dtype | None = None,
) -> Plan:
    """Choose grid, blur and radii for these atoms and reflections.

    Parameters
    ----------
    crystal : its B factors and elements set blur and radii
    hkl : (hkl, 3) int64
    factors : of the crystal's atoms
    rel_error : relative L2 error of F, 1e-6 to 0.1
    dtype : of the grid; by default float32 down to an error of 1e-5, float64 below

    Raises
    ------
    InputError
        For an error outside that range, no reflections, or F(000) alone.
    """
    if not 1e-6 <= rel_error <= 0.1:
        raise InputError(f"rel_error is {rel_error:g}; ask for 1e-6 to 0.1, or use method='direct'.")
    stol2 = hkl_stol2(hkl, crystal.cell)
    if len(hkl) == 0 or float(stol2.max()) == 0:
        raise InputError("The FFT method needs at least one reflection other than 0 0 0.")
    S_max = 2 * float(stol2.max()) ** 0.5
    target = SAFETY * rel_error / 2**0.5
    atoms = classes(crystal, factors)
    choices = []
    for sigma in OVERSAMPLING:
        shape, G = _grid(crystal.cell, S_max, sigma)
        blur = error_model.find_blur(atoms, S_max, G, target)
        R = error_model.find_radius(atoms, S_max, blur, target)
        choices.append((_cost(crystal, shape, atoms, R), shape, blur, R, G))
    _, shape, blur, R, G = min(choices, key=lambda c: c[0])
    predicted = error_model.total(atoms, S_max, G, blur, R)
    weight = torch.exp(blur * stol2) * (crystal.cell.volume / np.prod(shape))
    device = crystal.xyz.device
    return Plan(
        shape,
        blur,
        _fit_radius(atoms, R, len(factors.a)).to(device),
        factors.to(device),
        Gather.of(hkl.to(device), operators(crystal.spacegroup), weight.to(device), shape),
        orthogonalization(crystal.cell),
        _groups(crystal.anisotropic),
        bool((factors.f2 != 0).any()),
        rel_error,
        predicted,
        dtype or (torch.float32 if rel_error >= 1e-5 else torch.float64),
    )


def _groups(anisotropic: torch.Tensor) -> tuple[tuple[torch.Tensor | None, bool], ...]:
    if not anisotropic.any():
        return ((None, False),)
    if anisotropic.all():
        return ((None, True),)
    return ((~anisotropic).nonzero()[:, 0], False), (anisotropic.nonzero()[:, 0], True)


def classes(crystal: Crystal, factors: FormFactors) -> error_model.AtomClasses:
    """Quantiles of B for each scatterer; the lowest eigenvalue stands for an anisotropic atom."""
    n = len(crystal)
    B = crystal.B.detach().cpu().double().reshape(-1, n)
    if crystal.U is not None:
        low = (
            torch.linalg.eigvalsh(symmetric(crystal.U.detach().cpu().double()))[..., 0].reshape(-1, n)
            * B_PER_U
        )
        B = torch.where(crystal.anisotropic.cpu(), torch.minimum(low, B), B)
    index, rows = factors.index.cpu(), []
    for e in index.unique().tolist():
        values = B[:, index == e].numpy()
        edges = np.quantile(values, QUANTILES)
        share = values.size / B.numel() / (len(edges) - 1)
        # trapezoid weights: the extremes count half
        for i, edge in enumerate(edges):
            rows.append((e, edge, share * (0.5 if i in (0, len(edges) - 1) else 1.0)))
    e = np.array([r[0] for r in rows])
    a, b = factors.a.cpu().numpy(), factors.b.cpu().numpy()
    return error_model.AtomClasses(
        a[e], b[e], np.array([r[1] for r in rows]), np.array([r[2] for r in rows]), e
    )


def _grid(cell: gemmi.UnitCell, S_max: float, sigma: float):
    axes = np.array([cell.a, cell.b, cell.c])
    # 2 h_max + 2: every index stays below the Nyquist index
    shape = tuple(
        next_fast_len(int(max(np.ceil(2 * sigma * x * S_max / 2), 2 * int(x * S_max) + 2)), real=True)
        for x in axes
    )
    reciprocal = cell.reciprocal()
    return shape, np.array(shape) * np.array([reciprocal.a, reciprocal.b, reciprocal.c])


def _cost(crystal, shape, atoms, R) -> float:
    """Predicted time, ns."""
    h = np.array([crystal.cell.a, crystal.cell.b, crystal.cell.c]) / shape
    runs = np.pi * R**2 / (h[0] * h[1]) * np.ceil(2 * R / h[2] / LANES)
    return FFT_POINT * float(np.prod(shape)) + ATOM_RUN * len(crystal) * float(atoms.share @ runs)


def _fit_radius(atoms, R, n_scatterer: int) -> torch.Tensor:
    """R² of each scatterer as a line in B through the ends of its range, raised to cover the classes between."""
    out = torch.ones((n_scatterer, 3), dtype=torch.float64)
    out[:, 1:] = 0.0
    for e in np.unique(atoms.scatterer):
        B, R2 = atoms.B[atoms.scatterer == e], R[atoms.scatterer == e] ** 2
        span = B[-1] - B[0]
        slope = max(0.0, (R2[-1] - R2[0]) / span) if span > 1e-6 else 0.0
        p = float((R2 - slope * (B - B[0])).max())
        out[e] = torch.tensor([p, slope, B[0]])
    return out
