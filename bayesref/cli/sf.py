"""`bayesref sf`: structure factors of a model, written as FC and PHIC."""

from pathlib import Path
from typing import Annotated, Literal

import gemmi
import torch
import typer

from bayesref._checks import InputError
from bayesref.crystal.cell import hkl_stol2
from bayesref.crystal.lattice import check_resolution
from bayesref.io.atomic import atomic_path
from bayesref.io.structure import read_structure
from bayesref.structure_factors.calculate import prepare, self_check, structure_factors
from bayesref.structure_factors.scale import add_solvent
from bayesref.structure_factors.solvent import SolventMask


def sf(
    model: Annotated[Path, typer.Argument(help="Model: PDB or mmCIF, plain or .gz.")],
    dmin: Annotated[float, typer.Option("--dmin", "-d", help="High-resolution limit, Å.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="MTZ to write.")] = Path("fcalc.mtz"),
    solvent: Annotated[bool, typer.Option(help="Add a flat bulk solvent.")] = False,
    k_sol: Annotated[
        float | None, typer.Option(min=0, help="Solvent density, electrons/Å³. [default: 0.35]")
    ] = None,
    b_sol: Annotated[float | None, typer.Option(help="Solvent B, Å². [default: 46]")] = None,
    wavelength: Annotated[float | None, typer.Option(help="Å; adds f' and f''.")] = None,
    table: Annotated[
        Literal["it92", "wk95", "electron"], typer.Option("--form-factors", help="Table of form factors.")
    ] = "it92",
    rel_error: Annotated[float, typer.Option(help="Relative error of F.")] = 1e-3,
    direct: Annotated[bool, typer.Option("--direct", help="Exact summation: slow.")] = False,
    hydrogens: Annotated[bool, typer.Option(help="Use the model's hydrogen atoms.")] = True,
    check: Annotated[
        bool, typer.Option("--check", help="Compare 200 reflections and gradients with --direct.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Calculate structure factors of MODEL to --dmin and write them as FC and PHIC.

    With --wavelength the amplitudes are those of the reflections h, k, l of the asymmetric unit; their Friedel mates
    differ and are not written.
    """
    if not solvent and (k_sol, b_sol) != (None, None):
        raise InputError("--k-sol and --b-sol describe the solvent; add --solvent, or leave them out.")
    if out.is_file() and not overwrite:
        raise InputError(f"{out} is there already; choose another name or give --overwrite.")
    crystal = read_structure(model, hydrogens=hydrogens)
    check_resolution(crystal.cell, crystal.spacegroup, dmin)
    hkl = torch.tensor(gemmi.make_miller_array(crystal.cell, crystal.spacegroup, dmin), dtype=torch.int64)
    plan = prepare(crystal, hkl, rel_error, table, wavelength)
    with torch.no_grad():
        F = structure_factors(crystal, plan=plan, method="direct" if direct else "fft").to(torch.complex128)
        if solvent:
            k, B = 0.35 if k_sol is None else k_sol, 46.0 if b_sol is None else b_sol
            F = add_solvent(F, SolventMask(hkl)(crystal), hkl_stol2(hkl, crystal.cell), k, B)
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
    with atomic_path(path) as temporary:
        mtz.write_to_file(str(temporary))
