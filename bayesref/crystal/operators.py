"""Symmetry operators as integers.

    x' = R_g x + t_g                               direct space, fractional, g over the whole group with centring
    F(h) = Σ_g e^{2πi h·t_g} F_1(h R_g)            F_1 = the transform of one asymmetric unit

Translations are multiples of 1/24 in every setting, so phases come from integers and are exact.
"""

from dataclasses import dataclass

import gemmi
import torch

TRANSLATION_UNIT = 24


@dataclass(frozen=True)
class Operators:
    """All operators of a space group, centring included.

    Attributes
    ----------
    rot : (op, 3, 3) int64, R_g acting on fractional coordinates
    tran : (op, 3) int64, 24 t_g
    """

    rot: torch.Tensor
    tran: torch.Tensor

    def __len__(self) -> int:
        return len(self.rot)

    def hkl(self, hkl: torch.Tensor) -> torch.Tensor:
        """h R_g for integer `hkl` (hkl, 3): (op, hkl, 3) int64."""
        # integer matrix products exist on the CPU only
        return (hkl[None, :, :, None] * self.rot.to(hkl.device)[:, None]).sum(2)

    def phase(self, hkl: torch.Tensor) -> torch.Tensor:
        """exp(2πi h·t_g), (op, hkl) complex128."""
        turn = (hkl[None] * self.tran.to(hkl.device)[:, None]).sum(-1) % TRANSLATION_UNIT
        return torch.polar(
            torch.ones((), dtype=torch.float64, device=hkl.device),
            turn.double() * (2 * torch.pi / TRANSLATION_UNIT),
        )


def operators(spacegroup: gemmi.SpaceGroup) -> Operators:
    """The operators of `spacegroup`, identity first."""
    ops = list(spacegroup.operations())
    rot = torch.tensor([op.rot for op in ops], dtype=torch.int64)
    tran = torch.tensor([op.tran for op in ops], dtype=torch.int64)
    return Operators(rot // gemmi.Op.DEN, tran * TRANSLATION_UNIT // gemmi.Op.DEN % TRANSLATION_UNIT)
