"""A scale with the terms of a rotation experiment.

    log K_i = k_f(t) + B_f(t) u + A(X, Y) - 2 sᵀ B_aniso s
    k_f, B_f : smooth in the image number t, one curve per file f (beam, volume, radiation damage)
    A        : absorption and detector response, a smooth surface over the position on the detector
    B_aniso  : anisotropic fall-off, traceless, with the Laue symmetry of the crystal; u as in `image_wise`

Curves and surface are sums of bumps with learned priors. The terms are those of Otwinowski et al. (2003),
Acta Cryst. A59, 228, and Evans (2006), Acta Cryst. D62, 72.
"""

import numpy as np
import torch

from bayesref._checks import InputError
from bayesref.scaling.basis import bumps
from bayesref.scaling.scale import Group, Scale


class Physical(Scale):
    """Smooth in image number, absorption surface, anisotropic B.

    Parameters
    ----------
    obs : Observations
    n_image_bumps : bumps over the images of a file
    surface : the two metadata columns that give the position on the detector, or None = no surface
    n_surface : bumps along each of them
    anisotropic : with the anisotropic B, where the Laue symmetry allows one

    Raises
    ------
    InputError : a column of `surface` is not among the metadata keys
    """

    def __init__(self, obs, n_image_bumps=8, surface=None, n_surface=6, anisotropic=True):
        self.n_image_bumps, self.n_surface = n_image_bumps, n_surface
        self.n_file = int(obs.file_id.max()) + 1
        self.columns = _columns(obs, surface) if surface else []
        positions = [obs.metadata[:, c] for c in self.columns]
        self.limits = [(float(x.min()), float(x.max())) for x in positions]
        self.tensors = (
            invariant_tensors(obs.asu.cell, obs.asu.spacegroup) if anisotropic else torch.zeros(0, 3, 3)
        )
        s2 = obs.stol2
        self.mean, self.spread = float(s2.mean()), max(float(s2.std()), 1e-6)
        self.first, self.last = _image_range(obs, self.n_file)
        n_curve = self.n_file * n_image_bumps
        groups = [Group("image curve k", n_curve, 0.3), Group("image curve B", n_curve, 0.1)]
        if self.columns:
            groups.append(Group("absorption surface", n_surface**2, 0.1))
        if len(self.tensors):
            groups.append(Group("anisotropic B", len(self.tensors), 10.0))
        super().__init__(groups)

    def features(self, obs):
        span = (self.last - self.first).clamp(min=1)[obs.file_id]
        t = (obs.image_id - self.first[obs.file_id]) / span
        one_file = bumps(t.to(obs.I), self.n_image_bumps, (0.0, 1.0))
        curve = one_file.new_zeros(len(t), self.n_file, self.n_image_bumps)
        curve[torch.arange(len(t)), obs.file_id] = one_file
        curve = curve.flatten(1)
        u = ((obs.stol2 - self.mean) / self.spread)[:, None]
        parts = [curve, curve * u]
        if self.columns:
            x, y = (
                bumps(obs.metadata[:, c], self.n_surface, r)
                for c, r in zip(self.columns, self.limits, strict=True)
            )
            parts.append((x[:, :, None] * y[:, None, :]).flatten(1))
        if len(self.tensors):
            parts.append(_anisotropy(obs, self.tensors))
        return (torch.cat(parts, 1),)

    def log_scale(self, v, columns):
        return columns @ v

    def basis(self, columns):
        return columns


def _columns(obs, surface):
    missing = [k for k in surface if k not in obs.metadata_keys]
    if missing:
        raise InputError(
            f"The absorption surface needs the metadata columns {', '.join(surface)}; {', '.join(missing)} "
            f"is not among those read ({', '.join(obs.metadata_keys) or 'none'}): add it to --metadata."
        )
    return [obs.metadata_keys.index(k) for k in surface]


def _image_range(obs, n_file):
    """First and last image of each file, (file,) each."""
    last = torch.zeros(n_file, dtype=torch.int64).scatter_reduce(0, obs.file_id, obs.image_id, "amax")
    first = torch.full((n_file,), obs.n_image).scatter_reduce(0, obs.file_id, obs.image_id, "amin")
    return first, last


def _anisotropy(obs, tensors):
    """-2 sᵀ T s / 4 of each spot for each tensor (T of unit size, B in Å²), (spot, tensor)."""
    asu = obs.asu
    fractionalize = torch.tensor(np.array(asu.cell.frac.mat.tolist()))
    q = asu.hkl.to(torch.float64) @ fractionalize  # reciprocal vectors, Å⁻¹; s = q/2
    return -0.5 * torch.einsum("hi,tij,hj->ht", q, tensors, q)[obs.hkl_id]


def invariant_tensors(cell, spacegroup) -> torch.Tensor:
    """Traceless symmetric tensors left alone by the Laue group, orthonormal, (tensor, 3, 3).

    Five for a triclinic crystal, none for a cubic one.
    """
    orth, frac = (np.array(m.mat.tolist()) for m in (cell.orth, cell.frac))
    rotations = [orth @ (np.array(op.rot) / op.DEN) @ frac for op in spacegroup.operations().sym_ops]
    basis = _traceless_basis()
    mean = np.mean([[[np.sum(a * (R @ b @ R.T)) for b in basis] for a in basis] for R in rotations], axis=0)
    values, vectors = np.linalg.eigh((mean + mean.T) / 2)
    return torch.tensor(np.einsum("kt,kij->tij", vectors[:, values > 0.5], np.array(basis)))


def _traceless_basis():
    T = [np.diag([1.0, -1.0, 0.0]) / 2**0.5, np.diag([1.0, 1.0, -2.0]) / 6**0.5]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        E = np.zeros((3, 3))
        E[i, j] = E[j, i] = 0.5**0.5
        T.append(E)
    return T
