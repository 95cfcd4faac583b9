"""Gather and insert at symmetry-equivalent indices, compiled: the loops of `transform`.

The half-space R(h') of a real grid is stored for l' >= 0. torch transforms with e^{-2πi}, hence the conjugates:

    F_1(h') = conj R(h')      l' >= 0
    F_1(h') = R(-h')          l' <  0
"""

import math

import numpy as np
import torch
from numba import njit

from bayesref.fourier.threads import run_tasks

_UNIT = 24  # of translations
_TURN = np.exp(2j * math.pi * np.arange(_UNIT) / _UNIT)


def gather(half: torch.Tensor, hkl, rot, tran, weight, nz: int) -> torch.Tensor:
    """F (state, hkl) from half-spaces (state, nx, ny, nz//2+1)."""
    out = torch.empty((len(half), len(hkl)), dtype=half.dtype)
    at = [x.numpy() for x in (hkl, rot, tran, weight)]
    for grid, F in zip(half.numpy(), out.numpy(), strict=True):

        def work(first, last, grid=grid, F=F):
            _gather(grid, *at, _TURN, F, first, last)  # type: ignore[call-arg]

        run_tasks(work, len(hkl))
    return out


def insert(F: torch.Tensor, hkl, rot, tran, weight, shape) -> torch.Tensor:
    """Half-spaces (state, nx, ny, nz//2+1) whose inverse FFT is the gradient of the grid."""
    nx, ny, nz = shape
    half = torch.zeros((len(F), nx, ny, nz // 2 + 1), dtype=F.dtype)
    at = [x.numpy() for x in (hkl, rot, tran, weight)]
    for grid, grad in zip(half.numpy(), F.resolve_conj().contiguous().numpy(), strict=True):
        # one thread: equivalents of different reflections meet
        _insert(grid, *at, _TURN, grad)  # type: ignore[call-arg]
    return half


@njit(nogil=True)
def _equivalent(hkl, rot, tran, i, g):
    h, k, l = hkl[i, 0], hkl[i, 1], hkl[i, 2]
    R = rot[g]
    turn = (h * tran[g, 0] + k * tran[g, 1] + l * tran[g, 2]) % _UNIT
    return (
        h * R[0, 0] + k * R[1, 0] + l * R[2, 0],
        h * R[0, 1] + k * R[1, 1] + l * R[2, 1],
        h * R[0, 2] + k * R[1, 2] + l * R[2, 2],
        turn,
    )


@njit(nogil=True, cache=True)
def _gather(half, hkl, rot, tran, weight, turns, F, first, last):
    nx, ny, _ = half.shape
    for i in range(first, last):
        total = 0j
        for g in range(len(rot)):
            h, k, l, turn = _equivalent(hkl, rot, tran, i, g)
            value = np.conj(half[h % nx, k % ny, l]) if l >= 0 else half[-h % nx, -k % ny, -l]
            total += turns[turn] * value
        F[i] = total * weight[i]


@njit(nogil=True, cache=True)
def _insert(half, hkl, rot, tran, weight, turns, F):
    nx, ny, _ = half.shape
    for i in range(len(hkl)):
        for g in range(len(rot)):
            h, k, l, turn = _equivalent(hkl, rot, tran, i, g)
            c = np.conj(F[i]) * (0.5 * weight[i]) * turns[turn]
            if l >= 0:
                half[h % nx, k % ny, l] += c
            if l <= 0:
                half[-h % nx, -k % ny, -l] += np.conj(c)
