"""References for the amplitudes to be merged: amplitudes or intensities of a file, or structure factors of a model.

    file    F'_h = F_h/√Σ(s)                                    Σ(s) = ⟨F²/ε⟩ by `wilson_sigma`, over the common rows
    model   F'_h = [F_atoms + k_sol exp(-B_sol s²) F_mask]/√Σ(s),  Σ(s) at k_sol = 0.35 e/Å³, B_sol = 46 Å²

Intensities become amplitudes by `french_wilson`. Reflections of the free set are treated as if the reference did not
have them: a prior that has seen the model would tell R-free of it.
"""

from pathlib import Path

import gemmi
import numpy as np
import torch

from bayesref._checks import InputError
from bayesref.crystal import symmetry
from bayesref.crystal.asu import ReciprocalASU
from bayesref.crystal.lattice import format_cell
from bayesref.data.reference import ModelAmplitudes, Reference, ReferenceAmplitudes
from bayesref.distributions import french_wilson, wilson_sigma
from bayesref.io.merged import _read, measured_pairs
from bayesref.io.structure import read_structure
from bayesref.scaling.basis import bumps
from bayesref.structure_factors.calculate import structure_factors
from bayesref.structure_factors.scale import add_solvent
from bayesref.structure_factors.solvent import SolventMask

PREFERRED = ("F", "FP", "F-obs", "FOBS", "FMEAN", "I", "IMEAN", "I-obs", "IOBS")
N_BASIS = 5  # functions of s² in which a parameter of the prior may vary
LENGTH, ANGLE = 0.02, 2.0  # relative, degrees: cells further apart have amplitudes that have little in common
K_SOL, B_SOL = 0.35, 46.0  # e/Å³, Å²: typical of proteins
PER_INTERVAL = 250  # reflections to an interval of the spline of Σ(s): their mean intensity is known to 6 %
RELATIVE_ERROR = 0.05  # of an intensity whose amplitude came without SIGF, for the mean over neighbours alone


def read_reference(path, asu: ReciprocalASU, labels=None, free: torch.Tensor | None = None):
    """Amplitudes of a file, for the reflections of `asu`.

    Parameters
    ----------
    path : merged MTZ or structure-factor mmCIF
    asu : the reflections that are merged; Friedel mates and datasets share one reference
    labels : names of the column and, if there is one, of its standard deviation; default: found
    free : (hkl,) bool, reflections to leave out

    Returns
    -------
    reference : Reference of `ReferenceAmplitudes`
    note : str, what was read and how many reflections it has

    Raises
    ------
    InputError : no such file or column, another crystal, no reflection in common
    """
    path = Path(path)
    mtz = _read(path)
    if mtz.spacegroup is None or not mtz.cell.is_crystal():
        raise InputError(
            f"{path} has no cell or space group, so that it cannot be a reference; give another file."
        )
    _check_cell(path, mtz.cell, asu)
    _check_point_group(path, mtz.spacegroup, asu)
    value, sigma = _columns(path, mtz, labels)
    column = mtz.column_with_label(value)
    x = column.array.astype(float)
    s = mtz.column_with_label(sigma).array.astype(float) if sigma else np.zeros_like(x)
    usable = np.isfinite(x) & np.isfinite(s) & (s >= 0)
    usable &= (s > 0) if column.type == "J" else (x >= 0)
    row, found = _match(path, mtz.make_miller_array()[usable], asu)
    known = torch.from_numpy(found)
    if not bool(known.any()):
        raise InputError(
            f"{path} has none of the {len(asu)} reflections that are merged; give data of the same crystal form."
        )
    I_or_F, sd = (torch.from_numpy(v[usable][row]) for v in (x, s))
    n_absent = int((~known).sum())
    if free is not None:
        known = known & ~free
    F, SIGF = _normalised(I_or_F[known], sd[known], asu.subset(known), column.type == "J")
    zero = torch.zeros(len(asu), dtype=torch.float64)
    rows = ReferenceAmplitudes(
        zero.masked_scatter(known, F), zero.masked_scatter(known, SIGF), known, _basis(asu)
    )
    what = f"{path} ({value}{', ' + sigma if sigma else ', without standard deviations'})"
    return Reference(asu, rows), f"Reference {what}: {_counts(asu, n_absent, free)}"


def model_reference(path, asu: ReciprocalASU, free: torch.Tensor | None = None):
    """Structure factors of a model, with the mask of its solvent, for the reflections of `asu`.

    Parameters and errors as those of `read_reference`; rows are `ModelAmplitudes`.
    """
    path = Path(path)
    crystal = read_structure(path)
    _check_cell(path, crystal.cell, asu)
    _check_point_group(path, crystal.spacegroup, asu)
    hkl = asu.hkl.clone()  # the plan keeps it
    with torch.no_grad():
        F_atoms = structure_factors(crystal, hkl).to(torch.complex128)
        F_mask = SolventMask(hkl)(crystal)
        F = add_solvent(F_atoms, F_mask, asu.stol2, K_SOL, B_SOL).abs()
    Sigma = _sigma(F**2, RELATIVE_ERROR * F**2, asu)
    known = torch.ones(len(asu), dtype=torch.bool) if free is None else ~free
    rows = ModelAmplitudes(F_atoms / Sigma.sqrt(), F_mask / Sigma.sqrt(), known, _basis(asu))
    return Reference(asu, rows), f"Model {path}, {len(crystal)} atoms: {_counts(asu, 0, free)}"


