"""Block precision of many images: linear algebra against full matrices, curvature against the full Gauss-Newton."""

import pytest
import torch

from bayesref.guides.latents import Latents
from bayesref.inference import curvature
from bayesref.inference.arrow import Arrow
from bayesref.inference.collapsed import Collapsed
from bayesref.inference.curvature import gauss_newton, inverse_root, log_det, precision, scale_sites
from bayesref.inference.fit import fit
from bayesref.scaling.falloff import Falloff
from bayesref.scaling.image_wise import ImageWise
from bayesref.scaling.scale import Product


@pytest.fixture
def arrow():
    g = torch.Generator().manual_seed(0)
    n, k, m = 5, 2, 3
    X = torch.randn(40, n * k + m, generator=g, dtype=torch.float64)
    H = X.T @ X
    order = torch.randperm(n * k + m, generator=g)
    local, shared = order[: n * k].reshape(n, k), order[n * k :]
    for i in range(n):
        for j in range(n):
            if i != j:
                H[local[i][:, None], local[j]] = 0
    H = H + 20 * torch.eye(len(H))
    A = torch.stack([H[r[:, None], r] for r in local])
    C = torch.stack([H[r[:, None], shared] for r in local])
    return Arrow(local, shared, A, C, H[shared[:, None], shared]), H


def test_products_root_and_variance(arrow):
    a, H = arrow
    x = torch.linspace(-1, 1, len(H), dtype=torch.float64)
    root = a.root()
    R = root @ torch.eye(len(H), dtype=torch.float64)
    inverse = torch.linalg.inv(H)
    torch.testing.assert_close(a @ x, H @ x)
    torch.testing.assert_close(R @ R.T, inverse)
    torch.testing.assert_close(root.T @ x, R.T @ x)
    torch.testing.assert_close(a.variance(), inverse.diagonal())
    assert log_det(root) == pytest.approx(-0.5 * float(torch.linalg.slogdet(H).logabsdet))


def test_scaled_and_bordered(arrow):
    a, H = arrow
    n = len(H)
    f = torch.linspace(0.5, 2, n, dtype=torch.float64)
    R = a.scaled(f).plus_identity().root() @ torch.eye(n, dtype=torch.float64)
    torch.testing.assert_close(R @ R.T, torch.linalg.inv(H * f[:, None] * f + torch.eye(n)))
    rows = torch.cat([0.1 * torch.ones(2, n), 3 * torch.eye(2)], 1).double()
    big = torch.zeros(n + 2, n + 2, dtype=torch.float64)
    big[:n, :n], big[n:], big[:, n:] = H, rows, rows.T
    b = a.bordered(torch.arange(n, n + 2), rows)
    x = torch.linspace(-1, 1, n + 2, dtype=torch.float64)
    torch.testing.assert_close(b @ x, big @ x)


@pytest.fixture
def small(simulated):
    return simulated.obs, Product(Falloff(simulated.obs), ImageWise(simulated.obs))


def test_blocks_are_those_of_the_full_matrix(simulated, small, monkeypatch):
    obs, scale = small
    latents = Latents(simulated.merge, (obs, scale))
    collapsed, z = Collapsed(simulated.merge, obs, (scale,), latents), latents.initial((scale,))
    collapsed.refresh(z)
    names = scale_sites(collapsed, z)
    full, whole = gauss_newton(collapsed, z, names), precision(collapsed, z, names)
    monkeypatch.setattr(curvature, "MANY", 10)
    a, b = gauss_newton(collapsed, z, names), precision(collapsed, z, names)
    size = full.diagonal().abs().max()
    close = {"rtol": 1e-4, "atol": 1e-5 * float(size)}
    torch.testing.assert_close(a.G, full[a.shared[:, None], a.shared], **close)
    for block, cross, row in zip(a.A, a.C, a.local, strict=True):
        torch.testing.assert_close(block, full[row[:, None], row], **close)
        torch.testing.assert_close(cross, full[row[:, None], a.shared], **close)
    torch.testing.assert_close(b.G, whole[b.shared[:, None], b.shared], **close)


def test_fit_of_many_images_agrees_with_the_full_matrix(simulated, small, monkeypatch):
    obs, scale = small
    full = fit(simulated.merge, obs, scale).amplitudes(n_draws=32)
    monkeypatch.setattr(curvature, "MANY", 10)
    obs2, scale2 = obs, Product(Falloff(obs), ImageWise(obs))
    posterior = fit(simulated.merge, obs2, scale2)
    assert posterior.converged
    blocks = posterior.amplitudes(n_draws=32)
    # Another path to the prior sds and to the end: amplitudes agree within a fraction of their error.
    assert float(((full.F - blocks.F) / full.SIGF).abs().median()) < 0.1
    assert float((blocks.SIGF / full.SIGF).median()) == pytest.approx(1, abs=0.05)
    assert inverse_root(torch.eye(2)).shape == (2, 2)
