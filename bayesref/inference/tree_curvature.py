"""Gauss-Newton information about the scale where amplitudes are related.

    diag(W) - W A C Aᵀ W,   C = (Aᵀ W A + T)⁻¹     A: spot -> row,  T: precision of x = log F² under the tree's prior

in place of diag(W) - W Wᵀ/(Σ W + τ) of an amplitude alone (`inference.curvature`); C has one block for each family.
Of an acentric edge, u = 2rFG/V, κ = u² (1 - A²)/4 with A = I₁/I₀: -∂² log p/∂x∂y = -κ; the diagonal has F²/V - κ and
r²G²/V - κ, here never below κ, so that no edge takes information away.
"""

import torch

from bayesref.distributions.wilson_tree import WilsonTree, family_ends
from bayesref.guides.latents import INTENSITY
from bayesref.inference import distributed
from bayesref.inference.arrow import Arrow
from bayesref.inference.curvature import image_scale, jacobian


def family_number(parent: torch.Tensor) -> torch.Tensor:
    """Number of the family of each row, counted from 0, (hkl,) int64."""
    ends = family_ends(parent)
    return torch.repeat_interleave(torch.arange(len(ends) - 1), ends.diff())


@torch.no_grad()
def tree_information(collapsed, z, names) -> torch.Tensor | Arrow:
    """As `curvature.gauss_newton`, for a `TreeCollapsed` after its E-step."""
    scale = image_scale(collapsed, names)
    if scale is not None:
        return _arrow(collapsed, z, scale)
    n = len(collapsed.latents.columns(names))
    H = torch.zeros(n, n, dtype=z.dtype)
    for piece, tree, m2, W in _weights(collapsed, z):
        J = jacobian(collapsed, piece, z, names)
        WJ = J * W[:, None]
        total = torch.zeros_like(m2).index_add(0, piece.hkl_id, W)
        shared = J.new_zeros(len(m2), n).index_add(0, piece.hkl_id, WJ)
        H += J.T @ WJ - shared.T @ _known(tree, m2, total, shared)
    H = distributed.total(H)
    return 0.5 * (H + H.T)


def _arrow(collapsed, z, scale) -> Arrow:
    """Without the coupling of one image's own weights to another's."""
    w = collapsed.latents.unpack(z)[scale.site]
    local = scale.image_columns()
    is_shared = torch.ones(len(w), dtype=torch.bool)
    is_shared[local] = False
    shared = is_shared.nonzero()[:, 0]
    n, k, m = local.shape[0], local.shape[1], len(shared)
    A, C, G = w.new_zeros(n, k, k), w.new_zeros(n, k, m), w.new_zeros(m, m)
    for piece, tree, m2, W in _weights(collapsed, z):
        Js, Jl = scale.split_jacobian(w, piece)
        total = torch.zeros_like(m2).index_add(0, piece.hkl_id, W)
        WJ = Js * W[:, None]
        mean = _known(tree, m2, total, WJ.new_zeros(len(m2), m).index_add(0, piece.hkl_id, WJ))
        centred = WJ - W[:, None] * mean[piece.hkl_id]
        G += Js.T @ centred
        C.index_add_(0, piece.image_id, Jl[:, :, None] * centred[:, None, :])
        WJ = Jl * W[:, None]
        A.index_add_(0, piece.image_id, WJ[:, :, None] * Jl[:, None, :])
        # spots of one reflection on one image share its amplitude
        variance = _variances(tree, m2, total)
        both, inverse = torch.unique(piece.image_id * len(m2) + piece.hkl_id, return_inverse=True)
        u = WJ.new_zeros(len(both), k).index_add(0, inverse, WJ)
        A.index_add_(
            0, both // len(m2), -u[:, :, None] * u[:, None, :] * variance[both % len(m2), None, None]
        )
    A, C, G = (distributed.total(x) for x in (A, C, G))
    return Arrow(local, shared, A, C, 0.5 * (G + G.T))


def _weights(collapsed, z):
    """Of each piece: itself, its tree, E F² of its rows and W of its spots."""
    values = collapsed.latents.unpack(z)
    for piece, m in zip(collapsed.pieces, collapsed.moments, strict=True):
        trace = collapsed.run(piece, values)
        K = trace.nodes[INTENSITY]["fn"].loc
        yield piece, trace.tree, m.m2, m.precision * K**2 * m.m4[piece.hkl_id]


def _known(tree, m2, total, shared):
    """C times the sums over the spots of each row, (hkl, latent)."""
    diagonal, across = log_intensity_precision(tree, m2)
    return solve_families(tree.parent, diagonal + total, across, shared)


def _variances(tree, m2, total):
    """Diagonal of C, (hkl,)."""
    ends = family_ends(tree.parent)
    member = torch.arange(len(m2)) - ends[family_number(tree.parent)]
    unit = torch.nn.functional.one_hot(member, int(ends.diff().max())).to(m2)
    return _known(tree, m2, total, unit).gather(1, member[:, None])[:, 0]


def log_intensity_precision(tree: WilsonTree, m2: torch.Tensor):
    """T at F² = m2: its diagonal, and its element between each row and its parent, (hkl,) each."""
    F, centric, child = m2.sqrt(), tree.centric, tree.parent >= 0
    up = tree.parent.clamp(min=0)
    V, share = tree.epsilon * (1 - tree.r**2), torch.where(centric, 0.5, 1.0).to(m2)
    u = 2 * share * tree.r * F * F[up] / V
    A = torch.special.i1e(u) / torch.special.i0e(u)
    bend = u * u.tanh() + (u / torch.cosh(u.clamp(max=300))) ** 2
    kappa = torch.where(child, torch.where(centric, 0.25 * bend, 0.25 * u**2 * (1 - A**2)), 0.0)
    diagonal = torch.maximum(share * m2 / V - kappa, kappa)
    parents = torch.where(child, torch.maximum(share * tree.r**2 * m2[up] / V - kappa, kappa), 0.0)
    # An amplitude near zero would tell nothing of its scale; a little keeps C finite.
    return diagonal.index_add(0, up, parents).clamp(min=1e-3) + 1e-3, -kappa


def solve_families(parent, diagonal, across, right):
    """X with P X = right, P block by family with this diagonal and `across` between child and parent; (hkl, m)."""
    ends = family_ends(parent)
    number = family_number(parent)
    place = torch.arange(len(parent)) - ends[number]
    out = torch.empty_like(right)
    for size in ends.diff().unique().tolist():
        rows = ends[:-1][ends.diff() == size][:, None] + torch.arange(size)  # (family, member)
        P = torch.diag_embed(diagonal[rows])
        f, c = (parent[rows] >= 0).nonzero().unbind(1)
        p = place[parent[rows[f, c]]]
        P[f, c, p] = P[f, p, c] = across[rows[f, c]]
        out[rows] = torch.linalg.solve(P, right[rows])
    return out
