"""Columns that programs after merging ask for: E values, free flags, amplitudes that fall off.

    E = F/√(ε m(s²)),   SIGE = SIGF/√(ε m(s²)),      m: running mean of I/ε over neighbours in resolution

m holds 2 % of the reflections, 50 at least. Free flags are copied from a file, or made so that every dataset of the
lattice has the same (`crystal.free_flags`); reflections that the file does not know get new ones, in its own manner.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
import reciprocalspaceship as rs

from bayesref._checks import InputError
from bayesref.crystal.free_flags import free_flags
from bayesref.crystal.symmetry import as_hkl, epsilon, pack, to_asu

FREE = "FreeR_flag"
NAMES = ("freer_flag", "r-free-flags", "freerflag", "rfree-flags", "free", "rfree", "freer")
LARGEST_INDEX = 10_000


@dataclass(frozen=True)
class Extras:
    """What to write beyond the amplitudes.

    Attributes
    ----------
    e_values : columns E and SIGE
    free_fraction, free_seed : make free flags, this share of the lattice's reflections
    free_file : copy the free flags of this MTZ
    scaled : scaled_k.mtz, each spot over its scale
    wilson_b : fall-off to give to amplitudes, which are flat: F exp(-B s²), Å²; "data" = that of the scale of spots
    """

    e_values: bool = False
    free_fraction: float | None = None
    free_seed: int = 0
    free_file: Path | None = None
    scaled: bool = False
    wilson_b: float | str | None = None


def fall_off(text: str | None) -> float | str | None:
    """The B that is asked for, Å²: a number, "data", or None.

    Raises
    ------
    InputError : none of these
    """
    if text is None or text == "data":
        return text
    try:
        B = float(text)
    except ValueError:
        B = math.nan
    if not math.isfinite(B):
        raise InputError(f"--wilson-b is {text}; expected a B in Å², or data for the fall-off of the data.")
    return B


def fall_off_of(stol2, K) -> float:
    """B, Å², of the line log K = const - 2 B s² through the scales K of all spots, (spot,), at s² = stol2."""
    return round(-0.5 * float(np.polyfit(stol2, np.log(K), 1)[0]), 2)


def add_columns(table: rs.DataSet, extras: Extras) -> rs.DataSet:
    """The merged table with the columns asked for.

    Raises
    ------
    InputError : the file of free flags cannot be used
    """
    if extras.e_values:
        table = with_e_values(table)
    if isinstance(extras.wilson_b, int | float):
        table = with_falloff(table, extras.wilson_b)
    if extras.free_file is not None:
        return _with_flags(table, copied_flags(extras.free_file, table, extras.free_seed))
    if extras.free_fraction is not None:
        fraction, seed = extras.free_fraction, extras.free_seed
        return _with_flags(table, free_flags(table.get_hkls(), table.cell, table.spacegroup, fraction, seed))
    return table


def _with_flags(table, flags):
    return table.assign(**{FREE: rs.DataSeries(flags, index=table.index, dtype="I")})


def with_falloff(table: rs.DataSet, B: float) -> rs.DataSet:
    """Amplitudes times exp(-B s²), intensities times its square, and their standard deviations likewise."""
    k = np.exp(-0.25 * B / table.cell.calculate_d_array(as_hkl(table.get_hkls())) ** 2)
    power = {"F": 1, "SIGF": 1, "DANO": 1, "SIGDANO": 1, "I": 2, "SIGI": 2}
    names = {c: power[c.split("(")[0]] for c in table if c.split("(")[0] in power}
    columns = {c: (table[c].to_numpy(float) * k**n).astype(np.float32) for c, n in names.items()}
    return table.assign(
        **{c: rs.DataSeries(x, index=table.index, dtype=table[c].dtype) for c, x in columns.items()}
    )


def with_e_values(table: rs.DataSet) -> rs.DataSet:
    """Columns E and SIGE, of F and SIGF."""
    hkl = as_hkl(table.get_hkls())
    d, eps = table.cell.calculate_d_array(hkl), epsilon(hkl, table.spacegroup)
    mean = running_mean(table["I"].to_numpy(float) / eps, d)
    E, SIGE = (table[k].to_numpy(float) / np.sqrt(eps * mean) for k in ("F", "SIGF"))
    columns = {"E": (E, "E"), "SIGE": (SIGE, "Q")}
    return table.assign(
        **{
            k: rs.DataSeries(x.astype(np.float32), index=table.index, dtype=t)
            for k, (x, t) in columns.items()
        }
    )


def running_mean(x, d) -> np.ndarray:
    """Mean of x over the neighbours of each reflection in resolution, fewer of them at the ends."""
    n = len(x)
    half = max(n // 100, min(25, n // 2))
    order = np.argsort(-d, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(x[order])])
    low, high = np.clip(np.arange(n) - half, 0, None), np.clip(np.arange(n) + half + 1, None, n)
    mean = np.empty(n)
    mean[order] = (total[high] - total[low]) / (high - low)
    return mean


def copied_flags(path: Path, table: rs.DataSet, seed: int = 0) -> np.ndarray:
    """Free flags of a file for the rows of `table`, (hkl,) int64.

    Where the file has two values, the rarer one is taken as free; else flags count from 0, which is free.

    Raises
    ------
    InputError : no MTZ, no such column, or no reflection in common
    """
    known, value = read_flags(Path(path))
    _key, row = np.unique(_keys(known, table.spacegroup), return_index=True)
    wanted = _keys(table.get_hkls(), table.spacegroup)
    where = np.searchsorted(_key, wanted).clip(max=len(_key) - 1)
    found = _key[where] == wanted
    if not found.any():
        raise InputError(
            f"{path} has free flags of none of the reflections; give one of the same crystal form."
        )
    flags = value[row][where]
    kinds, number = np.unique(value, return_counts=True)
    two = len(kinds) == 2
    fraction = float(number.min() / number.sum()) if two else 1 / (int(kinds.max()) + 1)
    new = free_flags(table.get_hkls()[~found], table.cell, table.spacegroup, min(fraction, 0.5), seed)
    flags[~found] = np.where(new == 0, kinds[number.argmin()], kinds[number.argmax()]) if two else new
    return flags


def _keys(hkl, spacegroup):
    return pack(to_asu(hkl, spacegroup)[0], LARGEST_INDEX)


def read_flags(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """hkl and flag of the reflections that have one."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; check the name given with --free-flags.")
    try:
        mtz = gemmi.read_mtz_file(str(path))
    except (RuntimeError, ValueError, IndexError, OSError) as e:
        raise InputError(f"{path} is not a complete MTZ file ({e}); expected free flags.") from None
    columns = {c.label.lower(): c for c in reversed(mtz.columns_with_type("I"))}
    column = next((columns[name] for name in NAMES if name in columns), None)
    if column is None:
        found = ", ".join(c.label for c in mtz.columns)
        raise InputError(f"{path} has no column of free flags such as {FREE}; its columns are {found}.")
    flags = np.array(column.array, dtype=float)
    known = np.isfinite(flags)
    if not known.any():
        raise InputError(f"{path}: column {column.label} holds no flags; give another file.")
    return mtz.make_miller_array()[known], flags[known].astype(np.int64)
