"""Unique reflections: the rows that posterior amplitudes belong to.

    ε_h = number of symmetry operators (centring left out) that map h to h        `epsilon`
    h is centric where an operator maps h to -h                                   `centric`

Symmetry comes from gemmi. With several datasets kept apart, one reflection has one row per dataset.
"""

from dataclasses import dataclass, replace

import gemmi
import numpy as np
import torch

from bayesref._checks import InputError
from bayesref.crystal import symmetry
from bayesref.crystal.lattice import Cell, Group, as_cell, as_spacegroup


@dataclass(frozen=True, eq=False)
class ReciprocalASU:
    """Unique reflections, one row each, sorted by (dataset_id, h, k, l).

    Attributes
    ----------
    hkl : (hkl, 3) int64, inside gemmi's reciprocal asymmetric unit; with `anomalous`, the minus mate of an
        acentric pair is kept as its own row with the negated indices.
    epsilon : (hkl,) float64
    centric : (hkl,) bool
    dHKL : (hkl,) float64, Å
    dataset_id : (hkl,) int64, zeros unless datasets are merged separately
    cell : gemmi.UnitCell
    spacegroup : gemmi.SpaceGroup
    anomalous : bool, Friedel mates kept apart
    """

    hkl: torch.Tensor
    epsilon: torch.Tensor
    centric: torch.Tensor
    dHKL: torch.Tensor
    dataset_id: torch.Tensor
    cell: gemmi.UnitCell
    spacegroup: gemmi.SpaceGroup
    anomalous: bool = False

    def __len__(self) -> int:
        return len(self.hkl)

    @property
    def stol2(self) -> torch.Tensor:
        """s² = 1/(4 d²), Å⁻², (hkl,)."""
        return 0.25 / self.dHKL**2

    @property
    def n_dataset(self) -> int:
        return int(self.dataset_id.max()) + 1 if len(self) else 0

    def _map(self, f) -> "ReciprocalASU":
        tensors = {k: f(v) for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return replace(self, **tensors)

    def subset(self, rows) -> "ReciprocalASU":
        """The chosen rows (bool mask, index or slice), in the order given."""
        return self._map(lambda x: x[rows])

    def to(self, device=None, dtype: torch.dtype | None = None) -> "ReciprocalASU":
        """A copy on `device`, with floating-point columns as `dtype`; indices keep their type."""
        return self._map(lambda x: x.to(device, dtype if x.is_floating_point() else x.dtype))

    def friedel_mates(self) -> torch.Tensor:
        """(hkl,) int64: for each acentric (+) row the row of its (-) mate; -1 where there is none.

        A (-) row, a centric row and every row of an asu without `anomalous` have -1.
        """
        mates = np.full(len(self), -1)
        if self.anomalous and len(self):
            hkl, dataset = self.hkl.cpu().numpy(), self.dataset_id.cpu().numpy()
            bound = int(np.abs(hkl).max())
            key, opposite = symmetry.pack(hkl, bound, dataset), symmetry.pack(-hkl, bound, dataset)
            order = np.argsort(key)
            where = order[np.searchsorted(key, opposite, sorter=order).clip(max=len(key) - 1)]
            acentric = ~self.centric.cpu().numpy()
            _, isym = symmetry.to_asu(hkl, self.spacegroup)
            found = acentric & (isym % 2 == 1) & (key[where] == opposite)
            mates[found] = where[found]
        return torch.from_numpy(mates).to(self.hkl.device)


def reciprocal_asu(
    hkl, cell: Cell, spacegroup: Group, anomalous: bool = False, dataset_id=None
) -> tuple[ReciprocalASU, torch.Tensor]:
    """The unique reflections behind observed indices, and which one each spot measured.

    A spot belongs to the (-) mate where only an operator combined with inversion brings it into the
    asymmetric unit (even ISYM); centric reflections have one row in either case.

    Parameters
    ----------
    hkl : (spot, 3) int, as observed, without systematic absences (see `symmetry.is_absent`)
    cell, spacegroup : gemmi objects, six numbers, a symbol or a number
    anomalous : keep Friedel mates of acentric reflections apart
    dataset_id : (spot,) int, optional: one row per dataset and reflection

    Returns
    -------
    asu : ReciprocalASU with a row for each reflection that occurs
    hkl_id : (spot,) int64, row of `asu`

    Raises
    ------
    InputError : where systematic absences or (0, 0, 0) are among the indices
    """
    hkl, cell, spacegroup = symmetry.as_hkl(hkl), as_cell(cell), as_spacegroup(spacegroup)
    bound = int(np.abs(hkl).max()) if len(hkl) else 0
    # Symmetry is worked out once per distinct observed index: there are far fewer of these than spots.
    key, spot_key = np.unique(symmetry.pack(hkl, bound), return_inverse=True)
    distinct, _ = symmetry.unpack(key, bound)
    absent = symmetry.is_absent(distinct, spacegroup)
    if absent.any():
        first = tuple(int(i) for i in distinct[absent][0])
        raise InputError(
            f"{int(absent.sum())} indices are systematically absent in {spacegroup.xhm()}, the first {first};"
            " leave them out (is_absent) or check the space group."
        )
    mapped, isym = symmetry.to_asu(distinct, spacegroup)
    if anomalous:
        minus = (isym % 2 == 0) & ~symmetry.is_centric(mapped, spacegroup)
        mapped[minus] *= -1
    # Equivalent indices may exceed the bound of the observed ones: hexagonal operators make -h-k.
    bound = int(np.abs(mapped).max()) if len(mapped) else 0
    dataset = 0 if dataset_id is None else np.asarray(dataset_id, dtype=np.int64)
    row_key, hkl_id = np.unique(
        symmetry.pack(mapped, bound)[spot_key] + dataset * (2 * bound + 1) ** 3, return_inverse=True
    )
    rows, row_dataset = symmetry.unpack(row_key, bound)
    asu = ReciprocalASU(
        hkl=torch.from_numpy(rows.astype(np.int64)),
        epsilon=torch.from_numpy(symmetry.epsilon(rows, spacegroup).astype(np.float64)),
        centric=torch.from_numpy(symmetry.is_centric(rows, spacegroup)),
        dHKL=torch.from_numpy(cell.calculate_d_array(rows)),
        dataset_id=torch.from_numpy(row_dataset),
        cell=cell,
        spacegroup=spacegroup,
        anomalous=anomalous,
    )
    return asu, torch.from_numpy(hkl_id.astype(np.int64))


def rows_of(asu: ReciprocalASU, hkl: torch.Tensor) -> torch.Tensor:
    """Where each reflection of `asu` is in the list `hkl` (n, 3), (hkl,) int64.

    Raises
    ------
    InputError : a reflection that is not there
    """
    if len(hkl) == len(asu) and torch.equal(hkl, asu.hkl):
        return torch.arange(len(hkl))
    bound = int(max(hkl.abs().max(), asu.hkl.abs().max())) if len(asu) else int(hkl.abs().max())
    there, mine = (symmetry.pack(x.numpy(), bound) for x in (hkl, asu.hkl))
    order = np.argsort(there)
    at = order[np.searchsorted(there, mine, sorter=order).clip(max=len(there) - 1)]
    if (there[at] != mine).any():
        missing = asu.hkl[int((there[at] != mine).argmax())].tolist()
        raise InputError(f"Reflection {missing} is not among the {len(hkl)} of the model; use the same list.")
    return torch.from_numpy(at)
