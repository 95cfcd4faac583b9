"""Structure factors by direct summation, in float64: the truth that everything else is tested against.

    F(h) = Σ_g e^{2πi h·t_g} Σ_j o_j f_j(s) T_j(h R_g) e^{2πi h R_g x_j}          g operators, j atoms, electrons
    T_j(h) = exp(-B_j s²)  or  exp(-2π² hᵀ O⁻¹ U_j O⁻ᵀ h)                            s² = 1/(4 d²)

Reflections are taken in chunks whose intermediates are recomputed in the backward pass, so memory does not grow
with their number. Every derivative that torch offers is available, second ones included.
"""

import torch
from torch.utils.checkpoint import checkpoint

from bayesref.crystal.atoms import B_PER_U, Crystal, symmetric
from bayesref.crystal.cell import fractionalization
from bayesref.crystal.form_factors import FormFactors
from bayesref.crystal.operators import operators

CHUNK = 1 << 20  # (reflection, atom) pairs at a time: about 100 MB of intermediates


def direct(crystal: Crystal, hkl: torch.Tensor, factors: FormFactors) -> torch.Tensor:
    """F(h) of the atoms, (..., hkl) complex128.

    Parameters
    ----------
    crystal : parameters with any leading dimensions
    hkl : (hkl, 3) int64, any indices
    factors : form factors of the crystal's atoms
    """
    U = crystal.xyz.new_zeros(()) if crystal.U is None else crystal.U
    parameters = [p.to(torch.float64) for p in (crystal.xyz, crystal.B, U, crystal.occupancy)]
    n = max(1, CHUNK // max(1, len(crystal)))
    blocks = hkl.split(n)

    def block(h: torch.Tensor, *p: torch.Tensor) -> torch.Tensor:
        return _block(crystal, factors.to(h.device), h, *p)

    if len(blocks) == 1:  # plain torch, so that torch.func transforms it too
        return block(hkl, *parameters)
    if not blocks:
        return block(hkl, *parameters)
    return torch.cat([checkpoint(block, h, *parameters, use_reentrant=False) for h in blocks], -1)


def _block(crystal, factors, hkl, xyz, B, U, occupancy) -> torch.Tensor:
    inverse = fractionalization(crystal.cell).to(hkl.device)
    ops = operators(crystal.spacegroup)
    stol2 = (hkl.double() @ inverse).square().sum(-1) / 4  # (hkl,)
    f = torch.complex(factors.f0(stol2), factors.f2.expand(len(hkl), -1))[:, factors.index]  # (hkl, atom)
    iso = torch.where(crystal.anisotropic, 0.0, B)
    f = f * (occupancy[..., None, :] * torch.exp(-iso[..., None, :] * stol2[:, None]))  # (..., hkl, atom)
    total: torch.Tensor = f.new_zeros(())
    for h, shift in zip(ops.hkl(hkl), ops.phase(hkl), strict=True):
        s = h.double() @ inverse  # (hkl, 3), Å⁻¹
        turn = 2 * torch.pi * (s @ xyz.transpose(-1, -2))  # (..., hkl, atom)
        wave = torch.complex(torch.cos(turn), torch.sin(turn))
        if crystal.U is not None:
            beta = _quadratic(s, torch.where(crystal.anisotropic[:, None], U, 0.0))
            wave = wave * torch.exp(-B_PER_U / 4 * beta)
        total = total + shift * (f * wave).sum(-1)
    return total


def _quadratic(s: torch.Tensor, U: torch.Tensor) -> torch.Tensor:
    """sᵀ U s, (..., hkl, atom), for s (hkl, 3) and U (..., atom, 6)."""
    return torch.einsum("hx,...axy,hy->...ha", s, symmetric(U), s)
