"""Refined models as files: mmCIF with standard deviations, PDB, and an ensemble of the posterior.

_atom_site.Cartn_x_esd, .Cartn_y_esd, .Cartn_z_esd, .B_iso_or_equiv_esd, .occupancy_esd     from draws
"""

from dataclasses import replace
from pathlib import Path

import torch

from bayesref.crystal.atoms import gemmi_from_crystal
from bayesref.io.atomic import atomic_path

ESD = ("Cartn_x_esd", "Cartn_y_esd", "Cartn_z_esd", "occupancy_esd", "B_iso_or_equiv_esd")
SOFTWARE = "bayesref"


def write_model(posterior, path: str | Path) -> None:
    """The mean model: mmCIF with standard deviations for .cif, else PDB."""
    structure = gemmi_from_crystal(posterior.crystal)
    with atomic_path(path) as temporary:
        if Path(path).suffix == ".cif":
            document = structure.make_mmcif_document()
            _add_esd(document.sole_block(), posterior.esd)
            document.write_file(str(temporary))
        else:
            structure.write_pdb(str(temporary))


def _add_esd(block, esd) -> None:
    loop = block.find_loop("_atom_site.Cartn_x").get_loop()
    columns = [*esd["xyz"].T, esd["occupancy"], esd["B"]]
    width = loop.width()
    loop.add_columns([f"_atom_site.{name}" for name in ESD], ".")
    for i in range(loop.length()):
        for k, values in enumerate(columns):
            loop[i, width + k] = f"{float(values[i]):.4f}"


def write_ensemble(posterior, path: str | Path, n: int, seed: int = 0) -> None:
    """`n` draws of the posterior as the models of one mmCIF."""
    out = gemmi_from_crystal(posterior.crystal)
    del out[0]
    draws = posterior.sites(n, seed)
    for i in range(n):
        crystal = replace(
            posterior.crystal,
            xyz=draws["xyz"][i],
            B=draws["B"][i].clamp(min=0.01),
            occupancy=draws["occupancy"][i],
        )
        structure = gemmi_from_crystal(crystal)
        model = structure[0].clone()
        model.num = i + 1
        out.add_model(model)
    with atomic_path(path) as temporary:
        out.make_mmcif_document().write_file(str(temporary))


def posterior_draws(posterior, n: int, seed: int = 0):
    """xarray dataset of `n` draws: xyz (draw, atom, axis), B, occupancy (draw, atom), and every other site."""
    import numpy as np
    import xarray

    sites = posterior.sites(n, seed)
    dims = {"xyz": ("atom", "axis"), "B": ("atom",), "occupancy": ("atom",)}
    variables = {}
    for name, x in sites.items():
        own = dims.get(name, tuple(f"{name}_dim_{i}" for i in range(x.ndim - 1)))
        if x.numel():
            variables[name] = (("chain", "draw", *own), x.numpy()[None].astype(np.float32))
    crystal = posterior.crystal
    coordinates = {"chain": [0], "draw": np.arange(n), "atom": list(crystal.name), "axis": ["x", "y", "z"]}
    return xarray.Dataset(variables, coords=coordinates, attrs={"reason": posterior.reason})


def maximum_shift(posterior) -> float:
    """Å, the farthest that an atom has come from the model as given."""
    return float((posterior.crystal.xyz - posterior.atoms.reference).norm(dim=1).max())


def b_summary(posterior) -> tuple[float, float]:
    """Mean B of the atoms, Å², and its median standard deviation."""
    return float(posterior.crystal.B.mean()), float(torch.median(posterior.esd["B"]))
