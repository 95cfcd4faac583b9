"""Curvature of the likelihood in the scale where spots share reflections.

With f = log K and x = log J, spot i of precision τ_i knows Σ_p u_ip (f_ip + x_p), u_ip = K_ip E J_p. Single spots are
the case of one order, with W = u² τ. Eliminating x, whose prior has the curvature t, leaves for the scale

    H = Σ_i τ_i R_iᵀ R_i - Σ_clusters Bᵀ T⁻¹ B,     R_i = Σ_p u_ip ∂f_ip/∂z
    T = diag(t) + Σ_i τ_i u_i u_iᵀ,   B_p = Σ_i τ_i u_ip R_i

which for reflections without overlap is the formula of `curvature`.
"""

import torch

from bayesref.inference import curvature


@torch.no_grad()
def gauss_newton(collapsed, z, names):
    """Information of all spots about the sites `names`, (latent, latent) of those sites.

    With very many images, where an `Arrow` must do, overlapped spots are left out: that understates it.
    """
    scale = curvature.image_scale(collapsed, names)
    if scale is not None:
        return curvature._gauss_newton_arrow(collapsed, z, scale)
    H, sums, shares, start = 0.0, [], [], 0
    core, clusters = collapsed.clusters.core, collapsed.clusters
    for piece, tau, W in curvature._weights(collapsed, z):
        total = tau.index_add(0, piece.hkl_id, W)
        J, W = curvature.jacobian(collapsed, piece, z, names).float(), W.float()
        WJ = J * W[:, None]
        shared = J.new_zeros(len(tau), J.shape[1]).index_add(0, piece.hkl_id, WJ)
        mine = core[(core >= start) & (core < start + len(tau))] - start
        sums.append(total[mine])
        shares.append(shared[mine])
        shared[mine] = 0
        H = H + (J.T @ WJ).double() - (shared.T @ (shared / total.float()[:, None])).double()
        start += len(tau)
    diagonal, B = torch.cat(sums), torch.cat(shares).double()
    J = curvature.jacobian(collapsed, collapsed.overlaps.orders, z, names)
    u = collapsed.order_K * torch.cat([m.m2 for m in collapsed.moments])[collapsed.overlaps.orders.hkl_id]
    tau, spot = collapsed.settled.sites.tau, clusters.spot
    R = J.new_zeros(clusters.n_spot, J.shape[1]).index_add(0, spot, u[:, None] * J)
    H = H + R.T @ (tau[:, None] * R)
    B = B.index_add(0, clusters.row, (tau[spot] * u)[:, None] * R[spot])
    for batch in clusters.batches:
        rows = B.new_zeros(batch.n * batch.size, B.shape[1])
        rows[batch.place] = B[batch.member]
        rows = rows.reshape(batch.n, batch.size, -1)
        L = torch.linalg.cholesky(clusters.precision(batch, diagonal, tau, u))
        y = torch.linalg.solve_triangular(L, rows, upper=False).flatten(0, 1)
        H = H - y.T @ y
    return 0.5 * (H + H.T)
