"""Displacements of the atoms: spheres, ellipsoids, and rigid groups that shake.

    isotropic      U_i = (B_i / 8π²) 1
    anisotropic    U_i = (B_i / 8π²) exp(A_i)                 A_i symmetric and traceless, five numbers a_i
    tls            U_i = (B_i / 8π²) 1 + W_i C W_iᵀ           W_i = [1  -[r_i]×]: u = t + λ × r
    tls+anisotropic   both

The site "B" is the size of an atom's own displacement, "A" its shape, "tls" the motion of the groups (`tls`).
U is positive definite whatever the parameters are.
"""

from dataclasses import dataclass, replace

import torch

from bayesref._checks import InputError
from bayesref.crystal.atoms import B_PER_U, Crystal
from bayesref.refinement.tls import RigidGroups
from bayesref.restraints.adp import logarithm, six, tensors

KINDS = ("isotropic", "anisotropic", "tls", "tls+anisotropic")
OWN_SHARE = 0.5  # of the first B is an atom's own where groups shake
B_MIN = 1.0  # Å², of an atom's own displacement at the start


@dataclass(frozen=True, eq=False)
class Displacements:
    """Which displacements a model has, and where they start.

    Attributes
    ----------
    kind : one of KINDS
    B : (atom,), Å², the site "B" as the fit starts
    A : (atom, 5), the site "A"; (0, 5) where shapes are not refined
    groups : RigidGroups or None
    width2 : τ² of the restraints of shapes and of rigid bonds, see `restraints.adp`
    """

    kind: str
    B: torch.Tensor
    A: torch.Tensor
    groups: RigidGroups | None = None
    width2: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def of(
        cls, crystal: Crystal, kind: str = "isotropic", groups: RigidGroups | None = None
    ) -> "Displacements":
        """Start of a crystal; its U is the start of the shapes where there are any.

        Raises
        ------
        InputError : another kind, or groups missing
        """
        if kind not in KINDS:
            raise InputError(f"Displacements are {', '.join(KINDS)}; {kind!r} is none of them.")
        if groups is None and "tls" in kind:
            raise InputError("TLS needs groups of atoms; see bayesref.refinement.tls.groups_of.")
        B, A = crystal.B.clamp(min=B_MIN), crystal.B.new_zeros(0, 5)
        if "anisotropic" in kind:
            A = crystal.B.new_zeros(len(crystal), 5)
            if crystal.U is not None:
                size, shape = logarithm(crystal.U)
                equivalent = (crystal.U[:, :3].mean(-1) * B_PER_U).clamp(min=B_MIN)
                A = torch.where(crystal.anisotropic[:, None], shape, A)
                B = torch.where(crystal.anisotropic, B * size / equivalent, B)
        if groups is not None and "tls" in kind:
            B = torch.where(groups.index >= 0, OWN_SHARE * B, B)
        return cls(kind, B, A, groups if "tls" in kind else None)

    @property
    def shaped(self) -> bool:
        """Whether the atoms' own displacements are ellipsoids."""
        return "anisotropic" in self.kind

    @property
    def spherical(self) -> bool:
        """Whether nothing but B is refined."""
        return self.kind == "isotropic"

    def U(self, B, A=None, tls=None) -> torch.Tensor:
        """U of all atoms, (..., atom, 6), Å²: B (..., atom), A (..., atom, 5), tls (..., group, 21).

        Raises
        ------
        InputError : A or tls missing
        """
        if (self.shaped and A is None) or (self.groups is not None and tls is None):
            raise InputError(
                f"The page has no site A or tls for {self.kind} displacements; see refine_anisotropic."
            )
        if self.shaped:
            total = six(tensors(B, A))
        else:
            one = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=B.dtype)
            total = (B / B_PER_U)[..., None] * one
        return total if self.groups is None else total + self.groups.U(tls)

    def apply(self, crystal: Crystal, B, A=None, tls=None) -> Crystal:
        """The crystal with these displacements; differentiable."""
        if self.spherical:
            return replace(crystal, B=B)
        U = self.U(B, A, tls)
        everywhere = torch.ones(len(crystal), dtype=torch.bool)
        return replace(crystal, U=U, anisotropic=everywhere, B=B_PER_U * U[..., :3].mean(-1))

    def blurred(self, values: dict, shift: torch.Tensor) -> dict:
        """Sites after adding the tensor `shift` (6,), Å², to 8π² U of all atoms; its mean where atoms are spheres."""
        if not self.shaped:
            return {**values, "B": (values["B"] + shift[:3].mean()).clamp(min=B_MIN)}
        B, A = logarithm(six(tensors(values["B"], values["A"])) + shift / B_PER_U)
        return {**values, "B": B, "A": A}

    def moved(self, xyz, B, A=None, tls=None) -> "Displacements":
        """The same that start from here, with the groups where their atoms are."""
        groups = None if self.groups is None else self.groups.moved(xyz, tls)
        return replace(self, B=B.detach(), A=self.A if A is None else A.detach(), groups=groups)
