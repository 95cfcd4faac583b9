"""Checks of user input: one sentence that says what was found, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes a second, which `bayesref --help` does not need
    import torch


class InputError(ValueError):
    """Bad input from a user: the message stands alone, without a traceback, at the command line."""


def check_shape(name: str, x: torch.Tensor, shape: Sequence[int | None]) -> None:
    """Raise `InputError` unless `x` has this shape; None matches any length."""
    if x.ndim != len(shape) or any(n is not None and n != m for n, m in zip(shape, x.shape, strict=True)):
        want = tuple("any" if n is None else n for n in shape)
        raise InputError(f"{name} has shape {tuple(x.shape)}; expected {want}.")


def check_finite(name: str, x: torch.Tensor) -> None:
    """Raise `InputError` where `x` holds NaN or infinity."""
    bad = ~x.isfinite()
    if bad.any():
        where = tuple(int(i) for i in bad.nonzero()[0])
        raise InputError(f"{name} holds {int(bad.sum())} values that are not finite, the first at {where}.")


def check_positive(name: str, x: torch.Tensor) -> None:
    """Raise `InputError` unless every element of `x` is above zero."""
    check_finite(name, x)
    if (x <= 0).any():
        raise InputError(f"{name} must be above zero; the smallest value is {float(x.min()):g}.")
