"""Metadata: what is known of a spot, as numbers of order one that a scale function takes.

    z_k = (x_k - mean_k) / sd_k                                   each key k, over all spots
    p_k = 2 (x_k - low_k) / (high_k - low_k) - 1                  each positional key, in [-1, 1]
    e_kf = sin(2^f π p_k), cos(2^f π p_k),   f = 0 .. n_frequencies-1

The columns of the result are z of every key, then e of every positional key. Any numeric column of the
input is a key; besides these there are

    dHKL               1/d² in Å⁻² (not d): that is what intensities fall with, exp(-B / (2 d²))
    Hobs, Kobs, Lobs   indices as observed
    file_id, image_id  number of the file; of the image, over all files

with the names that careless gave them (Dalton, Greisman & Hekstra 2022, Nat. Commun. 13, 7764). Positional
encoding is that of Mildenhall et al. (2020), ECCV, equation 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from bayesref._checks import InputError


def encode(x, n_frequencies: int) -> np.ndarray:
    """Positional encoding of numbers in [-1, 1].

    Parameters
    ----------
    x : (spot, key) or (spot,)
    n_frequencies : octaves; the finest has a period of 2^(2 - n_frequencies)

    Returns
    -------
    (spot, key * 2 * n_frequencies) float64: for each key, sin then cos of each octave
    """
    x = np.asarray(x, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    angle = np.pi * x[:, :, None] * 2.0 ** np.arange(n_frequencies)  # (spot, key, frequency)
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=2).reshape(len(x), -1)


@dataclass(frozen=True, eq=False)
class MetadataTransform:
    """The constants that turned raw columns into metadata, to be used again on other spots.

    Attributes
    ----------
    keys : standardised columns
    mean, sd : (key,) float64
    positional_keys : columns that are encoded
    low, high : (positional key,) float64
    n_frequencies : octaves of the encoding
    """

    keys: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray
    positional_keys: tuple[str, ...] = ()
    low: np.ndarray = field(default_factory=lambda: np.zeros(0))
    high: np.ndarray = field(default_factory=lambda: np.zeros(0))
    n_frequencies: int = 4

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of the result."""
        encoded = (
            f"{name}(2^{f} pi {key})"
            for key in self.positional_keys
            for name in ("sin", "cos")
            for f in range(self.n_frequencies)
        )
        return (*self.keys, *encoded)

    def __call__(self, table: Mapping[str, np.ndarray]) -> torch.Tensor:
        """(spot, column) float64 from raw columns, each (spot,)."""
        z = (_stack(table, self.keys) - self.mean) / self.sd
        if self.positional_keys:
            low, high = self.low, self.high
            p = 2 * (_stack(table, self.positional_keys) - low) / (high - low) - 1
            z = np.concatenate([z, encode(p, self.n_frequencies)], axis=1)
        return torch.from_numpy(z)


def fit_transform(
    table: Mapping[str, np.ndarray],
    keys: Sequence[str],
    positional_keys: Sequence[str] = (),
    n_frequencies: int = 4,
) -> MetadataTransform:
    """Mean, standard deviation and range of the columns asked for.

    Parameters
    ----------
    table : raw columns by name, each (spot,), such as a DataFrame
    keys : to standardise
    positional_keys : to encode as well
    n_frequencies : octaves of the encoding

    Raises
    ------
    InputError : for a key that is unknown, not numeric, not finite, or constant
    """
    for key in (*keys, *positional_keys):
        _check_key(table, key)
    x, p = _stack(table, keys), _stack(table, positional_keys)
    return MetadataTransform(
        keys=tuple(keys),
        mean=x.mean(axis=0) if len(keys) else np.zeros(0),
        sd=x.std(axis=0) if len(keys) else np.ones(0),
        positional_keys=tuple(positional_keys),
        low=p.min(axis=0) if len(positional_keys) else np.zeros(0),
        high=p.max(axis=0) if len(positional_keys) else np.ones(0),
        n_frequencies=n_frequencies,
    )


def metadata_matrix(
    table: Mapping[str, np.ndarray],
    keys: Sequence[str],
    positional_keys: Sequence[str] = (),
    n_frequencies: int = 4,
) -> tuple[torch.Tensor, MetadataTransform]:
    """Standardised (and encoded) metadata of spots, and the transform that made it.

    Parameters and errors are those of `fit_transform`; a key named twice counts once.

    Returns
    -------
    metadata : (spot, column) float64
    transform : MetadataTransform, its `columns` name the columns
    """
    keys, positional_keys = (tuple(dict.fromkeys(k)) for k in (keys, positional_keys))
    transform = fit_transform(table, keys, positional_keys, n_frequencies)
    return transform(table), transform


def _stack(table: Mapping[str, np.ndarray], keys: Sequence[str]) -> np.ndarray:
    """(spot, key) float64."""
    if not keys:
        n_spot = len(table[next(iter(table))]) if len(table) else 0
        return np.empty((n_spot, 0))
    return np.stack([np.asarray(table[k], dtype=np.float64) for k in keys], axis=1)


def _check_key(table: Mapping[str, np.ndarray], key: str) -> None:
    """Raise `InputError` where a column cannot serve as metadata."""
    if key not in table:
        raise InputError(f"Metadata key '{key}' is unknown; available: {', '.join(map(str, table))}.")
    try:
        x = np.asarray(table[key], dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"Metadata key '{key}' is not numeric; choose a numeric column.") from None
    if not np.isfinite(x).all():
        raise InputError(
            f"Metadata key '{key}' has {int((~np.isfinite(x)).sum())} values that are not finite; "
            "leave the key or those rows out."
        )
    if len(x) and np.ptp(x) == 0:
        raise InputError(
            f"Metadata key '{key}' has the value {x[0]:g} for every spot, so it says nothing; leave it out."
        )
