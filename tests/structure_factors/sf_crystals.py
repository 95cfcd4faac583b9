"""Crystals made for tests: any space group, isotropic or anisotropic, random atoms."""

import gemmi
import torch

from bayesref.crystal.atoms import Crystal


def random_crystal(
    spacegroup: str = "P 1",
    cell=(18.0, 22.0, 26.0, 84.0, 97.0, 103.0),
    n: int = 40,
    anisotropic: bool = False,
    B=(8.0, 40.0),
    seed: int = 0,
    elements=("C", "N", "O", "S"),
) -> Crystal:
    """Atoms at random in the cell; with `anisotropic` every second one has a U tensor."""
    g = torch.Generator().manual_seed(seed)
    uniform = lambda *shape: torch.rand(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    cell = gemmi.UnitCell(*cell)
    xyz = uniform(n, 3) @ torch.tensor(cell.orth.mat.tolist(), dtype=torch.float64).T
    flags, U = torch.zeros(n, dtype=torch.bool), None
    if anisotropic:
        flags = torch.arange(n) % 2 == 0
        L = 0.25 * torch.randn(n, 3, 3, generator=g, dtype=torch.float64)
        M = L @ L.mT + 0.1 * torch.eye(3, dtype=torch.float64)
        U = torch.stack([M[:, i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))], -1)
        U = torch.where(flags[:, None], U, 0.0)
    scatterer = tuple(elements[int(i)] for i in (uniform(n) * len(elements)).long())
    name = tuple(f"A/UNK {i}/X" for i in range(n))
    return Crystal(
        xyz,
        B[0] + (B[1] - B[0]) * uniform(n),
        U,
        flags,
        0.3 + 0.7 * uniform(n),
        scatterer,
        name,
        ("",) * n,
        cell,
        gemmi.SpaceGroup(spacegroup),
    )


def reflections(crystal: Crystal, d_min: float) -> torch.Tensor:
    """Unique reflections to d_min, (hkl, 3)."""
    return torch.tensor(gemmi.make_miller_array(crystal.cell, crystal.spacegroup, d_min), dtype=torch.int64)


CELLS = {  # a cell that each crystal system allows
    "triclinic": (11, 13, 12, 80, 95, 104),
    "monoclinic": (11, 13, 12, 90, 105, 90),
    "orthorhombic": (11, 13, 12, 90, 90, 90),
    "tetragonal": (11, 11, 13, 90, 90, 90),
    "trigonal": (11, 11, 13, 90, 90, 120),
    "hexagonal": (11, 11, 13, 90, 90, 120),
    "cubic": (12, 12, 12, 90, 90, 90),
}


def cell_for(spacegroup: gemmi.SpaceGroup) -> tuple:
    """A cell in which the operators of this setting preserve distances."""
    name = spacegroup.crystal_system_str()
    if name == "trigonal" and spacegroup.ext == "R":
        return (11, 11, 11, 80, 80, 80)
    if name == "monoclinic":  # the unique axis of the setting
        axis = spacegroup.monoclinic_unique_axis()
        return (11, 13, 12, *[105 if x == axis else 90 for x in "abc"])
    return CELLS[name]
