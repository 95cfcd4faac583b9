"""Backbone torsions: where φ and ψ of a residue may lie.

    p(φ, ψ | kind) = Σ_k w_k N°((φ, ψ); μ_k, Σ_k)          N° a Normal wrapped on the torus, kind general, Gly or Pro

A compact description, not a histogram: a handful of regions with the centres and widths of Hovmöller, Zhou &
Ohlson (2002), Acta Cryst. D58, 768 (helix at -64, -41; strand near -118, 134; left-handed helix at 57, 42) and
outlines as in Lovell et al. (2003), Proteins 50, 437; the regions of glycine are symmetric under (φ, ψ) ->
(-φ, -ψ), those of proline share its ring's φ. A broad part stands for what lies between. A residue is favoured
within the densest region that holds 98 % of p, an outlier beyond the one that holds 99.9 %; against the finer
tables of MolProbity, expect a few residues to differ at the borders.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch

from bayesref.restraints.geometry import LOG_2PI, torsion
from bayesref.restraints.terms import Bonds, Table, integers

FAVOURED, ALLOWED = 0.98, 0.999
GENERAL, GLYCINE, PROLINE = 0, 1, 2
KINDS = ("general", "glycine", "proline")

# Weight, φ, ψ, their standard deviations (degrees) and correlation.
_GENERAL = (
    (0.36, -64, -41, 7, 8, -0.5),  # α helix
    (0.12, -75, -28, 15, 16, -0.5),  # turns and ends of helices
    (0.08, -100, -3, 21, 18, -0.4),  # bridge
    (0.19, -117, 132, 20, 17, 0.1),  # β strand
    (0.14, -71, 143, 12, 14, -0.1),  # polyproline II
    (0.05, -145, 156, 16, 14, 0.2),  # extended
    (0.03, -90, 100, 22, 30, 0.0),  # between strand and bridge
    (0.02, 56, 43, 7, 11, -0.5),  # left-handed helix
    (0.02, -100, 40, 40, 60, 0.0),  # broad
)
_HALF_GLYCINE = (
    (0.16, -64, -40, 10, 11, -0.4),
    (0.16, -85, -5, 18, 18, -0.5),
    (0.08, -68, 155, 16, 20, -0.1),
    (0.08, -165, 178, 25, 20, 0.2),
    (0.02, -100, 90, 60, 80, 0.0),
)
_GLYCINE = (*_HALF_GLYCINE, *((w, -a, -b, s, t, r) for w, a, b, s, t, r in _HALF_GLYCINE))
_PROLINE = (
    (0.34, -61, -35, 9, 12, -0.4),
    (0.08, -75, -8, 13, 15, -0.4),
    (0.53, -68, 148, 11, 14, 0.0),
    (0.03, -82, 70, 11, 15, 0.0),
    (0.02, -72, 90, 20, 80, 0.0),
)


@dataclass(frozen=True)
class Ramachandran(Table):
    """atoms (n, 5): C of the residue before, N, CA, C, N of the residue after; kind (n,) int."""

    atoms: torch.Tensor
    kind: torch.Tensor


def backbone(bonds: Bonds, name: tuple[str, ...], altloc: tuple[str, ...]) -> Ramachandran:
    """Residues with both torsions, one row for each of their conformers."""
    rows, kinds = [], []
    for path in chains(bonds, name, altloc, ("C", "N", "CA", "C", "N")):
        residue = name[path[2]].split("/")[1].split()[0]
        rows.append(path)
        kinds.append({"GLY": GLYCINE, "PRO": PROLINE}.get(residue, GENERAL))
    return Ramachandran(integers(rows, 5), torch.tensor(kinds, dtype=torch.int64))


def peptides(bonds: Bonds, name: tuple[str, ...], altloc: tuple[str, ...]) -> torch.Tensor:
    """(n, 4) rows CA, C, N, CA of peptide bonds."""
    return integers(chains(bonds, name, altloc, ("CA", "C", "N", "CA")), 4)


def chains(bonds: Bonds, name, altloc, atoms: tuple[str, ...]) -> list[list[int]]:
    """Rows of atoms with these names, each bonded to the next, of one conformer."""
    own = [n.split("/")[2] for n in name]
    wanted = set(atoms)
    follow: dict[int, list[int]] = {}
    for i, j in bonds.atoms[bonds.image == 0].tolist():
        if own[i] in wanted and own[j] in wanted:
            follow.setdefault(i, []).append(j)
            follow.setdefault(j, []).append(i)
    paths = [[i] for i in sorted(follow) if own[i] == atoms[0]]
    for wish in atoms[1:]:
        paths = [[*p, j] for p in paths for j in follow[p[-1]] if own[j] == wish and j not in p]
    return [p for p in paths if len({altloc[i] for i in p} - {""}) <= 1]


def torsions(xyz: torch.Tensor, table: Ramachandran) -> tuple[torch.Tensor, torch.Tensor]:
    """φ and ψ, (..., n) radians."""
    return torsion(xyz, table.atoms[:, :4]), torsion(xyz, table.atoms[:, 1:])


@cache
def _mixture(kind: int) -> tuple[torch.Tensor, ...]:
    """log weights (k,), centres (k, 2) and precisions (k, 2, 2) in radians."""
    t = torch.tensor((_GENERAL, _GLYCINE, _PROLINE)[kind], dtype=torch.float64)
    w, mean, s, r = t[:, 0], t[:, 1:3].deg2rad(), t[:, 3:5].deg2rad(), t[:, 5]
    cross = r * s[:, 0] * s[:, 1]
    S = torch.stack([s[:, 0] ** 2, cross, cross, s[:, 1] ** 2], -1).unflatten(-1, (2, 2))
    return (w / w.sum()).log() - LOG_2PI - 0.5 * torch.logdet(S), mean, torch.linalg.inv(S)


def _parts(phi, psi, kind: int) -> torch.Tensor:
    """(..., k, 9): log p of every region and its nearest nine wrapped images."""
    log_w, mean, P = (t.to(phi.device, phi.dtype) for t in _mixture(kind))
    turn = 2 * math.pi * torch.tensor([-1.0, 0, 1], dtype=phi.dtype, device=phi.device)
    d = torch.stack([phi, psi], -1)[..., None, None, :] - mean[:, None] - torch.cartesian_prod(turn, turn)
    return log_w[:, None] - 0.5 * torch.einsum("...kai,kij,...kaj->...ka", d, P, d)


def log_density(phi: torch.Tensor, psi: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
    """(..., n) log p(φ, ψ), 1/radian², of residues of these kinds (n,)."""
    out = torch.zeros_like(phi)
    for k in range(len(KINDS)):
        at = (kind == k).nonzero()[:, 0]
        out = out.index_add(-1, at, torch.logsumexp(_parts(phi[..., at], psi[..., at], k).flatten(-2), -1))
    return out


def precision(phi: torch.Tensor, psi: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
    """(n, 2, 2) positive Gauss-Newton Hessian of -log p: the regions' own, by their share in p."""
    out = torch.zeros(*phi.shape, 2, 2, dtype=phi.dtype)
    for k in range(len(KINDS)):
        at = (kind == k).nonzero()[:, 0]
        share = torch.softmax(_parts(phi[at], psi[at], k).flatten(-2), -1).unflatten(-1, (-1, 9)).sum(-1)
        out[at] = torch.einsum("nk,kij->nij", share, _mixture(k)[2])
    return out


@cache
def levels(kind: int) -> tuple[float, float]:
    """log p at the borders of the favoured and of the allowed region."""
    x = torch.deg2rad(torch.arange(-180, 180, 2, dtype=torch.float64) + 1)
    phi, psi = (t.ravel() for t in torch.meshgrid(x, x, indexing="ij"))
    log_p = log_density(phi, psi, torch.full((len(phi),), kind)).sort(descending=True).values
    inside = log_p.exp().cumsum(0) * torch.deg2rad(torch.tensor(2.0)) ** 2
    border = [float(log_p[min(int((inside < share).sum()), len(log_p) - 1)]) for share in (FAVOURED, ALLOWED)]
    return border[0], border[1]


def classify(phi: torch.Tensor, psi: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
    """(n,) 2 for favoured, 1 for allowed, 0 for outliers."""
    log_p = log_density(phi, psi, kind)
    border = torch.tensor([levels(k) for k in range(len(KINDS))], dtype=phi.dtype)[kind]  # (n, 2)
    return (log_p[:, None] >= border).sum(-1)
