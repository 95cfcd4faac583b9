"""Which datasets are related, and which reflection of one is which of another.

    parents = (None, 0, 0)      dataset 0 is a root, 1 and 2 are its children
    h_parent = h R              reindexing operator of a child: from its setting to that of its parent

Members of a family are the datasets; with Friedel mates apart every dataset has two, of which (-) is the child of (+).
Rows of all families are laid out family by family, parents before children, and completed: a reflection that was
measured in one dataset has a row in each, so that it has a posterior there too.
"""

from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import gemmi
import numpy as np
import torch

from bayesref._checks import InputError
from bayesref.crystal import symmetry
from bayesref.crystal.asu import ReciprocalASU
from bayesref.crystal.lattice import format_cell
from bayesref.data.observations import Observations

ROOTS = ("none", "-", "")
CELL_TOLERANCE = 0.03  # relative change of d by an operator; that of isomorphous crystals is less
IDENTITY = "x,y,z"
BOUND = 1023  # of the indices, whatever the operators; the same for every part of an asu
_rows: WeakKeyDictionary = WeakKeyDictionary()  # parent rows and pairs of the asu's seen, by tree


@dataclass(frozen=True)
class DatasetTree:
    """A forest of datasets.

    Attributes
    ----------
    parents : number of the parent dataset of each, None for a root
    reindex : operators in the notation x,y,z or h,k,l from each dataset to its parent; empty = the same setting
    orders : polynomial orders with which logit r² may change with resolution, beyond a constant
    """

    parents: tuple[int | None, ...]
    reindex: tuple[str, ...] = ()
    orders: int = 0

    def __post_init__(self):
        n = len(self.parents)
        for k, p in enumerate(self.parents):
            if p is not None and not 0 <= p < n:
                raise InputError(f"Dataset {k} has the parent {p}; there are {n} datasets, 0 to {n - 1}.")
            if p == k:
                raise InputError(f"Dataset {k} is its own parent; name another, or None for a root.")
        if self.reindex and len(self.reindex) != n:
            raise InputError(
                f"There are {len(self.reindex)} reindexing operators for {n} datasets; give one each, "
                f"{IDENTITY} where the setting is that of the parent."
            )
        self.order()

    @classmethod
    def parse(cls, parents: str, reindex: str | None = None, orders: int = 0) -> "DatasetTree":
        """From 'None,0,0' and 'x,y,z;-x,y,-z;...'.

        Raises
        ------
        InputError : not of this form, out of range, or a cycle
        """
        numbers: list[int | None] = []
        for text in parents.split(","):
            word = text.strip()
            try:
                numbers.append(None if word.lower() in ROOTS else int(word))
            except ValueError:
                raise InputError(
                    f"'{word}' among the parents {parents} is neither None nor a number of a dataset, from 0."
                ) from None
        ops = tuple(x.strip() for x in reindex.split(";")) if reindex else ()
        return cls(tuple(numbers), ops, orders)

    def order(self) -> list[int]:
        """Datasets, parents before children.

        Raises
        ------
        InputError : a cycle
        """
        done: list[int] = []
        while len(done) < len(self.parents):
            ready = [k for k, p in enumerate(self.parents) if k not in done and (p is None or p in done)]
            if not ready:
                rest = ", ".join(str(k) for k in range(len(self.parents)) if k not in done)
                raise InputError(
                    f"The parents of datasets {rest} form a cycle; one of them must be a root, None."
                )
            done += ready
        return done

    def root(self, k: int) -> int:
        """The root above dataset k."""
        while (p := self.parents[k]) is not None:
            k = p
        return k

    @property
    def pairs(self) -> tuple[str, ...]:
        """Names of the pairs that have an r of their own: the child's number."""
        return tuple(str(k) for k, p in enumerate(self.parents) if p is not None)

    def names(self, anomalous: bool) -> tuple[str, ...]:
        """`pairs`, and "friedel" for the mates of every dataset."""
        return (*self.pairs, "friedel") if anomalous else self.pairs

    def rotation(self, k: int, spacegroup: gemmi.SpaceGroup, cell: gemmi.UnitCell) -> np.ndarray:
        """(3, 3) int R from the setting of dataset k to that of its root, h' = h R.

        Raises
        ------
        InputError : an operator that does not keep the lattice and the symmetry
        """
        R = np.eye(3, dtype=np.int64)
        while (p := self.parents[k]) is not None:
            if self.reindex:
                R = R @ _operator(self.reindex[k], k, spacegroup, cell)
            k = p
        return R

    def arrange(self, obs: Observations) -> Observations:
        """The same spots, reflections family by family and completed.

        Raises
        ------
        InputError : another number of datasets; Laue spots that share reflections
        """
        asu = obs.asu
        self._check(asu)
        if obs.overlaps:
            raise InputError(
                "Spots that several Laue harmonics share cannot be divided among related datasets; leave them out."
            )
        family, member = self._members(asu)
        complete, key, kind = self._completed(asu, family, member)
        order = np.argsort(key * self._n_member(asu) + self._rank(asu)[kind], kind="stable")
        new = np.empty(len(order), dtype=np.int64)
        new[order] = np.arange(len(order))
        hkl_id = torch.from_numpy(new)[obs.hkl_id]
        spots = hkl_id.argsort(stable=True)
        return replace(
            obs._map_spots(lambda x: x[spots]),
            asu=complete.subset(torch.from_numpy(order)),
            hkl_id=hkl_id[spots],
        )

    def parent_rows(self, asu: ReciprocalASU) -> torch.Tensor:
        """Row of the parent of each row of an `arrange`d asu or of whole families of it, -1 for roots, (hkl,) int64."""
        return self._rows(asu)[0]

    def pair(self, asu: ReciprocalASU) -> torch.Tensor:
        """Place in `names` of the pair of each row and its parent, 0 for roots, (hkl,) int64."""
        return self._rows(asu)[1]

    def counterparts(self, asu: ReciprocalASU, a: int, b: int) -> torch.Tensor:
        """Rows of datasets a and b that are the same reflection, and of the same side, (2, pair) int64."""
        sides, n = (2 if asu.anomalous else 1), self._n_member(asu)
        family, member = self._members(asu)
        rows = [np.flatnonzero(member // sides == k) for k in (a, b)]
        keys = [family[mine] * n + member[mine] % sides for mine in rows]
        _, first, second = np.intersect1d(keys[0], keys[1], assume_unique=True, return_indices=True)
        return torch.from_numpy(np.stack([rows[0][first], rows[1][second]]))

    def correlation(
        self, asu: ReciprocalASU, r: torch.Tensor, shape: torch.Tensor | None = None
    ) -> torch.Tensor:
        """r of each row and its parent, (hkl,): logit r² = logit r_pair² + Σ_k shape_k x^k, x = (2 Å/d)² - ½.

        Parameters
        ----------
        r : (pair,), in the order of `names`, at 2.83 Å where there is a shape
        shape : (pair, orders)
        """
        pair = self.pair(asu)
        if shape is None or not shape.numel():
            return r[pair]
        x = 16 * asu.stol2 - 0.5
        change = sum(shape[pair, k] * x ** (k + 1) for k in range(shape.shape[1]))
        return torch.sigmoid(torch.logit(r[pair] ** 2) + change).sqrt()

    def _check(self, asu):
        n = len(self.parents)
        found = max(asu.n_dataset, 1)
        if found != n:
            raise InputError(
                f"{n} parents are named for {found} dataset{'s' if found > 1 else ''}; name one for each file, "
                "and keep the files apart (--separate-files)."
            )

    def _n_member(self, asu):
        return len(self.parents) * (2 if asu.anomalous else 1)

    def _rank(self, asu):
        """Place of each member in its family."""
        sides = 2 if asu.anomalous else 1
        rank = np.empty(len(self.parents) * sides, dtype=np.int64)
        for place, k in enumerate(self.order()):
            for side in range(sides):
                rank[k * sides + side] = place * sides + side
        return rank

    def _members(self, asu):
        """Packed index of the family of each row, in the setting of its root, and its member, (hkl,) each."""
        hkl, dataset = asu.hkl.numpy(), asu.dataset_id.numpy()
        sides = 2 if asu.anomalous else 1
        key, member = np.empty(len(hkl), dtype=np.int64), np.empty(len(hkl), dtype=np.int64)
        for k in range(len(self.parents)):
            mine = np.flatnonzero(dataset == k)
            moved, isym = symmetry.to_asu(
                hkl[mine] @ self.rotation(k, asu.spacegroup, asu.cell), asu.spacegroup
            )
            minus = (isym % 2 == 0) & ~symmetry.is_centric(moved, asu.spacegroup)
            key[mine] = symmetry.pack(moved, BOUND, self.root(k))
            member[mine] = k * sides + (minus if asu.anomalous else 0)
        return key, member

    def _completed(self, asu, family, member):
        """The asu with the missing members of every family at its end; family and member of its rows."""
        sides = 2 if asu.anomalous else 1
        new = []
        for k in range(len(self.parents)):
            keys = np.unique(family[np.isin(member // sides, self._kin(k))])
            root_hkl, _ = symmetry.unpack(keys, BOUND)
            back = np.rint(np.linalg.inv(self.rotation(k, asu.spacegroup, asu.cell))).astype(np.int64)
            acentric = ~symmetry.is_centric(root_hkl, asu.spacegroup)
            for side in range(sides):
                there = keys[acentric] if side else keys
                absent = ~np.isin(there, family[member == k * sides + side])
                hkl = (-1 if side else 1) * symmetry.unpack(there[absent], BOUND)[0] @ back
                own, isym = symmetry.to_asu(hkl, asu.spacegroup)
                if asu.anomalous:
                    own[(isym % 2 == 0) & ~symmetry.is_centric(own, asu.spacegroup)] *= -1
                new.append((own, k, there[absent], np.full(len(own), k * sides + side)))
        hkl = np.concatenate([x[0] for x in new]).astype(np.int64)
        dataset = np.concatenate([np.full(len(x[0]), x[1]) for x in new])
        more = {
            "hkl": torch.from_numpy(hkl),
            "epsilon": torch.from_numpy(symmetry.epsilon(hkl, asu.spacegroup).astype(np.float64)),
            "centric": torch.from_numpy(symmetry.is_centric(hkl, asu.spacegroup)),
            "dHKL": torch.from_numpy(asu.cell.calculate_d_array(symmetry.as_hkl(hkl))),
            "dataset_id": torch.from_numpy(dataset.astype(np.int64)),
        }
        columns = {k: torch.cat([getattr(asu, k), x]) for k, x in more.items()}
        key = np.concatenate([family, *(x[2] for x in new)])
        return replace(asu, **columns), key, np.concatenate([member, *(x[3] for x in new)])

    def _kin(self, k):
        """Datasets with the root of dataset k."""
        return [j for j in range(len(self.parents)) if self.root(j) == self.root(k)]

    def _rows(self, asu):
        kept = _rows.setdefault(asu, {})
        if self not in kept:
            kept[self] = self._find_rows(asu)
        return kept[self]

    def _find_rows(self, asu):
        self._check_some(asu)
        sides, n = (2 if asu.anomalous else 1), self._n_member(asu)
        family, member = self._members(asu)
        above, pair = np.full(n, -1), np.zeros(n, dtype=np.int64)
        children = [(k, p) for k, p in enumerate(self.parents) if p is not None]
        for i, (k, p) in enumerate(children):
            above[k * sides], pair[k * sides] = p * sides, i
        if asu.anomalous:
            above[1::2], pair[1::2] = np.arange(0, n, 2), len(self.pairs)
        key = family * n + member
        order = np.argsort(key)
        wanted = np.where(above[member] < 0, -1, family * n + above[member])
        where = order[np.searchsorted(key[order], wanted).clip(max=len(key) - 1)]
        parent = np.where(above[member] < 0, -1, where)
        known = (above[member] < 0) | (key[where] == wanted)
        if not known.all() or (parent >= np.arange(len(parent))).any():
            raise InputError(
                "Reflections of related datasets are not in order; use the result of tree.arrange(obs)."
            )
        return torch.from_numpy(parent), torch.from_numpy(pair[member])

    def _check_some(self, asu):
        if asu.n_dataset > len(self.parents):
            self._check(asu)


def _operator(text: str, k: int, spacegroup: gemmi.SpaceGroup, cell: gemmi.UnitCell) -> np.ndarray:
    """(3, 3) int matrix of a reindexing operator that keeps the lattice and the symmetry."""
    try:
        rot = np.array(gemmi.Op(text).rot)
    except (RuntimeError, ValueError) as e:
        raise InputError(
            f"'{text}', the reindexing operator of dataset {k}, cannot be read ({e}); write it as in y,x,-z."
        ) from None
    R = rot // gemmi.Op.DEN
    what = f"The reindexing operator {text} of dataset {k}"
    if (rot != R * gemmi.Op.DEN).any() or abs(round(np.linalg.det(R))) != 1:
        raise InputError(
            f"{what} does not map the lattice onto itself; its elements must be whole, its determinant 1."
        )
    h = np.array(
        [
            [i, j, l]
            for i in range(-4, 5)
            for j in range(-4, 5)
            for l in range(-4, 5)
            if (i, j, l) != (0, 0, 0)
        ]
    )
    before, after = (1 / np.asarray(cell.calculate_d_array(symmetry.as_hkl(x))) ** 2 for x in (h, h @ R))
    if not np.allclose(before, after, rtol=2 * CELL_TOLERANCE):
        raise InputError(
            f"{what} changes the lengths of the cell {format_cell(cell)}; give one that keeps them."
        )
    group = {tuple(np.ravel(np.array(op.rot) // gemmi.Op.DEN)) for op in spacegroup.operations().sym_ops}
    group |= {tuple(-np.array(x)) for x in group}
    inverse = np.rint(np.linalg.inv(R)).astype(np.int64)
    moved = {tuple(np.ravel(inverse @ np.reshape(x, (3, 3)) @ R)) for x in group}
    absent = symmetry.is_absent(h, spacegroup)
    if moved != group or (symmetry.is_absent(h @ R, spacegroup) != absent).any():
        raise InputError(f"{what} does not keep the symmetry of {spacegroup.xhm()}; give one that does.")
    return R