def _counts(asu, n_absent, free):
    n_free = 0 if free is None else int(free.sum())
    parts = [f"{n_absent} that it lacks"] if n_absent else []
    parts += [f"{n_free} of the free set"] if n_free else []
    rest = f"; Wilson's prior for {' and '.join(parts)}." if parts else "."
    return f"{len(asu) - n_absent:,} of {len(asu):,} reflections{rest}"


def _check_cell(path, cell, asu):
    mine, theirs = (np.array(c.parameters) for c in (asu.cell, cell))
    if np.abs(theirs[:3] / mine[:3] - 1).max() > LENGTH or np.abs(theirs[3:] - mine[3:]).max() > ANGLE:
        raise InputError(
            f"The unit cell of {path} is {format_cell(cell)}, that of the data {format_cell(asu.cell)}: they differ by "
            f"more than {LENGTH:.0%} or {ANGLE:g} degrees; give a reference of the same crystal form."
        )


def _check_point_group(path, spacegroup: gemmi.SpaceGroup, asu):
    """Screw axes may differ: they are often known only from the structure."""
    mine, theirs = (g.operations().derive_symmorphic() for g in (asu.spacegroup, spacegroup))
    if mine != theirs:
        raise InputError(
            f"The space group of {path} is {spacegroup.xhm()}, that of the data {asu.spacegroup.xhm()}; reindex one of "
            "them, or name the right one with --spacegroup."
        )


def _columns(path, mtz, labels):
    """Names of the amplitudes or intensities and of their standard deviations; the latter may be None."""
    kinds = {c.label: c.type for c in mtz.columns}
    listing = ", ".join(f"{k} ({t})" for k, t in kinds.items() if t not in "HBY")
    if labels:
        if len(labels) > 2:
            raise InputError(f"{','.join(labels)} are {len(labels)} columns; name one, or one and its sigma.")
        for name in labels:
            if name not in kinds:
                raise InputError(f"{path} has no column {name}; it has {listing}.")
        value, sigma = labels[0], labels[1] if len(labels) == 2 else None
        if kinds[value] not in "FJ" or (sigma and kinds[sigma] != "Q"):
            raise InputError(
                f"{path}: {', '.join(f'{k} ({kinds[k]})' for k in labels)} cannot be a reference; name a column of "
                f"type F or J and its sigma of type Q, among {listing}."
            )
        if kinds[value] == "J" and not sigma:
            raise InputError(
                f"{path}: intensities {value} need their sigma; name both, such as {value},SIG{value}."
            )
        return value, sigma
    pairs = measured_pairs(mtz)
    amplitudes = [p for p in pairs if kinds[p[0]] == "F"] or pairs
    best = sorted((p for p in amplitudes if p[0] in PREFERRED), key=lambda p: PREFERRED.index(p[0]))[:1]
    best = best or amplitudes
    if not best:
        raise InputError(f"{path} has no measured amplitudes with a sigma; name a column, it has {listing}.")
    if len(best) > 1:
        several = "; ".join(",".join(p) for p in best)
        raise InputError(f"{path} holds several sets of data: {several}; name one of them.")
    return best[0]


def _match(path, hkl, asu):
    """Row of the file for each reflection of `asu`, and whether there is one, (hkl,) each."""
    theirs, _ = symmetry.to_asu(hkl, asu.spacegroup)
    mine, _ = symmetry.to_asu(asu.hkl.numpy(), asu.spacegroup)
    bound = int(max(np.abs(theirs).max(initial=0), np.abs(mine).max(initial=0)))
    key, wanted = symmetry.pack(theirs, bound), symmetry.pack(mine, bound)
    order = np.argsort(key, kind="stable")
    key = key[order]
    if (np.diff(key) == 0).any():
        raise InputError(f"{path} has several rows for one reflection; merge it first with bayesref merge.")
    if not len(key):
        return np.zeros(len(mine), dtype=np.int64), np.zeros(len(mine), dtype=bool)
    where = np.searchsorted(key, wanted).clip(max=len(key) - 1)
    return order[where], key[where] == wanted


def _sigma(I, SIGI, asu):
    floor = 1e-3 * float(I.mean())  # a zero amplitude has a zero error without it
    intervals = min(max(len(asu) // PER_INTERVAL, 1), 24)
    return wilson_sigma(I, SIGI.clamp(min=floor), asu.stol2, asu.epsilon, asu.centric, intervals)


def _normalised(x, s, asu, intensities):
    """F and SIGF over √Σ, from amplitudes or intensities and their standard deviations."""
    if intensities:
        Sigma = _sigma(x, s, asu)
        made = french_wilson(x, s, Sigma, asu.centric, asu.epsilon)
        return made.F / Sigma.sqrt(), made.SIGF / Sigma.sqrt()
    Sigma = _sigma(x**2 + s**2, (2 * x * s).maximum(RELATIVE_ERROR * x**2), asu)
    return x / Sigma.sqrt(), s / Sigma.sqrt()


def _basis(asu):
    s2 = asu.stol2
    return bumps(s2, N_BASIS, (float(s2.min()), float(s2.max())))
