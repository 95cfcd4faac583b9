"""Batching of the kernels under torch.vmap: a mapped dimension becomes more volumes or more poses.

Mapped poses over one volume become more poses; mapped volumes become more volumes. Mapped points have no such
place (the stencil x is shared) and run one after another, as does ∂x, which sums over everything else.
"""

import torch

POSES = 1  # the pose dimension of M and t; the volume dimension is 0


def vmap_sample(apply, n, dims, args):
    """out (b, p, column) gains a dimension; returns (out, where it is)."""
    V, x, M, t, columns, table, *rest = args
    if _points_mapped(dims[1], dims[4], dims[5]):
        return _one_by_one(apply, n, dims, args)
    if dims[0] is None and not rest[-1]:
        M, t = _into(M, dims[2], n, POSES), _into(t, dims[3], n, POSES)
        out = apply(V, x, M, t, columns, table, *rest)
        return out.unflatten(POSES, (n, -1)), POSES
    V = _into(V, dims[0], n, 0)
    M, t = _with_volumes(M, dims[2], n, V), _with_volumes(t, dims[3], n, V)
    return apply(V, x, M, t, columns, table, *rest).unflatten(0, (n, -1)), 0


def vmap_insert(apply, n, dims, args):
    """V (b, ...) gains a dimension; returns (V, where it is)."""
    g, x, M, t, columns, table, *rest = args
    if _points_mapped(dims[1], dims[4], dims[5]):
        return _one_by_one(apply, n, dims, args)
    g = _into(g, dims[0], n, 0)
    M, t = _with_volumes(M, dims[2], n, g), _with_volumes(t, dims[3], n, g)
    return apply(g, x, M, t, columns, table, *rest).unflatten(0, (n, -1)), 0


def vmap_pose_gradient(apply, n, dims, args):
    """∂M, ∂t, ∂x gain a dimension each; returns (the three, where it is in each)."""
    V, g, x, M, t, columns, table, n2, coherent, need_x = args
    if _points_mapped(dims[2], dims[5], dims[6]) or need_x:
        return _one_by_one(apply, n, dims, args)
    fixed = (columns, table, n2, coherent, need_x)
    if dims[0] is None and not coherent:
        g, M, t = (_into(a, d, n, POSES) for a, d in ((g, dims[1]), (M, dims[3]), (t, dims[4])))
        out_M, out_t, out_x = apply(V, g, x, M, t, *fixed)
        out = out_M.unflatten(POSES, (n, -1)), out_t.unflatten(POSES, (n, -1)), out_x
        return out, (POSES, POSES, None)
    V, g = _into(V, dims[0], n, 0), _into(g, dims[1], n, 0)
    M, t = _with_volumes(M, dims[3], n, V), _with_volumes(t, dims[4], n, V)
    out_M, out_t, out_x = apply(V, g, x, M, t, *fixed)
    return (out_M.unflatten(0, (n, -1)), out_t.unflatten(0, (n, -1)), out_x), (0, 0, None)


def _points_mapped(*dims) -> bool:
    return any(d is not None for d in dims)


def _into(a, dim, n, target):
    """`a` with its mapped dimension (or n copies) merged into dimension `target`, the map outermost."""
    if a is None:
        return None
    if dim is None:  # noqa: SIM108 (one line would be too long)
        a = a.unsqueeze(target).expand(*a.shape[:target], n, *a.shape[target:])
    else:
        a = a.movedim(dim, target)
    return a.flatten(target, target + 1)


def _with_volumes(a, dim, n, volumes):
    """M or t beside `volumes` (n·b, ...): untouched where one pose serves all, else expanded to n·b."""
    if a is None or (dim is None and a.shape[0] == 1):
        return a
    a = a.expand(n, *a.shape) if dim is None else a.movedim(dim, 0)
    return a.expand(n, volumes.shape[0] // n, *a.shape[2:]).flatten(0, 1)


def _one_by_one(apply, n, dims, args):
    outs = []
    for i in range(n):
        one = [a.select(d, i) if isinstance(d, int) else a for a, d in zip(args, dims, strict=True)]
        outs.append(apply(*one))
    if isinstance(outs[0], tuple):
        return tuple(torch.stack(o) for o in zip(*outs, strict=True)), (0,) * len(outs[0])
    return torch.stack(outs), 0
