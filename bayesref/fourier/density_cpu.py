"""The density of atoms on the CPU: numba kernels over slabs of the grid.

Each task owns a run of planes and goes through the atoms that reach them in one fixed order, so every grid point
is summed in that order and the result does not depend on the number of threads, bit for bit.
"""

import numpy as np
import torch

from bayesref.fourier import density_cpu_aniso, density_cpu_iso
from bayesref.fourier.threads import run_tasks

# slabs per thread, to even out the load: finding an atom's planes costs little
SLABS = 4
SWATH = 4  # planes that a run of atoms shares while they are in the cache


def splat(frac, occupancy, adp, radius2, a, b, index, orth, shape, dtype) -> torch.Tensor:
    """See `bayesref.fourier.density.density`; one leading dimension (state, ...)."""
    grid = torch.zeros((len(frac), *shape), dtype=dtype)
    kernel = density_cpu_iso if adp.ndim == 2 else density_cpu_aniso
    table = [_numpy(x) for x in (a, b, index)]
    for state in range(len(frac)):
        position, order = _sorted(frac[state], shape)
        flat, R2, step = grid[state].numpy().reshape(-1), _numpy(radius2[state]), _step(orth, shape)
        atoms = kernel.prepare(_numpy(occupancy[state]), _numpy(adp[state]), *table, flat.dtype)

        def work(x0, x1, flat=flat, position=position, R2=R2, order=order, step=step, atoms=atoms):
            kernel.splat(flat, shape, position, R2, order, step, x0, x1, *atoms)

        run_tasks(work, shape[0], SLABS * torch.get_num_threads())
    return grid


def gather(grad, frac, occupancy, adp, radius2, a, b, index, orth):
    """Gradients for frac, occupancy, adp and radius2 from the gradient of the grid (state, nx, ny, nz)."""
    shape = tuple(grad.shape[1:])
    iso = adp.ndim == 2
    kernel = density_cpu_iso if iso else density_cpu_aniso
    sums = np.zeros((*frac.shape[:2], 6 if iso else 11))
    table = [_numpy(x) for x in (a, b, index)]
    for state in range(len(frac)):
        position, order = _sorted(frac[state], shape)
        flat, R2, step = grad[state].numpy().reshape(-1), _numpy(radius2[state]), _step(orth, shape)
        atoms = kernel.prepare(np.ones(len(order)), _numpy(adp[state]), *table, flat.dtype)
        out = sums[state]

        def work(
            first, last, flat=flat, position=position, R2=R2, order=order, step=step, atoms=atoms, out=out
        ):
            kernel.gather(flat, shape, position, R2, order, step, out, first, last, *atoms)

        run_tasks(work, len(order))
    total = torch.from_numpy(sums)
    size = torch.tensor(shape, dtype=torch.float64)
    o = occupancy.double()[..., None]
    parts = total[..., :3] * size * o, total[..., 3], (total[..., 4:-1] * o), total[..., -1] * o[..., 0]
    return tuple(
        p.reshape(x.shape).to(x.dtype) for p, x in zip(parts, (frac, occupancy, adp, radius2), strict=True)
    )


def _sorted(frac, shape):
    """Positions in grid steps within the cell, and an order that keeps neighbours together."""
    frac = _numpy(frac)
    position = (frac - np.floor(frac)) * np.array(shape)
    key = (position[:, 0] // SWATH) * shape[1] + position[:, 1] // 1
    return position, np.argsort(key, kind="stable")


def _step(orth, shape) -> np.ndarray:
    """Grid steps as columns, (3, 3) Å."""
    return orth.numpy() / np.array(shape)


def _numpy(x: torch.Tensor) -> np.ndarray:
    kind = torch.int64 if x.dtype == torch.int64 else torch.float64
    return x.detach().to(kind).contiguous().numpy()
