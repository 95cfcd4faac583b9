"""Friedel mates from files: I(+), I(-) (MTZ types K M) or F(+), F(-) (types G L), each with its sigma."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import gemmi
import numpy as np
import torch

from bayesref._checks import InputError
from bayesref.crystal import symmetry
from bayesref.data.anomalous_pairs import AnomalousPairs, mean_of_mates, pairs_of
from bayesref.data.merged import MergedData
from bayesref.io.merged import _read

KINDS = {"I": ("K", "M"), "F": ("G", "L")}


def read_pairs(path: str | Path, data: MergedData, Sigma: torch.Tensor) -> tuple[MergedData, AnomalousPairs]:
    """Differences of Friedel mates, and merged data whose values are the means of the same mates.

    Parameters
    ----------
    path : MTZ or structure-factor mmCIF that the data were read from
    data : MergedData of that file
    Sigma : (hkl,), ⟨F²/ε⟩ of the data

    Raises
    ------
    InputError : no columns of mates of the kind of the data, or no pair
    """
    mtz = _read(Path(path))
    labels = mate_columns(mtz, data.kind)
    if labels is None:
        kinds = "I(+), SIGI(+), I(-), SIGI(-)" if data.kind == "I" else "F(+), SIGF(+), F(-), SIGF(-)"
        listing = ", ".join(f"{c.label} ({c.type})" for c in mtz.columns[3:])
        raise InputError(f"{path} has no columns {kinds} beside {data.columns['value']}; it has {listing}.")
    mates = _on_rows(mtz, labels, data.asu)
    value, sigma = mean_of_mates(*mates)
    both = torch.isfinite(mates[0]) & torch.isfinite(mates[2]) & torch.isfinite(value) & torch.isfinite(sigma)
    note = f"{', '.join(labels)}: means of both mates take the place of {data.columns['value']}"
    data = replace(
        data, value=torch.where(both, value, data.value), sigma=torch.where(both, sigma, data.sigma),
        notes=(*data.notes, note),
    )  # fmt: skip
    return data, pairs_of(data, mates, Sigma)


def mate_columns(mtz: gemmi.Mtz, kind: str) -> list[str] | None:
    """Labels of (+), its sigma, (-), its sigma; None where there are none. The first set is taken."""
    value, sigma = KINDS[kind]
    columns = list(mtz.columns)
    found = [(a.label, b.label) for a, b in pairwise(columns) if (a.type, b.type) == (value, sigma)]
    if len(found) < 2:
        return None
    first, second = found[:2]
    if "-" in first[0] and "+" in second[0]:
        first, second = second, first
    return [*first, *second]


def _on_rows(mtz: gemmi.Mtz, labels, asu) -> list[torch.Tensor]:
    """Columns on the rows of `asu`, (hkl,) each; mates change places where the file has the other one's index."""
    table = np.array(mtz.array)
    hkl, isym = symmetry.to_asu(table[:, :3].astype(np.int64), asu.spacegroup)
    bound = int(max(np.abs(hkl).max(), np.abs(asu.hkl.numpy()).max()))
    key, wanted = symmetry.pack(hkl, bound), symmetry.pack(asu.hkl.numpy(), bound)
    order = np.argsort(key)
    at = order[np.searchsorted(key, wanted, sorter=order).clip(max=len(key) - 1)]
    there = key[at] == wanted
    columns = [
        np.where(there, np.array(mtz.column_with_label(x).array, dtype=float)[at], np.nan) for x in labels
    ]
    turned = isym[at] % 2 == 0
    out = [np.where(turned, b, a) for a, b in zip(columns, columns[2:] + columns[:2], strict=True)]
    # a sigma of zero stands for no measurement in some files
    for k in (0, 2):
        out[k] = np.where(out[k + 1] > 0, out[k], np.nan)
    return [torch.from_numpy(x) for x in out]
