"""Unit cell and space group as users and files give them, and those that several files share.

    Rᵀ G R = G        G: metric tensor of the cell, Å²; R: rotation part of every operator

Files of one experiment are merged in one cell, the mean of theirs: sound only while the cells are nearly
equal, because crystals of different cells have different amplitudes at the same index (non-isomorphism).
"""

from collections.abc import Sequence

import gemmi
import numpy as np

from bayesref._checks import InputError

Cell = gemmi.UnitCell | Sequence[float]
Group = gemmi.SpaceGroup | str | int
# A ribosome to 1 Å has a tenth of it; ten times as many take minutes to list and more memory than most machines have.
MOST_REFLECTIONS = 3e7


def as_cell(cell: Cell) -> gemmi.UnitCell:
    """A gemmi cell from a gemmi cell or from a, b, c (Å), α, β, γ (degrees).

    Raises
    ------
    InputError : unless there are six positive numbers that enclose a volume
    """
    if not isinstance(cell, gemmi.UnitCell):
        numbers = [float(x) for x in cell]
        if len(numbers) != 6:
            raise InputError(f"A unit cell has six numbers, a b c alpha beta gamma; got {len(numbers)}.")
        cell = gemmi.UnitCell(*numbers)
    parameters = np.array(cell.parameters)
    # gemmi makes the volume of an impossible cell NaN, and its default cell has 1 Å³.
    if not (np.isfinite(parameters).all() and (parameters > 0).all() and cell.volume > 1.0):
        raise InputError(
            f"The unit cell {format_cell(cell)} encloses no volume; give a b c in Å and angles in degrees."
        )
    return cell


def as_spacegroup(spacegroup: Group) -> gemmi.SpaceGroup:
    """A gemmi space group from a gemmi space group, a Hermann-Mauguin symbol or a number.

    Raises
    ------
    InputError : for a symbol or number that gemmi does not know
    """
    if isinstance(spacegroup, gemmi.SpaceGroup):
        return spacegroup
    text = str(spacegroup).strip()
    try:
        # gemmi takes the number 0 for P 1.
        if text != "0":
            return gemmi.SpaceGroup(int(text)) if text.isdigit() else gemmi.SpaceGroup(text)
    except ValueError:
        pass
    raise InputError(f"'{spacegroup}' is not a space group; give a symbol such as 'P 21 21 21' or 1 to 230.")


def format_cell(cell: gemmi.UnitCell) -> str:
    """'a b c alpha beta gamma' for messages."""
    return " ".join(f"{x:.5g}" for x in cell.parameters)


def check_compatible(cell: gemmi.UnitCell, spacegroup: gemmi.SpaceGroup, eps: float = 0.03) -> None:
    """Raise `InputError` where the symmetry of `spacegroup` changes the shape of `cell`.

    `eps` bounds the change of an element of G relative to the largest. It is wide because serial and mean
    cells are rarely exact.
    """
    A = np.array(cell.orth.mat.tolist())
    G = A.T @ A
    for op in spacegroup.operations().sym_ops:
        R = np.array(op.rot) / op.DEN
        if np.abs(R.T @ G @ R - G).max() > eps * np.abs(G).max():
            raise InputError(
                f"Space group {spacegroup.xhm()} does not fit the unit cell {format_cell(cell)}; "
                "give a space group of the right crystal system, or the cell in that setting."
            )


def check_resolution(cell: gemmi.UnitCell, spacegroup: gemmi.SpaceGroup, dmin: float) -> None:
    """Raise `InputError` where a limit of resolution makes no reflections, or more than fit into memory.

    Unique reflections to d are about 2π V/(3 d³) over the operators, with Friedel mates as one.
    """
    if not dmin > 0:
        raise InputError(f"The limit of resolution (dmin) is {dmin:g}; it must be above zero, in Å.")
    n = 2 * np.pi * cell.volume / (3 * dmin**3 * len(spacegroup.operations()))
    if n > MOST_REFLECTIONS:
        raise InputError(
            f"The cell {format_cell(cell)} has about {n:.0e} reflections to {dmin:g} Å; give a larger dmin."
        )
    if not len(gemmi.make_miller_array(cell, spacegroup, dmin)):
        raise InputError(f"No reflection lies within dmin = {dmin:g} Å of this cell; give a smaller dmin.")


def mean_cell(
    cells: Sequence[gemmi.UnitCell],
    names: Sequence[str],
    length_tolerance: float = 0.02,
    angle_tolerance: float = 2.0,
) -> gemmi.UnitCell:
    """The mean of cells that agree.

    Parameters
    ----------
    cells : of the files, Å and degrees
    names : of the files, for the message
    length_tolerance : largest relative difference of an edge
    angle_tolerance : largest difference of an angle, degrees

    Raises
    ------
    InputError : where a cell differs from the first by more than the tolerances
    """
    p = np.array([c.parameters for c in cells])  # (file, 6)
    lengths = np.abs(p[:, :3] / p[0, :3] - 1) > length_tolerance
    angles = np.abs(p[:, 3:] - p[0, 3:]) > angle_tolerance
    bad = np.flatnonzero(lengths.any(1) | angles.any(1))
    if bad.size:
        i = int(bad[0])
        raise InputError(
            f"The unit cells of {names[0]} ({format_cell(cells[0])}) and {names[i]} "
            f"({format_cell(cells[i])}) differ by more than {length_tolerance:.0%} or {angle_tolerance:g} "
            "degrees; leave one out, or give the cell to use for all."
        )
    return gemmi.UnitCell(*p.mean(axis=0))
