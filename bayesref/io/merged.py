"""Merged data from files: MTZ and structure-factor mmCIF.

What is read, in this order of preference, unless `labels` names the columns:

    intensities IMEAN, I, ... (MTZ type J)  >  amplitudes FP, F, ... (type F with a sigma of type Q)

Calculated columns (FC, FWT, DELFWT, FMODEL, any F beside a phase) are no data and are refused even by name.
"""

import re
from pathlib import Path

import gemmi
import numpy as np
import torch

from bayesref._checks import InputError
from bayesref.crystal import symmetry
from bayesref.crystal.asu import reciprocal_asu
from bayesref.crystal.lattice import as_spacegroup
from bayesref.data.merged import MergedData
from bayesref.io.free_set import FreeSet, read_free_set

CALCULATED = re.compile(
    r"^(F-?C(ALC)?($|_)|FC_ALL|FWT|DELFWT|2?FOFC|[23]?FOFCWT|F-?MODEL|FMODEL|PHI|FOM|F_?calc|.*(WT|wt)$)",
    re.IGNORECASE,
)
PREFERRED = ("IMEAN", "I", "I-obs", "IOBS", "FP", "F", "F-obs", "FOBS")
CELL_LENGTH, CELL_ANGLE = (
    0.01,
    1.0,
)  # relative, degrees: how far the cell of a model may be from that of the data


def read_merged(
    path,
    *,
    labels=None,
    free_label=None,
    free_value=None,
    free_file=None,
    dmin=None,
    dmax=None,
    cell=None,
    spacegroup=None,
) -> MergedData:
    """Merged intensities or amplitudes.

    Parameters
    ----------
    path : MTZ or structure-factor mmCIF
    labels : (value, sigma) column names; default: the first pair that is preferred
    free_label, free_value : column of the R-free flags and the value that means free; default: recognised
    free_file : another file to take the flags from
    dmin, dmax : Å, limits of resolution
    cell, spacegroup : in place of those of the file

    Raises
    ------
    InputError : no such file, unmerged data, no or calculated columns, no usable row, flags that leave nothing
    """
    path = Path(path)
    mtz = _read(path)
    spacegroup = as_spacegroup(spacegroup) if spacegroup is not None else mtz.spacegroup
    cell = gemmi.UnitCell(*cell) if cell is not None else mtz.cell
    if spacegroup is None or not cell.is_crystal():
        raise InputError(f"{path} has no cell or space group; give them as options.")
    value, sigma = _choose(mtz, path, labels)
    table = np.array(mtz.array)
    hkl = table[:, :3].astype(np.int64)
    v, s = (mtz.column_with_label(x).array.astype(float) for x in (value, sigma))
    notes, keep = _keep(hkl, v, s, cell, spacegroup, dmin, dmax)
    if not keep.any():
        raise InputError(
            f"{path}: no reflection is left of {len(keep)} ({'; '.join(notes) or 'all outside the limits'}); "
            "check the columns and the limits."
        )
    if not (v[keep] > 0).any():
        raise InputError(
            f"{path}: no value of {value} is above zero; name the columns of the data with --labels."
        )
    asu, row = reciprocal_asu(hkl[keep], cell, spacegroup)
    if len(asu) != keep.sum():
        raise InputError(
            f"{path} has {int(keep.sum())} rows for {len(asu)} unique reflections of {spacegroup.xhm()}; "
            "it seems not to be merged in this space group. Use bayesref merge, or check the space group."
        )
    flags = read_free_set(Path(free_file) if free_file else path, mtz if free_file is None else _read(Path(free_file)),
                          free_label, free_value, required=free_file is not None)  # fmt: skip
    free = _free_rows(flags, asu, spacegroup, notes)
    if free_value is not None and not bool(free.any()):
        raise InputError(f"{free_file or path}: no reflection has the flag {free_value}; check --free-value.")
    kind = "I" if mtz.column_with_label(value).type == "J" else "F"
    order = np.argsort(row.numpy())
    columns: dict[str, str | int] = {"file": str(path), "value": value, "sigma": sigma}
    if flags is not None:
        columns |= {"free": flags.label, "free_value": flags.value}
    return MergedData(
        asu,
        kind,
        torch.from_numpy(v[keep][order]),
        torch.from_numpy(s[keep][order]),
        free,
        columns,
        tuple(notes),
    )


