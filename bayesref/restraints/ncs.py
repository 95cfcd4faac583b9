"""Chains of one sequence have alike surroundings of each atom: local non-crystallographic symmetry.

    Δ = d_ij - d_kl                        i, j in one chain, k, l their equivalents in the other, d below 4.2 Å
    log p = -½ z² / (1 + z²/c²),  z = Δ/σ  (Geman & McClure): at most c²/2 against places that truly differ

Distances between residues only; those within one are restrained already. The constant is left out, as the factor
does not fall to zero. Local restraints of this kind: Murshudov et al. (2011), Acta Cryst. D67, 355, section 8.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree

from bayesref.restraints.geometry import norm
from bayesref.restraints.terms import Table, integers

REACH = 4.2  # Å
SIGMA = 0.1  # Å
SOFTNESS = 2.0  # c, in units of σ
SHORTEST = 5  # residues in common below which two chains are no copies
IDENTITY = 0.8  # share of the smaller chain's residues that the other one must have, by number and name


@dataclass(frozen=True)
class LocalSymmetry(Table):
    """atoms (n, 4): i, j of one chain, their equivalents k, l of another."""

    atoms: torch.Tensor


def local_symmetry(crystal) -> LocalSymmetry:
    """Pairs of equal distances of all pairs of chains with one sequence; atoms of alternate conformers are left out.

    Equivalent residues have the same number and name.
    """
    chains: dict[str, dict[tuple[str, str], int]] = {}
    for row, (name, altloc, element) in enumerate(
        zip(crystal.name, crystal.altloc, crystal.scatterer, strict=True)
    ):
        chain, residue, atom = name.split("/")[:3]
        if not altloc and element not in ("H", "D") and not residue.startswith("HOH "):
            chains.setdefault(chain, {})[(residue, atom)] = row
    xyz = crystal.xyz.detach().reshape(-1, len(crystal), 3)[0].cpu().numpy()
    keys = sorted(chains)
    rows = []
    for n, a in enumerate(keys):
        for b in keys[n + 1 :]:
            if _copies(chains[a], chains[b]):
                rows += _pairs(xyz, chains[a], chains[b])
    return LocalSymmetry(integers(rows, 4))


def _copies(a, b) -> bool:
    one, two = ({residue for residue, _ in c} for c in (a, b))
    return len(one & two) >= max(SHORTEST, IDENTITY * min(len(one), len(two)))


def _pairs(xyz: np.ndarray, a, b) -> list[list[int]]:
    """Near pairs of the first chain whose equivalents exist in the second."""
    common = sorted(set(a) & set(b))
    first, second = ([c[k] for k in common] for c in (a, b))
    near = cKDTree(xyz[first]).query_pairs(REACH)
    return [
        [first[i], first[j], second[i], second[j]] for i, j in sorted(near) if common[i][0] != common[j][0]
    ]


def log_density(xyz: torch.Tensor, table: LocalSymmetry) -> torch.Tensor:
    """(..., n) of coordinates (..., atom, 3) Å."""
    i, j, k, l = (xyz[..., table.atoms[:, n], :] for n in range(4))
    z2 = ((norm(i - j) - norm(k - l)) / SIGMA).square()
    return -0.5 * z2 / (1 + z2 / SOFTNESS**2)
