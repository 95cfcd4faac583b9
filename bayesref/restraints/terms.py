"""Restraints as index tables: which atoms, which value, which standard deviation.

Angles and torsions are in radians here. An image is a symmetry operator with its lattice translation, as a
Cartesian map x -> R x + t; image 0 is the identity.
"""

from dataclasses import dataclass, fields, replace

import torch


@dataclass(frozen=True)
class Table:
    """What the tables share; every field is a tensor whose first axis counts the restraints."""

    def __len__(self) -> int:
        return len(self.atoms)  # type: ignore[attr-defined]

    def to(self, device):
        """The same table on a device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def pick(self, which: torch.Tensor):
        """The rows `which`, (n,) bool or int."""
        return replace(self, **{f.name: getattr(self, f.name)[which] for f in fields(self)})


@dataclass(frozen=True)
class Images(Table):
    """Cartesian symmetry operators: R (image, 3, 3), t (image, 3) Å."""

    R: torch.Tensor
    t: torch.Tensor

    def __len__(self) -> int:
        return len(self.R)


@dataclass(frozen=True)
class Bonds(Table):
    """atoms (n, 2); image (n,) of the second atom; value, sigma (n,) Å."""

    atoms: torch.Tensor
    image: torch.Tensor
    value: torch.Tensor
    sigma: torch.Tensor


@dataclass(frozen=True)
class Angles(Table):
    """atoms (n, 3), the vertex in the middle; value, sigma (n,) radians."""

    atoms: torch.Tensor
    value: torch.Tensor
    sigma: torch.Tensor


@dataclass(frozen=True)
class Torsions(Table):
    """atoms (n, 4); value, sigma (n,) radians; period (n,), 1 or more."""

    atoms: torch.Tensor
    value: torch.Tensor
    sigma: torch.Tensor
    period: torch.Tensor


@dataclass(frozen=True)
class Chirals(Table):
    """atoms (n, 4), the centre first; value (n,) signed volume, sigma (n,) Å³; both (n,) bool: either sign."""

    atoms: torch.Tensor
    value: torch.Tensor
    sigma: torch.Tensor
    both: torch.Tensor


@dataclass(frozen=True)
class Planes(Table):
    """atoms (n, most), filled up with -1; sigma (n,) Å of one atom's distance from the best plane."""

    atoms: torch.Tensor
    sigma: torch.Tensor


@dataclass(frozen=True)
class NonBonded(Table):
    """atoms (n, 2); image (n,) of the second atom; minimum (n,) distance and sigma (n,), Å."""

    atoms: torch.Tensor
    image: torch.Tensor
    minimum: torch.Tensor
    sigma: torch.Tensor


def integers(rows, width: int) -> torch.Tensor:
    """(n, width) int64 of a list of rows, also where there are none."""
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, width)


def numbers(values) -> torch.Tensor:
    """(n,) float64."""
    return torch.tensor(values, dtype=torch.float64).reshape(-1)
