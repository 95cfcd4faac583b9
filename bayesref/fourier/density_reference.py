"""The density of atoms in plain torch, float64: what the compiled kernels are tested against.

The equation is that of `density`. Every atom's box of grid points is formed as a tensor, so this is slow and takes
memory, and torch differentiates it any number of times.
"""

import torch

TAPER = 0.7


def taper(u: torch.Tensor) -> torch.Tensor:
    """w(u): 1 below TAPER, 0 above 1, a cubic between."""
    t = ((u - TAPER) / (1 - TAPER)).clamp(0, 1)
    return (1 - t) ** 2 * (1 + 2 * t)


def density_reference(
    frac, occupancy, adp, radius2, a, b, index, orth, shape, chunk: int = 1 << 18
) -> torch.Tensor:
    """Electrons per Å³, (state, nx, ny, nz) float64; arguments as in `density`, with one leading dimension."""
    size = torch.tensor(shape, dtype=torch.float64, device=frac.device)
    step = orth.to(frac.device) / size  # (xyz, axis), Å per grid step
    # the box that holds the largest sphere
    reach = (
        float(radius2.detach().max()) ** 0.5 * torch.linalg.inv(step).norm(dim=1)
        if radius2.numel()
        else size * 0
    )
    axes = [torch.arange(-m, m + 1, device=frac.device) for m in (reach + 0.5).long().tolist()]
    box = torch.cartesian_prod(*axes)  # (point, axis)
    rows = torch.arange(frac.shape[1], device=frac.device).split(max(1, chunk // len(box)))
    grids = []
    for state in range(len(frac)):
        grid = frac.new_zeros(shape, dtype=torch.float64).flatten()
        for j in rows:
            index3, value = _box(
                frac[state, j],
                occupancy[state, j],
                adp[state, j],
                radius2[state, j],
                a[index[j]],
                b[index[j]],
                step,
                size,
                box,
            )
            grid = grid.index_add(0, index3.flatten(), value.flatten())
        grids.append(grid.reshape(shape))
    return torch.stack(grids)


def _box(frac, occupancy, adp, radius2, a, b, step, size, box):
    """Flat grid indices and densities of a few atoms, each (atom, point)."""
    position = frac.double() * size
    centre = position.detach().round()
    r = (box - (position - centre)[:, None]) @ step.T  # (atom, point, xyz)
    eye = torch.eye(3, dtype=torch.float64, device=frac.device)
    B = (
        adp[:, [0, 3, 4, 3, 1, 5, 4, 5, 2]].unflatten(-1, (3, 3))
        if adp.ndim == 2
        else adp[:, None, None] * eye
    )
    M = b[..., None, None] * eye + B.double()[:, None]  # (atom, gauss, 3, 3)
    exponent = -4 * torch.pi**2 * torch.einsum("apx,agxy,apy->apg", r, torch.linalg.inv(M), r)
    amplitude = occupancy[:, None] * a * (4 * torch.pi) ** 1.5 / torch.linalg.det(M).sqrt()
    value = (amplitude[:, None] * torch.exp(exponent)).sum(-1)
    value = value * taper(r.square().sum(-1) / radius2[:, None])
    n = (centre.long()[:, None] + box) % size.long()
    return (n[..., 0] * int(size[1]) + n[..., 1]) * int(size[2]) + n[..., 2], value
