"""A time series of merged amplitudes with known occupancies.

F_0 = F_dark + Δ,   F_t = F_0 + Σ_s o_s(t) (F_s - F_dark) + δ_t        E|Δ|² = ε β,  E|δ_t|² = own ε β
F̂ = |F| + Normal(0, σ),   σ = noise √⟨F²⟩ at its resolution
"""

from dataclasses import dataclass

import gemmi
import torch

from bayesref.crystal.asu import reciprocal_asu
from bayesref.crystal.lattice import check_resolution
from bayesref.data.merged import MergedData
from bayesref.data.series import TimeSeries
from bayesref.data.simulate import MergeOptions, measure
from bayesref.refinement.simulate import smooth_mean
from bayesref.structure_factors.calculate import structure_factors
from bayesref.structure_factors.scale import add_solvent
from bayesref.structure_factors.solvent import SolventMask


@dataclass(frozen=True)
class SeriesOptions:
    """What is simulated.

    Attributes
    ----------
    dmin : Å
    error : β / ⟨F²/ε⟩ of the dark model
    own : variance of the error of each time alone / β
    noise : σ / root mean square amplitude at the resolution
    scale : spread of the log scale of each dataset
    k_sol, B_sol : electrons/Å³, Å²
    """

    dmin: float = 2.0
    error: float = 0.10
    own: float = 0.01
    noise: float = 0.03
    scale: float = 0.01
    k_sol: float = 0.35
    B_sol: float = 46.0


def simulate_series(crystals: dict, occupancy, t, options: SeriesOptions = SeriesOptions(), seed: int = 0):
    """TimeSeries, and its dark dataset as MergedData.

    Parameters
    ----------
    crystals : {state: Crystal}, the first dark
    occupancy : (time, state)
    t : (time,), s
    """
    g = torch.Generator().manual_seed(seed)
    first = next(iter(crystals.values()))
    check_resolution(first.cell, first.spacegroup, options.dmin)
    hkl = torch.tensor(gemmi.make_miller_array(first.cell, first.spacegroup, options.dmin), dtype=torch.int64)
    asu, _ = reciprocal_asu(hkl, first.cell, first.spacegroup)
    F = torch.stack([_model(c, asu, options) for c in crystals.values()], 1)  # (hkl, state)
    Sigma = smooth_mean(F[:, 0].abs() ** 2 / asu.epsilon, asu.stol2)

    def error(share):
        e = torch.randn(2, len(asu), generator=g, dtype=torch.float64)
        along = F[:, 0] / F[:, 0].abs().clamp(min=1e-12)
        return (share * asu.epsilon * Sigma).sqrt() * torch.where(
            asu.centric, e[0] * along, torch.complex(e[0], e[1]) * 0.5**0.5
        )

    dark = F[:, 0] + error(options.error)
    change = (F - F[:, :1]) @ torch.as_tensor(occupancy, dtype=torch.float64).T.to(F.dtype)  # (hkl, time)
    light = [dark + change[:, i] + error(options.own * options.error) for i in range(len(t))]
    K = torch.exp(options.scale * torch.randn(len(t), generator=g, dtype=torch.float64))
    amplitudes = torch.stack([dark.abs(), *(k * x.abs() for k, x in zip(K, light, strict=True))], 1)
    sigma = options.noise * (Sigma * asu.epsilon).sqrt()[:, None].expand_as(amplitudes)
    noisy = amplitudes + sigma * torch.randn(amplitudes.shape, generator=g, dtype=torch.float64)
    names = ("dark", *(f"{float(x):g} s" for x in t))
    series = TimeSeries(asu, torch.as_tensor(t, dtype=torch.float64), noisy, sigma.contiguous(), names)
    free = torch.zeros(len(asu), dtype=torch.bool)
    return series, MergedData(
        asu, "F", noisy[:, 0].contiguous(), sigma[:, 0].contiguous(), free, {"value": "F"}
    )


def spots_of(series: TimeSeries, multiplicity: float, images: int = 60, seed: int = 0):
    """Spots of each dataset of a series without noise, a table each: `images` images, scales and errors of their own.

    The relative scale of the datasets is kept, so that they can be merged together.
    """
    asu = series.asu
    cell = asu.cell.parameters
    unit = float((series.F[:, 0] ** 2 / asu.epsilon).mean().sqrt())
    options = MergeOptions(
        cell=tuple(cell), spacegroup=asu.spacegroup.xhm(), dmin=float(asu.dHKL.min()), multiplicity=multiplicity,
        images=images, B0=0.0, B1=2.0, sig0=20.0, gain=2.0, sdadd=0.02,
    )  # fmt: skip
    hkl, epsilon, centric, d = (x.numpy() for x in (asu.hkl, asu.epsilon, asu.centric, asu.dHKL))
    return [
        measure(hkl, epsilon, centric, d, series.F[:, i].numpy() / unit, options, seed + i)
        for i in range(1 + series.n_time)
    ]


def _model(crystal, asu, options):
    with torch.no_grad():
        F = structure_factors(crystal, asu.hkl, rel_error=1e-4).to(torch.complex128)
    return add_solvent(F, SolventMask(asu.hkl)(crystal), asu.stol2, options.k_sol, options.B_sol)
