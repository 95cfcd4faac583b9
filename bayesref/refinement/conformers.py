"""Occupancies of alternate conformers: shares of what one place has.

q_k = total softmax(0, w_1, w_2, ...)_k
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Conformers:
    """Atoms whose occupancies share what one place has.

    Attributes
    ----------
    atom, group, which : (n,) int64: row of the atom, its group, its conformer in the group
    shape : (group, conformer), the largest number of conformers
    exists : shape, bool
    total : (group,), sum of the occupancies
    """

    atom: torch.Tensor
    group: torch.Tensor
    which: torch.Tensor
    exists: torch.Tensor
    total: torch.Tensor

    @classmethod
    def of(cls, groups, occupancy) -> "Conformers":
        """From `occupancy_groups` of the restraints, and the occupancies (atom,) of the model."""
        rows, sizes = [], [len(g) for g in groups]
        exists = torch.zeros(len(groups), max(sizes, default=1), dtype=torch.bool)
        total = torch.ones(len(groups), dtype=torch.float64)
        for i, conformers in enumerate(groups):
            exists[i, : sizes[i]] = True
            total[i] = sum(float(occupancy[atoms[0]]) for _, atoms in conformers)
            rows += [(int(a), i, k) for k, (_, atoms) in enumerate(conformers) for a in atoms]
        atom, group, which = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3).unbind(1)
        return cls(atom, group, which, exists, total)

    @property
    def n(self) -> int:
        """Number of free log odds."""
        return int(self.exists[:, 1:].sum())

    def occupancy(self, w: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """Occupancies (atom,) from log odds w (n,); `fixed` (atom,) where an atom is in no group."""
        logits = torch.full(self.exists.shape, -torch.inf, dtype=w.dtype)
        logits[:, 0] = 0
        later = self.exists.clone()
        later[:, 0] = False
        logits = logits.masked_scatter(later, w)
        share = torch.softmax(logits, 1) * self.total[:, None]
        return fixed.index_put((self.atom,), share[self.group, self.which])

    def log_odds(self, occupancy: torch.Tensor) -> torch.Tensor:
        """The w of the occupancies of a model, (n,)."""
        share = torch.full(self.exists.shape, 0.0, dtype=torch.float64)
        share[self.group, self.which] = occupancy[self.atom].clamp(min=0.01)
        odds = (share / share[:, :1]).log()
        later = self.exists.clone()
        later[:, 0] = False
        return odds[later]
