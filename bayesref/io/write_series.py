"""A simulated time series as files: merged MTZ or spots, models of the states, and the TOML file that names them."""

from pathlib import Path

import gemmi
import numpy as np

from bayesref.data.series import TimeSeries
from bayesref.io.atomic import atomic_path, prepare_output
from bayesref.io.structure import write_structure
from bayesref.io.write_mtz import write_mtz


def write_series(
    series: TimeSeries, crystals: dict, kinetics: dict, out, overwrite: bool = False, spots=None
) -> Path:
    """dark.mtz, light_1.mtz, ..., NAME.pdb of each state, and series.toml, whose path is returned.

    Parameters
    ----------
    kinetics : scheme, ground, start: the [kinetics] table
    spots : a table of spots for each dataset, written in place of the amplitudes

    Raises
    ------
    InputError : the folder is not empty, or cannot be written
    """
    out = prepare_output(out, overwrite)
    files = _write_data(series, crystals, out, spots)
    lines = ["[series]", f'dark = "{files[0]}"', ""]
    for t, file in zip(series.t.tolist(), files[1:], strict=True):
        lines += ["[[light]]", f'delay = "{t:.9g} s"', f'file = "{file}"', ""]
    lines += ["[states]", *(f'{name} = "{name}.pdb"' for name in crystals), "", "[kinetics]"]
    lines += [f'{k} = "{v}"' for k, v in kinetics.items()]
    with atomic_path(out / "series.toml") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return out / "series.toml"


def write_experiments(experiments, kinetics: dict, out, overwrite: bool = False) -> Path:
    """A folder for each experiment, with what `write_series` writes, and series.toml, whose path is returned.

    Parameters
    ----------
    experiments : (name, temperature in K, TimeSeries, {state: Crystal}, spots or None) of each
    kinetics : the [kinetics] table

    Raises
    ------
    InputError : the folder is not empty, or cannot be written
    """
    out = prepare_output(out, overwrite)
    lines = []
    for name, T, series, crystals, spots in experiments:
        folder = name.replace(" ", "_")
        files = _write_data(series, crystals, prepare_output(out / folder, overwrite), spots)
        delays = [f"{t:.9g} s" for t in series.t.tolist()]
        lines += [
            "[[experiment]]",
            f'name = "{name}"',
            f"temperature = {T:g}",
            f'dark = "{folder}/{files[0]}"',
        ]
        lines += ["light = ["]
        lines += [
            f'    {{delay = "{t}", file = "{folder}/{f}"}},' for t, f in zip(delays, files[1:], strict=True)
        ]
        models = ", ".join(f'{s} = "{folder}/{s}.pdb"' for s in crystals)
        lines += ["]", f"states = {{{models}}}", ""]
    lines += ["[kinetics]", *(f'{k} = "{v}"' for k, v in kinetics.items())]
    with atomic_path(out / "series.toml") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return out / "series.toml"


def _write_data(series, crystals, out, spots) -> list[str]:
    """Names of the files of the datasets, dark first."""
    files = ["dark.mtz", *(f"light_{i + 1}.mtz" for i in range(series.n_time))]
    for column, file in enumerate(files):
        if spots is None:
            _write_amplitudes(series, column, out / file)
        else:
            write_mtz(spots[column], out / file)
    for name, crystal in crystals.items():
        with atomic_path(out / f"{name}.pdb") as temporary:
            write_structure(crystal, temporary)
    return files


def _write_amplitudes(series, column, path) -> None:
    mtz = gemmi.Mtz(with_base=True)
    mtz.spacegroup = series.asu.spacegroup
    mtz.add_dataset(series.names[column])
    mtz.set_cell_for_all(series.asu.cell)
    mtz.add_column("F", "F")
    mtz.add_column("SIGF", "Q")
    table = np.column_stack(
        [series.asu.hkl.numpy(), series.F[:, column].numpy(), series.SIGF[:, column].numpy()]
    )
    mtz.set_data(table.astype(np.float32))
    with atomic_path(path) as temporary:
        mtz.write_to_file(str(temporary))