def signed_columns(path: str | Path, labels, asu) -> tuple[torch.Tensor, ...]:
    """Columns of an MTZ that may be negative, on the rows of `asu`, (hkl,) each; NaN where there is none.

    Raises
    ------
    InputError : no such file or column
    """
    mtz = _read(Path(path))
    missing = [x for x in labels if x not in mtz.column_labels()]
    if missing:
        raise InputError(f"{path} has no column {missing[0]}; it has {', '.join(mtz.column_labels()[3:])}.")
    mtz.ensure_asu()
    theirs, mine = np.array(mtz.make_miller_array(), dtype=np.int64), asu.hkl.numpy()
    bound = int(max(np.abs(theirs).max(), np.abs(mine).max()))
    keys, wanted = symmetry.pack(theirs, bound), symmetry.pack(mine, bound)
    order = np.argsort(keys)
    at = order[np.searchsorted(keys, wanted, sorter=order).clip(max=len(keys) - 1)]
    columns = (np.array(mtz.column_with_label(label).array, dtype=float)[at] for label in labels)
    return tuple(torch.from_numpy(np.where(keys[at] == wanted, x, np.nan)) for x in columns)


def check_against(data: MergedData, crystal, model: str) -> None:
    """Raise `InputError` where cell or space group of the data are not those of the model."""
    mine, theirs = data.asu.cell, crystal.cell
    lengths = np.array([[c.a, c.b, c.c] for c in (mine, theirs)])
    angles = np.array([[c.alpha, c.beta, c.gamma] for c in (mine, theirs)])
    file = data.columns.get("file", "the data")
    off = (
        np.abs(lengths[0] / lengths[1] - 1).max() > CELL_LENGTH
        or np.abs(angles[0] - angles[1]).max() > CELL_ANGLE
    )
    if off:
        numbers = [" ".join(f"{x:g}" for x in c.parameters) for c in (mine, theirs)]
        raise InputError(
            f"The cell of {file} is {numbers[0]}, that of {model} is {numbers[1]}; use files of one crystal."
        )
    if data.asu.spacegroup.operations() != crystal.spacegroup.operations():
        raise InputError(
            f"The space group of {file} is {data.asu.spacegroup.xhm()}, that of {model} is {crystal.spacegroup.xhm()}; "
            "reindex the data or place the model again, or name the right one with --spacegroup."
        )


def _read(path: Path) -> gemmi.Mtz:
    if path.is_dir():
        raise InputError(f"{path} is a directory; give merged data, an MTZ or a structure-factor mmCIF.")
    if not path.is_file():
        raise InputError(f"There is no data file {path}; check the name.")
    try:
        if path.suffix.lower() in (".cif", ".ent", ".gz") or path.name.lower().endswith("-sf.cif"):
            return _from_cif(path)
        mtz = gemmi.read_mtz_file(str(path))
    except InputError:
        raise
    except (RuntimeError, ValueError, IndexError, OSError) as error:
        raise InputError(
            f"{path} is neither an MTZ nor a structure-factor mmCIF, or not whole ({error}); fetch or write it again."
        ) from error
    if mtz.batches or "M/ISYM" in mtz.column_labels():
        raise InputError(f"{path} is unmerged; merge it first with bayesref merge.")
    return mtz


def _from_cif(path: Path) -> gemmi.Mtz:
    blocks = [b for b in gemmi.as_refln_blocks(gemmi.cif.read(str(path))) if b.default_loop is not None]
    if not blocks:
        raise InputError(
            f"{path} has no reflections (_refln loop); give the structure-factor file, not the model."
        )
    converter = gemmi.CifToMtz()
    return converter.convert_block_to_mtz(blocks[0])


