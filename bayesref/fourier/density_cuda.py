"""The density of atoms on the GPU: bricks of the grid that gather their atoms, atoms that gather their gradient.

Forward, one program owns a brick of 8 x 8 x 8 grid points and adds the atoms whose sphere meets it, in one fixed
order: no atomics, so results repeat bit for bit. Which atoms meet which brick is a sorted list, made with torch on
the device. Backward, one program owns an atom and sums over the box around its sphere. The equation is in `density`.
"""

import math

import torch

from bayesref.fourier import density_triton as kernels

BRICK = 8
BLOCK = 256  # points of an atom's box at a time
FOUR_PI2 = 4 * math.pi**2
LN2 = math.log(2.0)
_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def splat(frac, occupancy, adp, radius2, a, b, index, orth, shape, dtype) -> torch.Tensor:
    """See `bayesref.fourier.density.density`; one leading dimension (state, ...)."""
    grid = torch.zeros((len(frac), *shape), dtype=dtype, device=frac.device)
    bricks = [-(-n // BRICK) for n in shape]
    step = _step(orth, shape, frac.device)
    for state in range(len(frac)):
        if not len(index):
            continue
        centre, offset = _position(frac[state], shape, dtype)
        lists = _brick_lists(centre, _reach(radius2[state], step), shape, bricks)
        A, Q, _, _ = _gaussians(occupancy[state], adp[state], a, b, index, step, dtype)
        kernels.splat[(math.prod(bricks),)](
            grid[state],
            *lists,
            offset,
            A,
            Q,
            radius2[state].to(dtype),
            _metric(step, dtype),
            *shape,
            *bricks[1:],
            tensor=adp.ndim == 3,
            brick=BRICK,
            gaussians=a.shape[1],
        )
    return grid


def gather(grad, frac, occupancy, adp, radius2, a, b, index, orth):
    """Gradients for frac, occupancy, adp and radius2 from the gradient of the grid (state, nx, ny, nz)."""
    shape, dtype, tensor = tuple(grad.shape[1:]), grad.dtype, adp.ndim == 3
    sums = torch.zeros((*frac.shape[:2], 16), dtype=dtype, device=grad.device)
    step = _step(orth, shape, grad.device)
    for state in range(len(frac)):
        if not len(index):
            continue
        centre, offset = _position(frac[state], shape, dtype)
        A, Q, P, S = _gaussians(torch.ones_like(occupancy[state]), adp[state], a, b, index, step, dtype)
        kernel = kernels.gather_tensor if tensor else kernels.gather_iso
        kernel[(len(index),)](
            grad[state],
            centre,
            offset,
            _reach(radius2[state], step),
            A,
            Q,
            *((P, S) if tensor else ()),
            radius2[state].to(dtype),
            sums[state],
            _metric(step, dtype),
            *shape,
            block=BLOCK,
            gaussians=a.shape[1],
        )
    return _finish(sums.double(), frac, occupancy, adp, radius2, step, shape)


def _finish(total, frac, occupancy, adp, radius2, step, shape):
    """Gradients from the kernels' sums for atoms of unit occupancy."""
    o = occupancy.double()[..., None]
    position = -2 * total[..., :3] @ (step.T @ step)
    if adp.ndim == 3:
        position = position - 2 * LN2 * total[..., 11:14]
        B = total[..., 5:11] * o
    else:
        B = total[..., 5:6] * o / FOUR_PI2
    size = torch.tensor(shape, dtype=torch.float64, device=total.device)
    parts = position * size * o, total[..., 3], B, -total[..., 4] / radius2 * o[..., 0]
    return tuple(
        p.reshape(x.shape).to(x.dtype) for p, x in zip(parts, (frac, occupancy, adp, radius2), strict=True)
    )


def _step(orth, shape, device) -> torch.Tensor:
    """Grid steps as columns, (3, 3) float64, Å."""
    return (orth / torch.tensor(shape, dtype=torch.float64)).to(device)


def _metric(step, dtype) -> torch.Tensor:
    g = step.T @ step
    return torch.stack([g[i, j] for i, j in _PAIRS]).to(dtype)


def _position(frac, shape, dtype):
    """Nearest grid point within the cell (atom, 3) int32, and the rest (atom, 3), in grid steps."""
    size = torch.tensor(shape, dtype=torch.float64, device=frac.device)
    position = (frac.double() % 1.0) * size
    centre = position.round()
    return centre.to(torch.int32), (position - centre).to(dtype)


def _reach(radius2, step) -> torch.Tensor:
    """Grid steps from the centre that the sphere may reach along each axis, (atom, 3) int32."""
    per_radius = torch.linalg.inv(step).norm(dim=1)
    return (radius2.double().sqrt()[:, None] * per_radius + 0.5).to(torch.int32)


def _brick_lists(centre, reach, shape, bricks):
    """Atoms of each brick: start (brick + 1,) int64, atom (entry,) int32, centre relative to the cell (entry, 3) int32.

    Along an axis, bricks are numbered through all images of the cell, so an atom meets a run of numbers.
    """
    device, axes = centre.device, []
    for axis in range(3):
        n, count = shape[axis], bricks[axis]

        def number(x, n=n, count=count):
            return torch.div(x, n, rounding_mode="floor") * count + x.remainder(n) // BRICK

        low, high = (number(centre[:, axis].long() + sign * reach[:, axis].long()) for sign in (-1, 1))
        run = low[:, None] + torch.arange(int((high - low).max()) + 1, device=device)
        image = torch.div(run, count, rounding_mode="floor")
        axes.append((run <= high[:, None], run.remainder(count), centre[:, axis, None].long() - image * n))
    (ok_x, x, cx), (ok_y, y, cy), (ok_z, z, cz) = axes
    ok = ok_x[:, :, None, None] & ok_y[:, None, :, None] & ok_z[:, None, None, :]
    atom, i, j, k = ok.nonzero(as_tuple=True)
    brick = (x[atom, i] * bricks[1] + y[atom, j]) * bricks[2] + z[atom, k]
    brick, order = torch.sort(brick, stable=True)  # atoms stay in their order within a brick
    start = torch.searchsorted(brick, torch.arange(math.prod(bricks) + 1, device=device))
    centres = torch.stack([cx[atom, i], cy[atom, j], cz[atom, k]], -1)[order]
    return start, atom[order].to(torch.int32), centres.to(torch.int32)


def _gaussians(occupancy, adp, a, b, index, step, dtype):
    """Amplitudes A, exponents Q over ln 2, and for tensors P = M⁻¹ H and S = M⁻¹, of every atom and Gaussian."""
    a, b, occupancy, adp = a.double()[index], b.double()[index], occupancy.double()[:, None], adp.double()
    if adp.ndim == 1:
        beta = b + adp[:, None]
        A, Q = occupancy * a * (4 * math.pi / beta) ** 1.5, -FOUR_PI2 / (beta * LN2)
        return A.to(dtype).contiguous(), Q.to(dtype).contiguous(), None, None
    M = adp[:, None, [0, 3, 4, 3, 1, 5, 4, 5, 2]].unflatten(-1, (3, 3))
    M = M + b[..., None, None] * torch.eye(3, dtype=torch.float64, device=b.device)
    S = torch.linalg.inv(M)
    P = S @ step
    form = -FOUR_PI2 / LN2 * (step.T @ P)
    A = occupancy * a * (4 * math.pi) ** 1.5 / torch.linalg.det(M).sqrt()
    six = [torch.stack([x[..., i, j] for i, j in _PAIRS], -1) for x in (form, S)]
    return tuple(x.to(dtype).contiguous() for x in (A, six[0], P.flatten(-2), six[1]))
