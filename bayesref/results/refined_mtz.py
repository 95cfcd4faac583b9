"""Maps and amplitudes of a refinement.

    2mFo-DFc   acentric 2 E[F m] - D F_c, centric E[F m]         FWT PHWT
    mFo-DFc    E[F m] - D F_c                                    DELFWT PHDELWT

E[F m], the amplitude expected along the phase of the model, is integrated over the error of the measurement. Free
reflections, and those never measured, are filled with D F_c and add nothing to the difference map. On the scale of the
data. Read (1986), Acta Cryst. A42, 140.
"""

from pathlib import Path

import gemmi
import numpy as np
import torch

from bayesref.io.atomic import atomic_path
from bayesref.refinement.anomalous import phase_confidence
from bayesref.refinement.atomic_model import of_atoms
from bayesref.refinement.target import DIFFERENCE


def map_coefficients(target, z) -> dict[str, torch.Tensor]:
    """Amplitudes and phases (radians) of maps, (hkl,) each: FC, PHIC, FWT, DELFWT, FOM, F, SIGF.

    FWT and DELFWT are along PHIC and may be negative.
    """
    values = target.latents.unpack(z)
    with torch.no_grad():
        G, _ = target.expected(values)
        phase = _phase(target, values)
    m = target.measured(z)
    data = target.data
    twice = torch.where(data.asu.centric, m.phased, 2 * m.phased - G)
    return {
        "FC": G, "PHIC": phase, "FWT": torch.where(data.free, G, twice),
        "DELFWT": torch.where(data.free, torch.zeros_like(G), m.phased - G),
        "FOM": m.phased / m.F, "F": m.F, "SIGF": (m.F2 - m.F**2).clamp(min=0).sqrt(),
    }  # fmt: skip


def _phase(target, values):
    """Phase of F_atoms + solvent, (hkl,) radians."""
    atoms = target.atoms
    F = atoms.F_atoms(*of_atoms(values))
    if "k_sol" in values:
        F = F + values["k_sol"] * torch.exp(-values["B_sol"] * atoms.stol2) * atoms.F_mask
    return F.angle()


def anomalous_columns(target, z) -> dict[tuple[str, str], torch.Tensor]:
    """Columns of the differences of Friedel mates, (hkl,) each, NaN where there is no pair.

    DANO, SIGDANO: F₊ - F₋ as measured; DANOC: as calculated. ANOM PHANOM: map of the scatterers, m DANO along φ - 90°;
    DELANOM PHDELANOM: of what they leave unexplained. Free reflections are in neither map.
    """
    pairs = target.atoms.anomalous.pairs
    with torch.no_grad():
        values = target.latents.unpack(z)
        law, phase = target.trace(values).nodes, _phase(target, values)
    G, V, h = law["F"]["fn"].loc, law["F"]["fn"].scatter, pairs.row
    m = phase_confidence(pairs.F, pairs.sigma, G[h], V[h])
    calculated = law["difference"]["fn"].loc
    kept = torch.where(target.data.free[h], torch.nan, m)
    quarter = torch.remainder(torch.rad2deg(phase) - 90 + 180, 360) - 180

    def spread(x):
        return torch.full(G.shape, torch.nan, dtype=G.dtype).index_copy(0, h, x)

    return {
        ("DANO", "D"): spread(pairs.difference), ("SIGDANO", "Q"): spread(pairs.sigma),
        ("DANOC", "D"): spread(calculated),
        **_signed("ANOM", "PHANOM", spread(kept * pairs.difference), quarter),
        **_signed("DELANOM", "PHDELANOM", spread(kept * (pairs.difference - calculated)), quarter),
    }  # fmt: skip


def write_maps(target, z, path: str | Path) -> None:
    """Data, posterior amplitudes, map coefficients and flags as an MTZ."""
    data, c = target.data, map_coefficients(target, z)
    value, sigma = (torch.where(data.measured, x, torch.nan) for x in (data.value, data.sigma))
    phase = torch.rad2deg(c["PHIC"])
    columns = {
        ("I" if data.kind == "I" else "FP", "J" if data.kind == "I" else "F"): value,
        ("SIGI" if data.kind == "I" else "SIGFP", "Q"): sigma,
        ("F", "F"): c["F"], ("SIGF", "Q"): c["SIGF"], ("FC", "F"): c["FC"], ("PHIC", "P"): phase,
        ("FOM", "W"): c["FOM"], **_signed("FWT", "PHWT", c["FWT"], phase),
        **_signed("DELFWT", "PHDELWT", c["DELFWT"], phase), ("FreeR_flag", "I"): (~data.free).double(),
    }  # fmt: skip
    if DIFFERENCE in target.trace(target.latents.unpack(z)).nodes:
        columns |= anomalous_columns(target, z)
    mtz = gemmi.Mtz(with_base=True)
    mtz.spacegroup = data.asu.spacegroup
    mtz.add_dataset("bayesref")
    mtz.set_cell_for_all(data.asu.cell)
    for label, kind in columns:
        mtz.add_column(label, kind)
    mtz.set_data(
        np.column_stack([data.asu.hkl.numpy(), *(x.numpy() for x in columns.values())]).astype(np.float32)
    )
    mtz.history = ["Written by bayesref; FreeR_flag 0 is free"]
    with atomic_path(path) as temporary:
        mtz.write_to_file(str(temporary))


def _signed(F_label, phase_label, F, phase):
    """An amplitude that is not negative, with its phase."""
    turned = torch.where(F < 0, torch.remainder(phase + 360, 360) - 180, phase)
    return {(F_label, "F"): F.abs(), (phase_label, "P"): turned}


def write_map_sigma(posterior, path: str | Path, n_draws: int = 24, seed: int = 0) -> None:
    """CCP4 map of the posterior standard deviation of 2mFo-DFc at every grid point, in units of the map.

    The spread over draws of the structure, of scale and solvent, each with its own phases and figures of merit.
    """
    data = posterior.target.data
    densities = []
    for z in posterior.draw(n_draws, seed, stiff=True):
        c = map_coefficients(posterior.target, z)
        mtz = gemmi.Mtz(with_base=True)
        mtz.spacegroup = data.asu.spacegroup
        mtz.add_dataset("draw")
        mtz.set_cell_for_all(data.asu.cell)
        for label, kind in (("F", "F"), ("PHI", "P")):
            mtz.add_column(label, kind)
        F, phase = _signed("F", "PHI", c["FWT"], torch.rad2deg(c["PHIC"])).values()
        mtz.set_data(np.column_stack([data.asu.hkl.numpy(), F.numpy(), phase.numpy()]).astype(np.float32))
        grid = mtz.transform_f_phi_to_map("F", "PHI", sample_rate=3)
        densities.append(np.array(grid.array))
    np.asarray(grid.array)[...] = np.std(densities, 0, ddof=1)
    ccp4 = gemmi.Ccp4Map()
    ccp4.grid = grid
    ccp4.update_ccp4_header()
    with atomic_path(path) as temporary:
        ccp4.write_ccp4_map(str(temporary))
