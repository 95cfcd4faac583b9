"""Rigid groups that translate and librate.

    u_i = t + λ × (x_i - c)           U_i = W_i C W_iᵀ,  W_i = [1  -[x_i - c]×]
    C = ‹(t, λ)(t, λ)ᵀ› = [[T, Sᵀ], [S, L]]          T Å², L radian², S radian Å, S_ij = ‹λ_i t_j›
    C ~ Wishart(6 degrees of freedom, mean diag(t² 1, l² 1))

C is positive semidefinite for every parameter, hence T, L and U are: groups cannot shake by less than nothing. Its
Bartlett factor has normal elements below the diagonal and χ² distributed squares on it (Bartlett, 1933, Proc. R. Soc.
Edinb. 53, 260), which do not depend on the axes; these 21 are the parameters. The trace of S has no effect on U and is
set to zero in reports. T and the atoms' own B share what is common to all; the prior divides it.
Schomaker & Trueblood (1968), Acta Cryst. B24, 63; Winn et al. (2001), Acta Cryst. D57, 122.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import gemmi
import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints

from bayesref._checks import InputError
from bayesref.crystal.atoms import B_PER_U, Crystal
from bayesref.restraints.adp import six

MINIMUM = 10  # atoms: 20 parameters need 60 numbers
SHARE = 0.5  # of U that is expected of the group's motion; half of it of the translation
DEGREE = 180 / math.pi
LOWER = torch.tril_indices(6, 6, -1)
FREEDOM = torch.arange(6.0, 0.0, -1.0, dtype=torch.float64)  # of the χ² on the diagonal


@dataclass(frozen=True, eq=False)
class RigidGroups:
    """Groups of atoms that move as one.

    Attributes
    ----------
    name : (group,) what each is of
    index : (atom,) int64, group of each atom, -1 for none
    centre : (group, 3), Å, c
    arm : (atom, 3), Å, x - c
    spread : (group, 6): t, t, t Å and l, l, l radian
    start : (group, 21), the parameters as the fit starts: logarithms of the diagonal, then the rest by rows
    """

    name: tuple[str, ...]
    index: torch.Tensor
    centre: torch.Tensor
    arm: torch.Tensor
    spread: torch.Tensor
    start: torch.Tensor

    def __len__(self) -> int:
        return len(self.name)

    def covariance(self, p: torch.Tensor) -> torch.Tensor:
        """C (..., group, 6, 6) of parameters (..., group, 21)."""
        K = _lower(torch.diag_embed(p[..., :6].exp()), p)
        K = self.spread[..., :, None] * K / 6**0.5
        return K @ K.mT

    def U(self, p: torch.Tensor) -> torch.Tensor:
        """Of all atoms, (..., atom, 6) Å²; zero where an atom is in no group."""
        inside = self.index >= 0
        W = _lever(self.arm[inside])  # (n, 3, 6)
        C = self.covariance(p)[..., self.index[inside], :, :]
        moving = six(W @ C @ W.mT)
        out = p.new_zeros(*p.shape[:-2], len(self.index), 6)
        return out.index_copy(-2, inside.nonzero()[:, 0], moving)

    def tensors(self, p: torch.Tensor) -> dict[str, torch.Tensor]:
        """T (..., group, 3, 3) Å², L degree², S degree Å with zero trace, about the centres."""
        C = self.covariance(p)
        S = C[..., 3:, :3]
        S = S - S.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] * torch.eye(3, dtype=S.dtype)
        return {"T": C[..., :3, :3], "L": C[..., 3:, 3:] * DEGREE**2, "S": S * DEGREE}

    def moved(self, xyz: torch.Tensor, p: torch.Tensor) -> "RigidGroups":
        """With the lever arms of atoms at (atom, 3), Å, about the same centres, starting from p."""
        inside = self.index >= 0
        arm = torch.where(inside[:, None], xyz.detach() - self.centre[self.index], 0.0)
        return replace(self, arm=arm, start=p.detach())


class RigidMotion(TorchDistribution):
    """Prior of the parameters (group, 21): Bartlett's of a Wishart distribution with 6 degrees of freedom."""

    arg_constraints = {}  # noqa: RUF012  the name and type are torch's
    support = constraints.independent(constraints.real, 2)

    def __init__(self, start: torch.Tensor):
        self.start = start
        super().__init__(event_shape=start.shape, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        if torch.Size(batch_shape) != self.batch_shape:
            raise NotImplementedError("Groups are sampled once, not over a plate.")
        return self

    @property
    def mean(self):
        """Where a fit starts."""
        return self.start

    def sample(self, sample_shape=torch.Size()):  # noqa: B008  an immutable default, as torch has it
        """A draw of the prior."""
        shape = self._extended_shape(sample_shape)
        p = torch.randn(shape, dtype=self.start.dtype)
        squares = torch.distributions.Chi2(FREEDOM).sample(shape[:-1])
        return torch.cat([0.5 * squares.log(), p[..., 6:]], -1)

    def log_prob(self, value):
        """log p, (*sample,): log K_ii has density ∝ K_ii^ν exp(-K_ii²/2), ν = 6 ... 1."""
        d, rest = value[..., :6], value[..., 6:]
        constant = (0.5 * FREEDOM - 1) * math.log(2) + torch.lgamma(0.5 * FREEDOM)
        diagonal = FREEDOM * d - 0.5 * (2 * d).exp() - constant
        below = -0.5 * rest.square() - 0.5 * math.log(2 * math.pi)
        return diagonal.sum((-1, -2)) + below.sum((-1, -2))


def groups_of(crystal: Crystal, selections: Sequence[str] = ()) -> RigidGroups:
    """Groups of a crystal: each chain without its water, or each of `selections`.

    Parameters
    ----------
    selections : such as "A/1-50" or "A/1-50,60-80" (chain and residues), or a chain "A"

    Raises
    ------
    InputError : a selection without atoms, with too few, or two with the same atom
    """
    chosen = _selected(crystal, selections) if selections else _chains(crystal)
    index = torch.full((len(crystal),), -1)
    for k, (name, rows) in enumerate(chosen.items()):
        if len(rows) < MINIMUM:
            raise InputError(f"TLS group {name!r} has {len(rows)} atoms; it needs at least {MINIMUM}.")
        taken = index[rows] >= 0
        if bool(taken.any()):
            raise InputError(
                f"Atom {crystal.name[int(rows[taken][0])]} is in two TLS groups; take it out of one."
            )
        index[rows] = k
    xyz, B, n = crystal.xyz, crystal.B, len(chosen)
    centre = torch.stack([xyz[index == k].mean(0) for k in range(n)])
    arm = torch.where((index >= 0)[:, None], xyz - centre[index], 0.0)
    spread = []
    for k in range(n):
        t2 = SHARE / 2 * float(B[index == k].median()) / B_PER_U
        l2 = t2 / (2 / 3 * float(arm[index == k].square().sum(1).mean()))  # its share of U is then that of t
        spread.append([t2**0.5] * 3 + [l2**0.5] * 3)
    start = xyz.new_zeros(n, 21)
    start[:, :6] = 0.5 * math.log(6.0)  # C at its mean
    return RigidGroups(tuple(chosen), index, centre, arm, torch.tensor(spread, dtype=xyz.dtype), start)


def _chains(crystal: Crystal) -> dict[str, torch.Tensor]:
    """Rows of each chain's atoms but water; chains of a few atoms are left out."""
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(crystal.name):
        chain, residue, *_ = name.split("/")
        if residue.split()[0] not in ("HOH", "DOD", "WAT"):
            rows.setdefault(chain, []).append(i)
    kept = {c: torch.tensor(r) for c, r in rows.items() if len(r) >= MINIMUM}
    if not kept:
        raise InputError(f"No chain has {MINIMUM} atoms that are not water, so there is no TLS group.")
    return kept


def _selected(crystal: Crystal, selections) -> dict[str, torch.Tensor]:
    out = {}
    for text in selections:
        chain, _, ranges = text.partition("/")
        try:
            spans = [tuple(int(x) for x in r.split("-", 1)) for r in ranges.split(",")] if ranges else None
        except ValueError as error:
            raise InputError(f"TLS group {text!r}: expected a chain and residues, such as A/1-50.") from error
        rows = []
        for i, name in enumerate(crystal.name):
            its_chain, residue, *_ = name.split("/")
            number = gemmi.SeqId(residue.rsplit(" ", 1)[1]).num or 0
            if its_chain == chain and (spans is None or any(s[0] <= number <= s[-1] for s in spans)):
                rows.append(i)
        if not rows:
            raise InputError(f"TLS group {text!r} holds no atom of the model.")
        out[text] = torch.tensor(rows)
    return out


def _lever(arm: torch.Tensor) -> torch.Tensor:
    """W = [1  -[r]×], (n, 3, 6)."""
    x, y, z = arm.unbind(-1)
    o = torch.zeros_like(x)
    cross = torch.stack([o, z, -y, -z, o, x, y, -x, o], -1).unflatten(-1, (3, 3))  # λ × r = -r × λ
    return torch.cat([torch.eye(3, dtype=arm.dtype).expand(len(arm), 3, 3), cross], -1)


def _lower(K: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """K with the elements below its diagonal set."""
    flat = K.flatten(-2).index_copy(-1, 6 * LOWER[0] + LOWER[1], p[..., 6:])
    return flat.unflatten(-1, (6, 6))
