"""Refined models as files: mmCIF with standard deviations, PDB, and an ensemble of the posterior.

_atom_site.Cartn_x_esd, .Cartn_y_esd, .Cartn_z_esd, .B_iso_or_equiv_esd, .occupancy_esd     from draws
_atom_site_anisotrop.U[1][1]_esd, ...     where atoms are ellipsoids or groups shake
_pdbx_refine_tls.T[1][1], .T[1][1]_esd, ...     T Å², L degree², S degree Å, S_ij = ‹λ_i t_j›, about the origin given
"""

from dataclasses import replace
from pathlib import Path

import gemmi
import torch

from bayesref.crystal.atoms import gemmi_from_crystal
from bayesref.io.atomic import atomic_path

ESD = ("Cartn_x_esd", "Cartn_y_esd", "Cartn_z_esd", "occupancy_esd", "B_iso_or_equiv_esd")
ELEMENTS = ("11", "22", "33", "12", "13", "23")


def write_model(posterior, path: str | Path) -> None:
    """The model with its riding hydrogens: mmCIF with standard deviations for .cif, else PDB."""
    structure = gemmi_from_crystal(posterior.atoms.scattering(posterior.crystal))
    with atomic_path(path) as temporary:
        if Path(path).suffix == ".cif":
            document = structure.make_mmcif_document()
            _add_esd(document.sole_block(), posterior)
            temporary.write_text(
                document.as_string()
            )  # gemmi's own writers say nothing where the disk is full
        else:
            temporary.write_text(structure.make_pdb_string())


def _add_esd(block, posterior) -> None:
    esd, hydrogens = posterior.esd, posterior.atoms.hydrogens
    rows = range(len(posterior.crystal)) if hydrogens is None else hydrogens.riding.heavy.tolist()
    _add_columns(block, "_atom_site.Cartn_x", [f"_atom_site.{name}" for name in ESD], rows,
                 [*esd["xyz"].T, esd["occupancy"], esd["B"]])  # fmt: skip
    if "U" in esd:  # gemmi lists atoms with U only, in their order
        names = [f"_atom_site_anisotrop.U[{k[0]}][{k[1]}]_esd" for k in ELEMENTS]
        _add_columns(block, "_atom_site_anisotrop.id", names, range(len(posterior.crystal)), list(esd["U"].T))
    displacements = posterior.atoms.displacements
    if displacements is not None and displacements.groups is not None:
        _add_groups(block, displacements.groups, posterior)


def _add_columns(block, item, names, rows, columns) -> None:
    """New items of a loop; `rows` are those of its lines that the columns give, the others get a point."""
    loop = block.find_loop(item).get_loop()
    width = loop.width()
    loop.add_columns(names, ".")
    for i, row in enumerate(rows):
        for k, values in enumerate(columns):
            loop[row, width + k] = f"{float(values[i]):.4f}"


def _add_groups(block, groups, posterior) -> None:
    """T, L, S of rigid groups with standard deviations from draws, and what each group holds."""
    mean = groups.tensors(posterior.values["tls"])
    sd = {k: v.std(0) for k, v in groups.tensors(posterior.sites(400, seed=1)["tls"]).items()}
    places = {"T": ELEMENTS, "L": ELEMENTS, "S": [f"{i}{j}" for i in "123" for j in "123"]}
    names = [f"{k}[{e[0]}][{e[1]}]" for k, all_ in places.items() for e in all_]
    head = ["id", "pdbx_refine_id", "method", "origin_x", "origin_y", "origin_z"]
    loop = block.init_loop("_pdbx_refine_tls.", head + names + [f"{n}_esd" for n in names])
    for g in range(len(groups)):
        values = [
            [float(x[k][g, int(e[0]) - 1, int(e[1]) - 1]) for k, all_ in places.items() for e in all_]
            for x in (mean, sd)
        ]
        centre = [f"{x:.4f}" for x in groups.centre[g].tolist()]
        loop.add_row([str(g + 1), "'X-RAY DIFFRACTION'", "refined", *centre,
                      *(f"{x:.5f}" for x in values[0]), *(f"{x:.5f}" for x in values[1])])  # fmt: skip
    members = block.init_loop(
        "_pdbx_refine_tls_group.", ["id", "pdbx_refine_id", "refine_tls_id", "selection_details"]
    )
    for g, name in enumerate(groups.name):
        members.add_row([str(g + 1), "'X-RAY DIFFRACTION'", str(g + 1), gemmi.cif.quote(name)])


def write_ensemble(posterior, path: str | Path, n: int, seed: int = 0) -> None:
    """`n` draws of the posterior as the models of one mmCIF."""
    out = gemmi_from_crystal(posterior.crystal)
    del out[0]
    draws = posterior.molecules(n, seed)
    for i in range(n):
        U = draws["U"][i] if "U" in draws else None
        B = (draws["B"] if U is None else draws["B_eq"])[i].clamp(min=0.01)
        crystal = replace(posterior.crystal, xyz=draws["xyz"][i], B=B, U=U, occupancy=draws["occupancy"][i])
        structure = gemmi_from_crystal(crystal)
        model = structure[0].clone()
        model.num = i + 1
        out.add_model(model)
    with atomic_path(path) as temporary:
        temporary.write_text(out.make_mmcif_document().as_string())


def posterior_draws(posterior, n: int, seed: int = 0):
    """xarray dataset of `n` draws: xyz (draw, atom, axis), B, occupancy (draw, atom), and every other site."""
    import numpy as np
    import xarray

    sites = posterior.sites(n, seed)
    dims: dict[str, tuple[str, ...]] = {
        "xyz": ("atom", "axis"),
        "U": ("atom", "element"),
        "A": ("atom", "shape"),
    }
    dims |= dict.fromkeys(("B", "B_eq", "occupancy"), ("atom",))
    dims["tls"] = ("group", "parameter")
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
