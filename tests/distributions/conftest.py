"""Independent truths: brute-force integration in extended precision, written without the package."""

import numpy as np
import pytest
import torch

_X, _W = np.polynomial.legendre.leggauss(12)


def _brute(log_density, lo, hi, n_panel=400):
    """log ∫ exp(log_density), E F^k for k = 1..4, Var F and Var F²: 400 panels of 12 points in 80 bits."""
    lo, hi = np.longdouble(lo), np.longdouble(hi)
    edge = lo + (hi - lo) * np.arange(n_panel + 1, dtype=np.longdouble) / n_panel
    half = (edge[1:] - edge[:-1])[:, None] / 2
    F = (edge[:-1, None] + half * (1 + _X.astype(np.longdouble))).ravel()
    log_p = log_density(F)
    p = np.exp(log_p - log_p.max()) * (half * _W).ravel()
    log_Z, p = np.log(p.sum()) + log_p.max(), p / p.sum()
    m = [np.sum(p * F**k) for k in (1, 2, 3, 4)]
    spread = [np.sum(p * (F - m[0]) ** 2), np.sum(p * (F**2 - m[1]) ** 2)]
    return np.array([log_Z, *m, *spread])


@pytest.fixture(scope="session")
def brute():
    """`brute(log_density, lo, hi)` -> log Z, E F .. E F⁴, Var F, Var F²."""
    return _brute


def _zoom(log_density, lo, hi, drop=60.0):
    """Limits within which the log density is within `drop` of its maximum, on grids of 2001 points."""
    for _ in range(6):
        F = np.linspace(lo, hi, 2001)
        inside = np.flatnonzero((log_p := log_density(F.astype(np.longdouble))) > log_p.max() - drop)
        lo, hi = F[max(inside[0] - 1, 0)], F[min(inside[-1] + 1, 2000)]
    return lo, hi


@pytest.fixture(scope="session")
def zoom():
    """`zoom(log_density, lo, hi)` -> narrower limits."""
    return _zoom


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tensors here are small: threads would only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
