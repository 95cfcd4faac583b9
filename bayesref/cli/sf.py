"""`bayesref sf`: structure factors of a model, written as FC and PHIC."""

from pathlib import Path
from typing import Annotated

import gemmi
import torch
import typer

from bayesref._checks import InputError
from bayesref.crystal.cell import hkl_stol2
from bayesref.io.structure import read_structure
from bayesref.structure_factors.calculate import prepare, self_check, structure_factors
from bayesref.structure_factors.scale import add_solvent
from bayesref.structure_factors.solvent import SolventMask


def sf(
    model: Annotated[Path, typer.Argument(help="Model: PDB or mmCIF, plain or .gz.")],
    dmin: Annotated[float, typer.Option("--dmin", "-d", help="High-resolution limit, Å.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="MTZ to write.")] = Path("fcalc.mtz"),
    solvent: Annotated[bool, typer.Option(help="Add a flat bulk solvent.")] = False,
    k_sol: Annotated[float, typer.Option(help="Solvent density, electrons/Å³.")] = 0.35,
    b_sol: Annotated[float, typer.Option(help="Solvent B, Å².")] = 46.0,
    wavelength: Annotated[float | None, typer.Option(help="Å; adds f' and f''.")] = None,
    table: Annotated[str, typer.Option(help="Form factors: it92, wk95, electron.")] = "it92",
    rel_error: Annotated[float, typer.Option(help="Relative error of F.")] = 1e-3,
    direct: Annotated[bool, typer.Option("--direct", help="Exact summation: slow.")] = False,
    hydrogens: Annotated[bool, typer.Option(help="Use the model's hydrogen atoms.")] = True,
    check: Annotated[
        bool, typer.Option("--check", help="Compare 200 reflections and gradients with --direct.")
    ] = False,
) -> None:
    """Calculate structure factors of MODEL to --dmin and write them as FC and PHIC.

    With --wavelength the amplitudes are those of the reflections h, k, l of the asymmetric unit; their Friedel mates
    differ and are not written.
    """
    if not dmin > 0:
        raise InputError(f"--dmin must be above zero, in Å; it is {dmin:g}.")
    crystal = read_structure(model, hydrogens=hydrogens)
    rows = gemmi.make_miller_array(crystal.cell, crystal.spacegroup, dmin)
    if len(rows) == 0:
        raise InputError(f"The cell holds no reflections to {dmin:g} Å; give a smaller --dmin.")
    hkl = torch.tensor(rows, dtype=torch.int64)
    plan = prepare(crystal, hkl, rel_error, table, wavelength)  # type: ignore[arg-type]
    with torch.no_grad():
        F = structure_factors(crystal, plan=plan, method="direct" if direct else "fft").to(torch.complex128)
        if solvent:
            F = add_solvent(F, SolventMask(hkl)(crystal), hkl_stol2(hkl, crystal.cell), k_sol, b_sol)
    write_factors(out, F, hkl, crystal.cell, crystal.spacegroup)
    method = (
        "direct summation" if direct else "grid {} x {} x {}, blur {:.0f} Å²".format(*plan.shape, plan.blur)
    )
    typer.echo(
        f"{model}: {len(crystal)} atoms, {crystal.spacegroup.xhm()}; {len(hkl)} reflections to {dmin:g} Å "
        f"({method}){' with bulk solvent' if solvent else ''} -> {out}"
    )
    if check:
        typer.echo(f"Check against direct summation {self_check(crystal, plan)}")


def write_factors(
    path: Path, F: torch.Tensor, hkl: torch.Tensor, cell: gemmi.UnitCell, spacegroup: gemmi.SpaceGroup
) -> None:
    """Amplitudes and phases (degrees) as columns FC and PHIC of an MTZ."""
    mtz = gemmi.Mtz(with_base=True)
    mtz.spacegroup = spacegroup
    mtz.set_cell_for_all(cell)
    mtz.add_dataset("calculated")
    mtz.add_column("FC", "F")
    mtz.add_column("PHIC", "P")
    mtz.set_data(torch.cat([hkl.double(), F.abs()[:, None], torch.rad2deg(F.angle())[:, None]], 1).numpy())
    mtz.ensure_asu()
    mtz.sort()
    try:
        mtz.write_to_file(str(path))
    except (RuntimeError, OSError) as error:
        raise InputError(f"Cannot write {path}: {error}") from error
