"""Rates at several temperatures.

Arrhenius   k = A exp(-Ea / R T)
Eyring      k = (k_B T / h) exp(ΔS‡/R - ΔH‡/(R T))

Ea, ΔH‡ in kJ/mol, ΔS‡ in J/(mol K), T in K, A in 1/s; Eyring (1935), J. Chem. Phys. 3, 107. Constants: SI 2019.
"""

import math

import torch

from bayesref._checks import InputError, check_positive

R = 8.31446261815324  # J/(mol K)
K_B_OVER_H = 1.380649e-23 / 6.62607015e-34  # 1/(s K)


def _kelvin(T) -> torch.Tensor:
    T = torch.as_tensor(T, dtype=torch.float64)
    check_positive("The temperature, K,", T)
    return T


def arrhenius(log_A, Ea, T, T_ref=None) -> torch.Tensor:
    """k, 1/s, in the shape that `log_A`, `Ea` and `T` broadcast to.

    Parameters
    ----------
    log_A : natural logarithm of A in 1/s; with `T_ref`, of the rate at that temperature, which data fix far better
    Ea : activation energy, kJ/mol
    T : temperature, K
    T_ref : K, or None
    """
    beta = 1 / _kelvin(T) - (0.0 if T_ref is None else 1 / _kelvin(T_ref))
    return torch.exp(torch.as_tensor(log_A, dtype=torch.float64) - 1e3 * Ea / R * beta)


def eyring(dH, dS, T) -> torch.Tensor:
    """k, 1/s, for an activation enthalpy `dH`, kJ/mol, entropy `dS`, J/(mol K), and temperature `T`, K."""
    T = _kelvin(T)
    return torch.exp(math.log(K_B_OVER_H) + T.log() + dS / R - 1e3 * dH / (R * T))


def activation_entropy(k, dH, T) -> torch.Tensor:
    """ΔS‡, J/(mol K), of a rate `k`, 1/s, at the temperature `T`, K, and an activation enthalpy `dH`, kJ/mol."""
    T, k = _kelvin(T), torch.as_tensor(k, dtype=torch.float64)
    return R * (k.log() - math.log(K_B_OVER_H) - T.log()) + 1e3 * dH / T


def line_through(T, k) -> tuple[float, float]:
    """(log_A, Ea in kJ/mol) of the Arrhenius line through rates `k`, 1/s, at two or more temperatures `T`, K."""
    T, k = _kelvin(T), torch.as_tensor(k, dtype=torch.float64)
    check_positive("The rate, 1/s,", k)
    if T.ndim != 1 or T.shape != k.shape or len(T.unique()) < 2:
        raise InputError(
            f"An Arrhenius line needs rates at two temperatures or more; found T = {T.tolist()}."
        )
    x = torch.stack([torch.ones_like(T), -1e3 / (R * T)], -1)
    log_A, Ea = torch.linalg.lstsq(x, k.log()[:, None]).solution[:, 0].tolist()
    return log_A, Ea
