"""Gauss-Newton curvature of the collapsed likelihood in the scale, and the Gaussian posterior it gives.

With f_i = log K_i, J = ∂f/∂z and λ_i the precision of spot i, the expected information of one reflection about the
scales of its spots, its amplitude integrated out, is

    diag(W) - W Wᵀ/(Σ W + τ),     W_i = λ_i K_i² E F⁴,    τ = E[-∂² log p(log F²)/∂(log F²)²]

so the common scale of the spots of one reflection is known only as well as the prior knows F (τ = F²/ε for an
acentric amplitude), and their ratios as well as the spots say. The precision of z is

    H = Σ_h Jᵀ (...) J - ∂² log p(z)/∂z²

The sites that do not enter K (the error model) take their rows from differences of the exact gradient.
"""

import torch

from bayesref.guides.latents import AMPLITUDE, INTENSITY
from bayesref.inference import distributed
from bayesref.inference.arrow import Arrow, ArrowRoot

MANY = 1500  # weights of single images, beyond which their precision is an `Arrow`; below, exact costs little


def scale_sites(collapsed, z) -> list[str]:
    """Names of the latent sites on which K depends."""
    values = {k: v.detach().requires_grad_() for k, v in collapsed.latents.unpack(z).items()}
    trace = collapsed.run(collapsed.pieces[0], values)
    K = trace.nodes[INTENSITY]["fn"].loc
    grads = torch.autograd.grad(K.sum(), list(values.values()), allow_unused=True)
    return [k for k, g in zip(values, grads, strict=True) if g is not None and bool((g != 0).any())]


def jacobian(collapsed, piece, z, names):
    """∂ log K/∂z of the sites `names`, (spot, latent of those sites); scales know their own."""
    scales = {a.site: a for a in collapsed.args if hasattr(a, "jacobian")}
    values = collapsed.latents.unpack(z)
    parts = []
    for k in names:
        site = collapsed.latents.sites[k]
        if k in scales:
            parts.append(scales[k].jacobian(values[k], piece))
            continue

        def log_K(x, k=k, site=site):
            changed = {**values, k: site.transform(x.reshape(site.shape))}
            trace = collapsed.run(piece, changed)
            return trace.nodes[INTENSITY]["fn"].loc.log()

        parts.append(torch.func.jacfwd(log_K)(z[site.where]))
    return torch.cat(parts, 1)


def _log_intensity_curvature(prior, m2):
    """τ by central differences of log p(F) + log F in x = log F², at F² = E F²; (hkl,)."""
    h = 0.1
    x = m2.log()

    def g(x):
        return prior.log_prob((0.5 * x).exp()) + 0.5 * x

    return ((2 * g(x) - g(x + h) - g(x - h)) / h**2).clamp(min=1e-3)


def image_scale(collapsed, names):
    """The scale, if it has so many image-wise weights that their precision is an `Arrow`; else None."""
    scales = [a for a in collapsed.args if hasattr(a, "image_columns")]
    if len(scales) != 1 or list(names) != [scales[0].site]:
        return None
    return scales[0] if scales[0].image_columns().numel() > MANY else None


