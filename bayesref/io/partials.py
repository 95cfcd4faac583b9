"""Partially recorded reflections of rotation data: the parts on neighbouring images become one observation.

    I = Σ I_p,    SIGI² = Σ SIGI_p²,    f = Σ f_p        f_p: FRACTIONCALC, the fraction calculated for a part

Mosflm writes one row per part: the flag M of M/ISYM = 256 M + ISYM is 1, and MPART = 100 n + p says that it
is part p of n. A sum stands where all n parts are there, or 0.95 <= f <= 1.05; other reflections are left
out, as at the ends of a sweep. The sum takes the row of the largest part, and so its image and metadata.
"""

import numpy as np

FRACTION_LIMITS = (0.95, 1.05)  # the limits of CCP4's AIMLESS (Evans & Murshudov 2013, Acta Cryst. D69, 1204)


def sum_partials(hkl, image, I, SIGI, is_partial, part=None, fraction=None):
    """Sum the parts of each reflection.

    Parameters
    ----------
    hkl : (row, 3) int, as observed
    image : (row,) int
    I, SIGI : (row,) float64
    is_partial : (row,) bool
    part : (row,) int, MPART, optional
    fraction : (row,) FRACTIONCALC, optional; one of these two is needed

    Returns
    -------
    I, SIGI : (row,) float64, sums in the rows of the largest parts
    flagged : cause -> (row,) bool, rows that are no observation of their own
    """
    rows = np.flatnonzero(is_partial)
    rows = rows[np.lexsort((image[rows], *hkl[rows].T))]
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (np.diff(hkl[rows], axis=0) != 0).any(axis=1) | (np.diff(image[rows]) != 1)
    if part is not None:
        new |= part[rows] % 100 == 1
    starts = np.flatnonzero(new)
    group = np.cumsum(new) - 1
    n_parts = np.bincount(group, minlength=len(starts))
    complete = np.zeros(len(starts), dtype=bool)
    weight = I[rows]
    if fraction is not None:
        weight = fraction[rows]
        total = np.add.reduceat(weight, starts)
        complete |= (total >= FRACTION_LIMITS[0]) & (total <= FRACTION_LIMITS[1])
    if part is not None:
        complete |= n_parts == part[rows[starts]] // 100
    # The largest part of each group: the last of its rows once these are sorted by weight.
    largest = rows[np.lexsort((weight, group))[np.append(starts[1:], len(rows)) - 1]]
    I, SIGI = I.copy(), SIGI.copy()
    I[largest] = np.add.reduceat(I[rows], starts)
    SIGI[largest] = np.sqrt(np.add.reduceat(SIGI[rows] ** 2, starts))
    incomplete = np.zeros(len(I), dtype=bool)
    incomplete[rows] = ~complete[group]
    others = is_partial & ~incomplete
    others[largest] = False
    return I, SIGI, {"incomplete partial": incomplete, "summed with other parts": others}
