"""Amplitudes known beforehand, for the reflections that are merged: of another crystal, or of a model.

    F'_h = F_h/√Σ(s),   Σ(s) = ⟨F²/ε⟩ of the reference, smooth in resolution

F' is on the scale of merged amplitudes, where ⟨F²⟩ = ε at every resolution. So there is no scale between reference
and data to be fitted: scale and fall-off of the reference are divided out, those of the data are in K.
"""

import weakref
from dataclasses import dataclass, fields
from typing import Generic, TypeVar

import torch

from bayesref.crystal.asu import ReciprocalASU
from bayesref.crystal.symmetry import pack


@dataclass(frozen=True)
class ReferenceAmplitudes:
    """Measured amplitudes, in units of √Σ(s).

    Attributes
    ----------
    F, SIGF : (hkl,); zero where the reference has none; SIGF is zero throughout where the file has none
    known : (hkl,) bool, whether the reference has this reflection and may be used for it
    basis : (hkl, k), smooth functions of s², for parameters that vary with resolution
    """

    F: torch.Tensor
    SIGF: torch.Tensor
    known: torch.Tensor
    basis: torch.Tensor


@dataclass(frozen=True)
class ModelAmplitudes:
    """Structure factors of a model, in units of √Σ(s), Σ that of the model with typical solvent.

    Attributes
    ----------
    F_atoms, F_mask : (hkl,) complex, of the atoms and of the mask of the bulk solvent
    known : (hkl,) bool, whether the model may be used for this reflection
    basis : (hkl, k), smooth functions of s², for parameters that vary with resolution
    """

    F_atoms: torch.Tensor
    F_mask: torch.Tensor
    known: torch.Tensor
    basis: torch.Tensor


Rows = TypeVar("Rows", ReferenceAmplitudes, ModelAmplitudes)


class Reference(Generic[Rows]):
    """`reference(asu)`: what is known of these reflections, some or all of those it was made for.

    Parameters
    ----------
    asu : the reflections of `rows`
    rows : ReferenceAmplitudes or ModelAmplitudes

    `n_dataset` is the number of datasets among them, each of which may be near the reference or far.
    """

    def __init__(self, asu: ReciprocalASU, rows: Rows):
        self.rows: Rows = rows
        self.n_dataset = asu.n_dataset
        self.bound = int(asu.hkl.abs().max()) if len(asu) else 0
        self.key, self.order = torch.from_numpy(self._keys(asu)).sort()
        self._kept: weakref.WeakKeyDictionary[ReciprocalASU, Rows] = weakref.WeakKeyDictionary()

    def _keys(self, asu):
        return pack(asu.hkl.cpu().numpy(), self.bound, asu.dataset_id.cpu().numpy())

    def __call__(self, asu: ReciprocalASU) -> Rows:
        if asu not in self._kept:
            row = self.order[torch.searchsorted(self.key, torch.from_numpy(self._keys(asu)))]
            self._kept[asu] = type(self.rows)(
                **{f.name: getattr(self.rows, f.name)[row] for f in fields(self.rows)}
            )
        return self._kept[asu]