@torch.no_grad()
def _gauss_newton_arrow(collapsed, z, scale) -> Arrow:
    """As `gauss_newton`, without the coupling of one image's own weights to another's."""
    w = collapsed.latents.unpack(z)[scale.site]
    local = scale.image_columns()
    is_shared = torch.ones(len(w), dtype=torch.bool)
    is_shared[local] = False
    shared = is_shared.nonzero()[:, 0]
    n, k, m = local.shape[0], local.shape[1], len(shared)
    A, C, G = w.new_zeros(n, k, k), w.new_zeros(n, k, m), w.new_zeros(m, m)
    for piece, tau, W in _weights(collapsed, z):
        Js, Jl = scale.split_jacobian(w, piece)
        total = torch.zeros_like(tau).index_add(0, piece.hkl_id, W) + tau
        WJ = Js * W[:, None]
        mean = WJ.new_zeros(len(tau), m).index_add(0, piece.hkl_id, WJ) / total[:, None]
        centred = WJ - W[:, None] * mean[piece.hkl_id]
        G += _symmetric_product(Js, centred)
        C.index_add_(0, piece.image_id, Jl[:, :, None] * centred[:, None, :])
        WJ = Jl * W[:, None]
        A.index_add_(0, piece.image_id, WJ[:, :, None] * Jl[:, None, :])
        # spots of one reflection on one image share its amplitude
        both, inverse = torch.unique(piece.image_id * len(tau) + piece.hkl_id, return_inverse=True)
        u = WJ.new_zeros(len(both), k).index_add(0, inverse, WJ)
        A.index_add_(0, both // len(tau), -u[:, :, None] * u[:, None, :] / total[both % len(tau), None, None])
    A, C, G = (distributed.total(x) for x in (A, C, G))
    return Arrow(local, shared, A, C, 0.5 * (G + G.T))


def _weights(collapsed, z):
    """Of each piece: itself, τ of its reflections and W of its spots."""
    values = collapsed.latents.unpack(z)
    for piece, m in zip(collapsed.pieces, collapsed.moments, strict=True):
        trace = collapsed.run(piece, values)
        K = trace.nodes[INTENSITY]["fn"].loc
        W = m.precision * K**2 * m.m4[piece.hkl_id]
        yield piece, _log_intensity_curvature(trace.nodes[AMPLITUDE]["fn"], m.m2), W


@torch.no_grad()
def gauss_newton(collapsed, z, names) -> torch.Tensor | Arrow:
    """Information of the spots about the sites `names`, prior left out, (latent, latent) of those sites."""
    own = getattr(collapsed, "gauss_newton", None)  # where spots share reflections
    if own is not None:
        return own(z, names)
    scale = image_scale(collapsed, names)
    if scale is not None:
        return _gauss_newton_arrow(collapsed, z, scale)
    H = torch.zeros(())
    for piece, tau, W in _weights(collapsed, z):
        total = torch.zeros_like(tau).index_add(0, piece.hkl_id, W)
        J = jacobian(collapsed, piece, z, names)
        WJ = J * W[:, None]
        shared = J.new_zeros(len(tau), J.shape[1]).index_add(0, piece.hkl_id, WJ)
        # In double precision throughout: what single precision loses depends on how the spots are cut into pieces.
        H = H + _symmetric_product(J, WJ) - _symmetric_product(shared, shared / (total + tau)[:, None])
    H = distributed.total(H)
    return 0.5 * (H + H.T)


def _symmetric_product(X, Y, width=128):
    """Xᵀ Y (n, n) where it is known to be symmetric: the blocks below the diagonal are copied."""
    H = X.new_zeros(X.shape[1], X.shape[1])
    for i in range(0, len(H), width):
        block = X[:, i : i + width].T @ Y[:, i:]
        H[i : i + width, i:], H[i:, i : i + width] = block, block.T
    return H


def precision(collapsed, z, names, step=0.02) -> torch.Tensor | Arrow:
    """Posterior precision of z, (latent, latent): Gauss-Newton for the scale, differences for the rest.

    `step` is the length of a difference in z; the error model's latents are logarithms, known to a few per cent.
    """
    latents = collapsed.latents
    mine = latents.columns(names)
    is_rest = torch.ones(latents.n, dtype=torch.bool)
    is_rest[mine] = False
    rest = is_rest.nonzero()[:, 0]
    here = collapsed.exact(z)[1] if len(rest) else None
    rows = torch.zeros(len(rest), latents.n, dtype=z.dtype)
    for i, place in enumerate(rest):
        e = torch.zeros_like(z)
        e[place] = step
        rows[i] = (here - collapsed.exact(z + e)[1]) / step
    information = gauss_newton(collapsed, z, names)
    if isinstance(information, Arrow):
        arrow = information.plus_identity()
        return Arrow(mine[arrow.local], mine[arrow.shared], arrow.A, arrow.C, arrow.G).bordered(rest, rows)
    H = torch.zeros(latents.n, latents.n, dtype=z.dtype)
    H[rest], H[:, rest] = rows, rows.T
    H[mine[:, None], mine] = information + prior_precision(collapsed, z, names)
    H[rest[:, None], rest] = 0.5 * (H[rest[:, None], rest] + H[rest[:, None], rest].T)
    return H


def prior_precision(collapsed, z, names):
    """-∂² log p(z)/∂z² of the sites `names` (unit for the whitened weights of a scale)."""
    latents, blocks = collapsed.latents, []
    scales = {a.site for a in collapsed.args if hasattr(a, "jacobian")}
    for k in names:
        site = latents.sites[k]
        n = site.where.stop - site.where.start
        if k in scales:
            blocks.append(torch.eye(n, dtype=z.dtype))
            continue
        values = latents.unpack(z)
        piece = collapsed.pieces[0]
        prior = collapsed.run(piece, values).nodes[k]["fn"]

        def log_prior(x, site=site, prior=prior):
            value = site.transform(x.reshape(site.shape))
            jacobian_term = site.transform.log_abs_det_jacobian(x.reshape(site.shape), value)
            return -(prior.log_prob(value).sum() + jacobian_term.sum())

        with torch.enable_grad():
            blocks.append(torch.autograd.functional.hessian(log_prior, z[site.where]))
    return torch.block_diag(*blocks)


def inverse_root(H: torch.Tensor | Arrow) -> torch.Tensor | ArrowRoot:
    """L with L Lᵀ = H⁻¹, (n, n) upper triangular, or of an `Arrow` its `ArrowRoot`.

    Away from the optimum a row of differences may make H indefinite; then the absolute values of its eigenvalues
    stand in, none below 10⁻⁸ of the largest.
    """
    if isinstance(H, Arrow):
        return H.root()
    S = 0.5 * (H + H.T)
    _, info = torch.linalg.cholesky_ex(S)
    if int(info):
        values, vectors = torch.linalg.eigh(S)
        values = values.abs().clamp(min=1e-8 * float(values.abs().max()))
        S = (vectors * values) @ vectors.T
    L = torch.linalg.cholesky(S)
    return torch.linalg.solve_triangular(L, torch.eye(len(S), dtype=S.dtype), upper=False).T


def log_det(root: torch.Tensor | ArrowRoot) -> float:
    """log |det L| of what `inverse_root` returns."""
    return float(root.log_det if isinstance(root, ArrowRoot) else torch.linalg.slogdet(root).logabsdet)
