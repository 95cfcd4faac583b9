"""Tables to MTZ files, whole or not at all.

Unmerged indices are written inside the asymmetric unit with M/ISYM, which every CCP4 program expects and
`io.mtz` undoes; symmetry is worked out once per distinct index, so millions of spots are cheap.
"""

from pathlib import Path

import gemmi
import numpy as np
import reciprocalspaceship as rs

from bayesref.crystal import symmetry
from bayesref.io.atomic import atomic_path


def write_mtz(table: rs.DataSet, path: str | Path) -> None:
    """Write a reciprocalspaceship table; indices of an unmerged one are those observed.

    Parameters
    ----------
    table : with cell, space group and MTZ column types
    path : replaced if it is there

    Raises
    ------
    InputError : where the file cannot be written
    """
    hkl = symmetry.as_hkl(table.get_hkls())
    columns = {label: (column.dtype.mtztype, column.to_numpy(np.float32)) for label, column in table.items()}
    if not table.merged:
        bound = int(np.abs(hkl).max()) if len(hkl) else 0
        key, spot_key = np.unique(symmetry.pack(hkl, bound), return_inverse=True)
        distinct, isym = symmetry.to_asu(symmetry.unpack(key, bound)[0], table.spacegroup)
        hkl = distinct[spot_key]
        # CCP4 programs and gemmi expect it to be the fourth column.
        columns = {"M/ISYM": ("Y", isym[spot_key].astype(np.float32))} | columns
    mtz = gemmi.Mtz(with_base=True)
    mtz.spacegroup = table.spacegroup
    mtz.add_dataset("bayesref")
    mtz.set_cell_for_all(table.cell)
    for label, (kind, _) in columns.items():
        mtz.add_column(label, kind)
    mtz.set_data(np.column_stack([hkl.astype(np.float32), *(x for _, x in columns.values())]))
    mtz.history = ["Written by bayesref"]
    if not table.merged:
        _add_batches(mtz)
    with atomic_path(path) as temporary:
        mtz.write_to_file(str(temporary))


def _add_batches(mtz: gemmi.Mtz) -> None:
    """A header for each image: what tells CCP4 programs that a file is unmerged."""
    for number in np.unique(mtz.column_with_label("BATCH").array) if "BATCH" in mtz.column_labels() else ():
        batch = gemmi.Mtz.Batch()
        batch.number = int(number)
        batch.cell = mtz.cell
        batch.dataset_id = mtz.datasets[-1].id
        mtz.batches.append(batch)
