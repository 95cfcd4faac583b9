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


def scale_sites(collapsed, z) -> list[str]:
    """Names of the latent sites on which K depends."""
    values = {k: v.detach().requires_grad_() for k, v in collapsed.latents.unpack(z).items()}
    piece = collapsed.pieces[0]
    trace = collapsed.run(piece, values)
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


@torch.no_grad()
def gauss_newton(collapsed, z, names) -> torch.Tensor:
    """Information of the spots about the sites `names`, prior left out, (latent, latent) of those sites."""
    H = torch.zeros(())
    values = collapsed.latents.unpack(z)
    for piece, m in zip(collapsed.pieces, collapsed.moments, strict=True):
        trace = collapsed.run(piece, values)
        K = trace.nodes[INTENSITY]["fn"].loc
        W = m.precision * K**2 * m.m4[piece.hkl_id]
        tau = _log_intensity_curvature(trace.nodes[AMPLITUDE]["fn"], m.m2)
        total = torch.zeros_like(tau).index_add(0, piece.hkl_id, W)
        # Single precision, summed in double: the curvature only shapes steps and error bars.
        J, W = jacobian(collapsed, piece, z, names).float(), W.float()
        WJ = J * W[:, None]
        shared = J.new_zeros(len(tau), J.shape[1]).index_add(0, piece.hkl_id, WJ)
        H = H + (J.T @ WJ).double() - (shared.T @ (shared / (total + tau).float()[:, None])).double()
    return 0.5 * (H + H.T)


def precision(collapsed, z, names, step=0.02) -> torch.Tensor:
    """Posterior precision of z, (latent, latent): Gauss-Newton for the scale, differences for the rest.

    `step` is the length of a difference in z; the error model's latents are logarithms, known to a few per cent.
    """
    latents = collapsed.latents
    mine = latents.columns(names)
    rest = torch.tensor([i for i in range(latents.n) if i not in set(mine.tolist())], dtype=torch.int64)
    H = torch.zeros(latents.n, latents.n, dtype=z.dtype)
    H[mine[:, None], mine] = gauss_newton(collapsed, z, names) + prior_precision(collapsed, z, names)
    here = collapsed.exact(z)[1] if len(rest) else None
    for i in rest:
        e = torch.zeros_like(z)
        e[i] = step
        H[i] = H[:, i] = (here - collapsed.exact(z + e)[1]) / step
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


def inverse_root(H: torch.Tensor) -> torch.Tensor:
    """L with L Lᵀ = H⁻¹, (n, n) upper triangular.

    Away from the optimum a row of differences may make H indefinite; then the absolute values of its eigenvalues
    stand in, none below 10⁻⁸ of the largest.
    """
    H = 0.5 * (H + H.T)
    _, info = torch.linalg.cholesky_ex(H)
    if int(info):
        values, vectors = torch.linalg.eigh(H)
        values = values.abs().clamp(min=1e-8 * float(values.abs().max()))
        H = (vectors * values) @ vectors.T
    L = torch.linalg.cholesky(H)
    return torch.linalg.solve_triangular(L, torch.eye(len(H), dtype=H.dtype), upper=False).T
