"""Rotation data of other programs, merged without metadata; what bayesref prints beside counting with pandas.

    python benchmarks/merge_rotation.py [--files brap_pk_6A.mtz ...] [--careless] [--iterations 10000]

The count is independent: rows read with pandas or gemmi, partials summed by pandas, indices mapped by
reciprocalspaceship, possible reflections from gemmi, CC1/2 and Rsplit from halves_0.mtz by pandas. With --careless the
MTZ that `bayesref convert` writes is also merged by careless (which sums no partials itself), and its halves are
scored by the same lines.
"""

from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import reciprocalspaceship as rs
from careless_program import mono
from common import parser, program, run, table

FILES = ("brap_pk_6A.mtz", "brap_ip_6A.mtz", "brap_rm_6A.mtz", "INTEGRATE_vb1.HKL")
CARELESS_KEYS = {"brap": "BATCH,dHKL,XDET,YDET", "INTEGRATE": "BATCH,dHKL,XCAL,YCAL"}
INDEX = ["H", "K", "L"]


def observations(path: Path) -> tuple[pd.DataFrame, gemmi.UnitCell, gemmi.SpaceGroup]:
    """Observed indices of whole observations, one row each."""
    if path.suffix == ".mtz":
        return mosflm(path)
    header = [x for x in path.read_text().splitlines() if x.startswith("!")]
    value = {x.split("=")[0]: x.split("=")[1] for x in header if "=" in x}
    cell = gemmi.UnitCell(*map(float, value["!UNIT_CELL_CONSTANTS"].split()))
    group = gemmi.SpaceGroup(int(value["!SPACE_GROUP_NUMBER"]))
    data = pd.read_csv(
        path, comment="!", sep=r"\s+", header=None, usecols=range(5), names=[*INDEX, "I", "SIGI"]
    )
    return data[data.SIGI > 0], cell, group


def mosflm(path: Path):
    """An MTZ whose partial reflections stand in several rows."""
    mtz = gemmi.read_mtz_file(str(path))
    M = np.asarray(mtz.column_with_label("M/ISYM").array) // 256
    mtz.switch_to_original_hkl()
    data = pd.DataFrame(mtz.array, columns=[c.label for c in mtz.columns])
    data = data.assign(M=M).sort_values([*INDEX, "BATCH"], kind="stable")
    whole, parts = data[data.M == 0], data[data.M == 1]
    new = (parts[INDEX].diff() != 0).any(axis=1) | (parts.BATCH.diff() != 1) | (parts.MPART % 100 == 1)
    groups = parts.groupby(new.cumsum().to_numpy())
    fraction = groups.FRACTIONCALC.sum()
    complete = fraction.between(0.95, 1.05) | (groups.size() == groups.MPART.first() // 100)
    variance = groups.SIGI.agg(lambda s: (s**2).sum())
    summed = groups[INDEX].first()[complete & (variance > 0)]
    return pd.concat([whole.loc[whole.SIGI > 0, INDEX], summed]), mtz.cell, mtz.spacegroup


def counted(path: Path) -> dict:
    """Multiplicity and completeness, by pandas."""
    data, cell, group = observations(path)
    hkl = rs.utils.hkl_to_asu(data[INDEX].to_numpy(np.int32), group)[0]
    hkl = hkl[~group.operations().systematic_absences(hkl)]
    n = pd.DataFrame(hkl, columns=INDEX).value_counts()
    d = cell.calculate_d_array(np.array(list(n.index), dtype=np.int32))
    possible = gemmi.make_miller_array(cell, group, d.min() - 1e-6, d.max() + 1e-6, unique=True)
    return {"reflections": len(n), "multiplicity": n.mean(), "completeness": len(n) / len(possible)}


def halves(path: Path) -> dict:
    """CC1/2 of I and Rsplit of F, by pandas."""
    data = rs.read_mtz(str(path)).reset_index()
    frame = pd.DataFrame({k: data[k].to_numpy(float) for k in [*INDEX, "F", "I", "half"]})
    q = frame[frame.half == 0].merge(frame[frame.half == 1], on=INDEX, suffixes=("1", "2"))
    rsplit = np.sqrt(2) * (q.F1 - q.F2).abs().sum() / (q.F1 + q.F2).sum()
    return {"CC1/2": q.I1.corr(q.I2), "Rsplit": rsplit}


def printed(out: Path) -> dict:
    """The same from statistics.csv."""
    s = pd.read_csv(out / "statistics.csv")
    data, half = (s[s.table == f"{k}_0"].iloc[-1] for k in ("data", "halves"))
    names = {
        "reflections": int(data.reflections),
        "multiplicity": data.multiplicity,
        "completeness": data.completeness,
    }
    return {k: v if isinstance(v, int) else float(v) for k, v in names.items()} | {
        "CC1/2": float(half.cchalf),
        "Rsplit": float(half.rsplit),
    }


def rows(name: str, a):
    """Rows of the table for one file."""
    path, out = a.data / "unmerged" / name, a.work / "rotation" / name
    usage = run(
        [program("bayesref"), "merge", path, "-m", "", "--half-datasets", 1, "--out", out, "--overwrite"],
        out.with_suffix(".txt"),
    )
    yield {"file": name, "from": "bayesref"} | printed(out) | {"CPU s": round(usage.cpu, 1)}
    yield {"file": "", "from": "pandas"} | counted(path) | halves(out / "halves_0.mtz")
    if a.careless:
        mtz = out.with_name(out.stem + "_whole.mtz")
        run([program("bayesref"), "convert", path, mtz, "--overwrite"], mtz.with_suffix(".txt"))
        flags = ["--merge-half-datasets", "--half-dataset-repeats=1", "--studentt-likelihood-dof=16"]
        flags += ["--refine-uncertainties"]
        keys = CARELESS_KEYS[name.split("_")[0]]
        usage = run(mono(keys, [mtz], out / "careless" / "x", a.iterations, *flags), out / "careless.txt")
        found = halves(out / "careless" / "x_xval_0.mtz")
        yield (
            {"file": "", "from": f"careless, {a.iterations} iterations"}
            | found
            | {"CPU s": round(usage.cpu, 1)}
        )


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--files", nargs="+", choices=FILES, default=FILES)
    p.add_argument("--careless", action="store_true", help="merge with careless too")
    p.add_argument("--iterations", type=int, default=10_000, help="of careless")
    a = p.parse_args()
    table([row for name in a.files for row in rows(name, a)])


if __name__ == "__main__":
    main()
