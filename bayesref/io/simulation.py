"""Simulated datasets as files.

DIR/unmerged_0.mtz, unmerged_1.mtz, ...    spots, to be merged
DIR/truth_0.mtz, truth_1.mtz, ...          the amplitudes behind them: FTRUE, EPS, CENTRIC, N
"""

from pathlib import Path

from bayesref.data.simulate import MergeSimulation
from bayesref.io.atomic import prepare_output
from bayesref.io.write_mtz import write_mtz


def write_simulation(
    simulation: MergeSimulation, directory: str | Path, overwrite: bool = False
) -> tuple[list[Path], list[Path]]:
    """Write the datasets of a simulation.

    Returns
    -------
    unmerged, truth : paths, one of each per dataset

    Raises
    ------
    InputError : the directory cannot be written, or holds files without `overwrite`
    """
    directory = prepare_output(directory, overwrite)
    n = len(simulation.observations)
    unmerged = [directory / f"unmerged_{t}.mtz" for t in range(n)]
    truth = [directory / f"truth_{t}.mtz" for t in range(n)]
    for table, path in zip((*simulation.observations, *simulation.truth), (*unmerged, *truth), strict=True):
        write_mtz(table, path)
    return unmerged, truth
