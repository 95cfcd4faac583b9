"""Twin laws: operators of the lattice that the crystal lacks, by which two domains may be intergrown.

    I(h) = (1 - α) J(h) + α J(h T),      T ∉ P,   T² ∈ P,   T⁻¹ P T = P         J: of one domain; P: its point group

One law stands for its coset T P, whose operators all pair the same reflections. T² ∈ P makes pairs of them, and
T⁻¹ P T = P leaves the symmetry of the intensities as it is; laws of other kinds have more than two domains, or break
the symmetry in which the data were merged. The misfit δ is by how much T misses the lattice:

    tan δ = max |log σ_i|,    σ_i singular values of O T O⁻¹      for a twofold axis that is the obliquity

δ = 0: merohedral; small: pseudo-merohedral. Cosets come from gemmi.find_twin_laws (after Le Page, 1982,
J. Appl. Cryst. 15, 255; Flack, 1987, Acta Cryst. A43, 564).
"""

from dataclasses import dataclass

import gemmi
import numpy as np

from bayesref._checks import InputError
from bayesref.crystal import symmetry
from bayesref.crystal.free_flags import MAX_OBLIQUITY
from bayesref.crystal.lattice import Cell, Group, as_cell, as_spacegroup

MEROHEDRAL = 0.01  # degrees: what is left of δ is the rounding of the cell
GIVEN_MISFIT = 6.0  # degrees: an operator that a user names may be this far off


@dataclass(frozen=True, eq=False)
class TwinLaw:
    """One two-domain law.

    Attributes
    ----------
    operator : "k,h,-l", what T makes of the indices h, k, l
    rotation : (3, 3) int64, T; indices transform as rows, h T
    misfit : δ, degrees
    """

    operator: str
    rotation: np.ndarray
    misfit: float

    @property
    def merohedral(self) -> bool:
        """Whether the lattice has T exactly."""
        return self.misfit < MEROHEDRAL

    def mates(self, hkl, spacegroup: gemmi.SpaceGroup) -> tuple[np.ndarray, np.ndarray]:
        """h T inside the asymmetric unit, (n, 3) int32, and whether the space group forbids it, (n,) bool."""
        image = symmetry.as_hkl(symmetry.as_hkl(hkl).astype(np.int64) @ self.rotation)
        return symmetry.to_asu(image, spacegroup)[0], symmetry.is_absent(image, spacegroup)

    def __str__(self) -> str:
        kind = "merohedral" if self.merohedral else f"pseudo-merohedral, off by {self.misfit:.2f}°"
        return f"{self.operator} ({kind})"


def twin_laws(cell: Cell, spacegroup: Group, max_obliquity: float = MAX_OBLIQUITY) -> list[TwinLaw]:
    """Two-domain laws of a lattice, those that fit it best first.

    Parameters
    ----------
    cell, spacegroup : as `reciprocal_asu` takes them
    max_obliquity : degrees
    """
    cell, spacegroup = as_cell(cell), as_spacegroup(spacegroup)
    point = _rotations(spacegroup)
    found = []
    for op in gemmi.find_twin_laws(cell, spacegroup, max_obliquity, False):
        T = np.array(op.rot) // op.DEN
        if _two_domains(T, point):
            found.append(_representative(T, point, cell))
    return sorted(
        (x for x in found if x.misfit <= max_obliquity), key=lambda x: (round(x.misfit, 2), x.operator)
    )


def twin_law(operator: str, cell: Cell, spacegroup: Group) -> TwinLaw:
    """The law that a user names, such as "k,h,-l".

    Raises
    ------
    InputError : not an operator, an operator of the crystal itself, one that makes no pairs or does not fit the lattice
    """
    cell, spacegroup = as_cell(cell), as_spacegroup(spacegroup)
    try:
        op = gemmi.Op(operator)
        op = op.as_xyz() if any(x in operator.lower() for x in "hkl") else op
    except (RuntimeError, ValueError) as error:
        raise InputError(f"'{operator}' is no twin operator; give one such as 'k,h,-l'.") from error
    T = np.array(op.rot) / op.DEN
    if (np.round(T) != T).any() or round(abs(np.linalg.det(T))) != 1:
        raise InputError(
            f"The twin operator '{operator}' does not map whole indices onto whole ones, one to one."
        )
    T = T.astype(np.int64)
    T = T if np.linalg.det(T) > 0 else -T  # Friedel's law: inversion changes nothing
    point = _rotations(spacegroup)
    if tuple(T.ravel()) in point:
        raise InputError(
            f"The operator {operator} is a symmetry of {spacegroup.xhm()} itself, so it makes no twin; "
            f"laws of this lattice: {_names(cell, spacegroup)}."
        )
    law = TwinLaw(operator.replace(" ", ""), T, _misfit(T, cell))
    if law.misfit > GIVEN_MISFIT:
        raise InputError(
            f"The twin operator {operator} misses the lattice by {law.misfit:.1f}° (at most {GIVEN_MISFIT:g}° can be); "
            f"laws of this lattice: {_names(cell, spacegroup)}."
        )
    if not _two_domains(T, point):
        raise InputError(
            f"The twin operator {operator} has more than two domains in {spacegroup.xhm()}, or breaks its symmetry; "
            f"laws of two domains: {_names(cell, spacegroup)}."
        )
    return law


def _names(cell, spacegroup) -> str:
    return "; ".join(x.operator for x in twin_laws(cell, spacegroup)) or "none"


def _rotations(spacegroup) -> dict[tuple, np.ndarray]:
    """Rotations of the point group, with no inversion, by their elements."""
    all_ = [np.array(op.rot, dtype=np.int64) // op.DEN for op in spacegroup.operations().sym_ops]
    proper = [R if np.linalg.det(R) > 0 else -R for R in all_]
    return {tuple(R.ravel()): R for R in proper}


def _two_domains(T, point) -> bool:
    inverse = np.round(np.linalg.inv(T)).astype(np.int64)
    moved = (inverse @ R @ T for R in point.values())
    return tuple((T @ T).ravel()) in point and all(tuple(R.ravel()) in point for R in moved)


def _misfit(T, cell) -> float:
    O = np.array(cell.orth.mat.tolist())
    stretch = np.linalg.svd(O @ T @ np.linalg.inv(O), compute_uv=False)
    return float(np.degrees(np.arctan(np.abs(np.log(stretch)).max())))


def _representative(T, point, cell) -> TwinLaw:
    """The operator of the coset that is easiest to read: a twofold if there is one, few sums, few signs."""
    coset = [T @ R for R in point.values()]

    def effort(R):
        twofold = np.array_equal(R @ R, np.eye(3, dtype=np.int64))
        return not twofold, np.abs(R).sum(), (R < 0).sum(), *(-R.ravel())

    best = min(coset, key=effort)
    return TwinLaw(_triplet(best), best, _misfit(best, cell))


def _triplet(T) -> str:
    """What h T is, as text."""
    return ",".join(
        "".join(f"{'+' if c > 0 else '-'}{x}" for c, x in zip(column, "hkl", strict=True) if c).removeprefix(
            "+"
        )
        for column in T.T
    )
