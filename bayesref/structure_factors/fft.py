"""Structure factors by density and FFT.

    ρ = density of the asymmetric unit with B + β        F(h) = e^{βs²} V/N Σ_g e^{2πi h·t_g} FFT[ρ](h R_g)

f'' makes a second, imaginary density. The plan fixes grid, blur β and radii, so F is a smooth function of the
parameters: the radius of an atom changes smoothly with its B, and the density vanishes smoothly there.
"""

import torch

from bayesref._checks import InputError
from bayesref.crystal.atoms import B_PER_U, Crystal
from bayesref.fourier.density import density
from bayesref.structure_factors.plan import Plan
from bayesref.structure_factors.transform import cell_transform

RADIUS2_MIN = 0.5  # Å², where B falls far below the range that the plan was made for


def fft(crystal: Crystal, plan: Plan, backend: str | None = None) -> torch.Tensor:
    """F(h) of the atoms, (..., hkl) complex64 or complex128 with the plan's grid.

    Raises
    ------
    InputError
        Where the plan is that of another list of atoms.
    """
    if len(plan.factors.index) != len(crystal):
        raise InputError(f"The plan is for {len(plan.factors.index)} atoms, the crystal has {len(crystal)}.")
    F = cell_transform(_grid(crystal, plan, plan.factors.a, plan.factors.b, backend), plan.gather)
    if plan.anomalous:
        f2 = plan.factors.f2[:, None]
        F = F + 1j * cell_transform(_grid(crystal, plan, f2, torch.zeros_like(f2), backend), plan.gather)
    return F


def _grid(crystal: Crystal, plan: Plan, a, b, backend) -> torch.Tensor:
    """Density of the asymmetric unit, blurred, (..., nx, ny, nz)."""
    frac = crystal.xyz.double() @ torch.linalg.inv(plan.orth).T.to(crystal.xyz.device)
    parts = []
    for rows, tensor in plan.groups:
        pick = slice(None) if rows is None else rows
        index = plan.factors.index[pick]
        if tensor and crystal.U is not None:
            adp, width = _tensor_adp(crystal.U[..., pick, :])
        else:
            adp = width = crystal.B[..., pick].double()
        p, q, B0 = plan.radius[index].unbind(-1)
        radius2 = (p + q * (width - B0)).clamp(min=RADIUS2_MIN)
        unit = torch.tensor([1.0, 1, 1, 0, 0, 0] if tensor else 1.0, dtype=torch.float64, device=adp.device)
        parts.append(
            density(
                frac[..., pick, :],
                crystal.occupancy[..., pick].double(),
                adp + plan.blur * unit,
                radius2,
                a,
                b,
                index,
                plan.orth,
                plan.shape,
                plan.dtype,
                backend,
            )
        )
    return sum(parts[1:], parts[0])


def _tensor_adp(U: torch.Tensor):
    """8π²U, and 8π² (U_eq + √(2/3) |U - U_eq|): no less than its largest eigenvalue, and smooth."""
    B = U.double() * B_PER_U
    mean = B[..., :3].mean(-1)
    spread = (B[..., :3] - mean[..., None]).square().sum(-1) + 2 * B[..., 3:].square().sum(-1)
    return B, mean + (2 / 3 * spread + 1e-6).sqrt()