def _choose(mtz: gemmi.Mtz, path: Path, labels) -> tuple[str, str]:
    """Labels of the value and of its sigma."""
    known = {c.label: c.type for c in mtz.columns}
    listing = ", ".join(f"{k} ({t})" for k, t in known.items() if t not in "HBY")
    if labels:
        pair = tuple(labels)
        if len(pair) != 2:
            raise InputError(
                f"--labels {','.join(pair)}: name a value and its sigma, such as IMEAN,SIGIMEAN."
            )
        for x in pair:
            if x not in known:
                raise InputError(f"{path} has no column {x}; it has {listing}.")
        if is_calculated(mtz, pair[0]):
            raise InputError(
                f"{path}: {pair[0]} is calculated from a model, no measurement; choose among {listing}."
            )
        if known[pair[0]] not in "JF":
            raise InputError(
                f"{path}: {pair[0]} has type {known[pair[0]]}; expected J (intensity) or F (amplitude)."
            )
        return pair[0], pair[1]
    pairs = measured_pairs(mtz)
    if not pairs:
        raise InputError(f"{path} has no measured intensities or amplitudes with a sigma; it has {listing}.")
    best = [p for p in pairs if p[0] in PREFERRED]
    best = (
        sorted(best, key=lambda p: PREFERRED.index(p[0]))[:1]
        or [p for p in pairs if known[p[0]] == "J"]
        or pairs
    )
    if len(best) > 1:
        several = "; ".join(",".join(p) for p in best)
        raise InputError(f"{path} holds several sets of data: {several}. Choose one with --labels.")
    return best[0]


def measured_pairs(mtz: gemmi.Mtz) -> list[tuple[str, str]]:
    """Columns of measured intensities and amplitudes, each with its sigma."""
    columns, out = list(mtz.columns), []
    for i, c in enumerate(columns[:-1]):
        if c.type in "JF" and columns[i + 1].type == "Q" and not is_calculated(mtz, c.label):
            out.append((c.label, columns[i + 1].label))
    return out


def is_calculated(mtz: gemmi.Mtz, label: str) -> bool:
    """Whether a column comes from a model: by its name, or because its phase follows it."""
    columns = list(mtz.columns)
    i = [c.label for c in columns].index(label)
    beside_phase = i + 1 < len(columns) and columns[i + 1].type == "P"
    return bool(CALCULATED.match(label)) or beside_phase


def _keep(hkl, v, s, cell, spacegroup, dmin, dmax):
    """What is left out and why, and (row,) bool of what is kept."""
    keep, notes = np.ones(len(v), dtype=bool), []

    def drop(bad, why):
        n = int((bad & keep).sum())
        if n:
            notes.append(f"{n} reflections {why} were left out")
        keep[bad] = False

    drop(~np.isfinite(v) | ~np.isfinite(s), "without a value")
    drop(~(np.nan_to_num(s) > 0), "whose sigma is not above zero")
    drop((hkl == 0).all(1), "0 0 0")
    drop(symmetry.is_absent(hkl, spacegroup), "that the space group forbids")
    d = cell.calculate_d_array(hkl)
    drop((d < (dmin or 0)) | (d > (dmax or np.inf)), "outside the limits of resolution")
    return notes, keep


def read_flags_for(asu, path, label=None, value=None, notes: list[str] | None = None) -> torch.Tensor:
    """Which reflections of `asu` the flags of another merged file leave free, (hkl,) bool.

    Parameters
    ----------
    label, value : column of the flags and the value that means free; default: recognised
    notes : takes sentences for the user

    Raises
    ------
    InputError : no such file, or no flags in it
    """
    path = Path(path)
    flags = read_free_set(path, _read(path), label, value, required=True)
    return _free_rows(flags, asu, asu.spacegroup, [] if notes is None else notes)


def _free_rows(flags: FreeSet | None, asu, spacegroup, notes) -> torch.Tensor:
    if flags is None:
        notes.append("there are no R-free flags")
        return torch.zeros(len(asu), dtype=torch.bool)
    mapped, _ = symmetry.to_asu(flags.hkl, spacegroup)
    bound = int(max(np.abs(mapped).max(), np.abs(asu.hkl.numpy()).max()))
    key, mine = symmetry.pack(mapped, bound), symmetry.pack(asu.hkl.numpy(), bound)
    free = torch.from_numpy(np.isin(mine, key[flags.free]))
    without = int((~np.isin(mine, key)).sum())
    if without:
        notes.append(f"{without} reflections have no R-free flag and are worked with")
    notes.append(flags.note)
    if bool(free.all()):
        raise InputError(
            f"With {flags.label} = {flags.value} as free, all reflections are free; check --free-value."
        )
    if not bool(free.any()):
        notes.append("no reflection is free")
    return free
