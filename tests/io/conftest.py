"""Small unmerged MTZ files, made here so that what they hold is known."""

import gemmi
import numpy as np
import pytest


def spots(n=200, seed=0, **more):
    """Columns {label: (MTZ type, values)} of an unmerged file with indices as observed; None drops one."""
    rng = np.random.default_rng(seed)
    h, k, l = rng.integers(1, 5, size=(3, n)) * rng.choice([-1, 1], size=(3, n))
    columns = {"H": ("H", h), "K": ("H", k), "L": ("H", l)}
    columns |= {"I": ("J", 100 * rng.exponential(size=n)), "SIGI": ("Q", rng.uniform(1, 2, n))}
    columns |= {"BATCH": ("B", rng.integers(1, 6, n) * 2), "X": ("R", rng.normal(size=n))}
    return {k: v for k, v in (columns | more).items() if v is not None}


@pytest.fixture
def make_mtz(tmp_path):
    """make_mtz(name, columns=spots(), cell=..., spacegroup=...) -> path."""

    def write(name="a.mtz", columns=None, cell=(30, 40, 50, 90, 90, 90), spacegroup="P 21 21 21"):
        columns = spots() if columns is None else columns
        mtz = gemmi.Mtz()
        mtz.spacegroup = gemmi.SpaceGroup(spacegroup)
        mtz.set_cell_for_all(gemmi.UnitCell(*cell))
        mtz.add_dataset("base")
        for label, (kind, _) in columns.items():
            mtz.add_column(label, kind)
        mtz.set_data(np.stack([np.asarray(x, dtype=np.float32) for _, x in columns.values()], axis=1))
        mtz.write_to_file(str(tmp_path / name))
        return tmp_path / name

    write.spots = spots
    return write
