"""Which way each image is indexed, where the lattice has more symmetry than the crystal.

    z_i ~ Normal(c_{h R_g}, σ²),   c_h ~ Normal(0, τ²)          spot i of image j, indexed in way g = g_j
    z_i ~ Normal(0, σ² + τ²)                                    of an image that has nothing to do with the others

z: intensity over the mean of its resolution and its image, less one, clipped. Both ways are as good for one image
alone; only together do images tell. EM over g_j needs a start that is not lost between the ways: the leading
eigenvector of the matrix of correlations between images in all their ways (Brehm & Diederichs, 2014, Acta Cryst.
D70, 101, minimise the same correlations), found by power iteration without forming it. What is said of an image leaves
its own spots out of c. The ways are determined up to one for all: the one that most images have is the identity.
"""

from dataclasses import dataclass, replace

import gemmi
import numpy as np
import torch

from bayesref._checks import InputError
from bayesref.crystal import symmetry
from bayesref.crystal.asu import reciprocal_asu
from bayesref.data.observations import Observations

MAX_OBLIQUITY = 3.0  # degrees, by which an operator may miss the lattice
CLIP = 4.0  # of intensities over their mean: Wilson's tail must not decide
BINS = 20


@dataclass(frozen=True, eq=False)
class Ways:
    """Ways of indexing.

    Attributes
    ----------
    operators : h' = h R of each way as text, "h,k,l" first
    matrices : (way, 3, 3) int64, R
    rows : (way, hkl) int64, row of the asymmetric unit that a reflection becomes; -1 where that is absent
    """

    operators: tuple[str, ...]
    matrices: np.ndarray
    rows: torch.Tensor

    def __len__(self) -> int:
        return len(self.operators)


def lattice_ways(cell: gemmi.UnitCell, group: gemmi.SpaceGroup, asked: str = "auto") -> np.ndarray:
    """Matrices R of the ways of indexing, (way, 3, 3), the identity first.

    Parameters
    ----------
    asked : "auto", all that the lattice has; or operators such as "k,h,-l", several of them separated by ;

    Raises
    ------
    InputError : not an operator, or one that the crystal has itself
    """
    if asked == "auto":
        found = [np.array(op.rot) // op.DEN for op in gemmi.find_twin_laws(cell, group, MAX_OBLIQUITY, False)]
        return np.array([np.eye(3, dtype=int), *found], dtype=np.int64)
    found = [np.eye(3, dtype=int)]
    for text in asked.split(";"):
        R = _matrix(text.strip())
        if any(_same_way(R, known, group) for known in found):
            raise InputError(
                f"The operator {text.strip()} is no new way of indexing in {group.xhm()}: it is a symmetry of "
                "the crystal, or the same as one given before."
            )
        found.append(R)
    return np.array(found, dtype=np.int64)


def _matrix(text: str) -> np.ndarray:
    try:
        op = gemmi.Op(text)
    except (RuntimeError, ValueError):
        raise InputError(f"'{text}' is not an operator; give one such as 'k,h,-l', or auto.") from None
    op = op if any(x in text.lower() for x in "hkl") else op.as_hkl()
    R = np.array(op.rot) / op.DEN
    if (np.rint(R) != R).any() or abs(abs(np.linalg.det(R)) - 1) > 1e-6:
        raise InputError(f"The operator '{text}' does not take whole indices to whole ones, one to one.")
    return np.rint(R).astype(int)


def _same_way(R, Q, group) -> bool:
    """Whether h R and h Q are equivalent for every h."""
    between = np.rint(np.linalg.inv(Q) @ R).astype(int)
    rotations = [np.array(op.rot) // op.DEN for op in group.operations().sym_ops]
    return any((between == s * P).all() for P in rotations for s in (1, -1))


def triplet(R) -> str:
    """h' = h R as text."""
    text = []
    for column in np.asarray(R).T:
        terms = [
            f"{'+' if c > 0 else '-'}{abs(c) if abs(c) > 1 else ''}{x}"
            for c, x in zip(column, "hkl", strict=True)
            if c
        ]
        text.append("".join(terms).removeprefix("+"))
    return ",".join(text)


def closed(obs: Observations, matrices) -> tuple[Observations, Ways]:
    """The observations with an asymmetric unit that holds every way, and the ways.

    Parameters
    ----------
    matrices : (way, 3, 3), the identity first
    """
    asu = obs.asu
    base = asu.hkl.numpy()
    images = [base @ R for R in matrices]
    present = [~symmetry.is_absent(h, asu.spacegroup) for h in images]
    dataset = asu.dataset_id.numpy() if asu.n_dataset > 1 else None
    datasets = None if dataset is None else np.concatenate([dataset[p] for p in present])
    stacked = np.concatenate([h[p] for h, p in zip(images, present, strict=True)])
    full, _ = reciprocal_asu(stacked, asu.cell, asu.spacegroup, asu.anomalous, datasets)
    own = _rows(full, base, asu)
    rows = torch.stack([_rows(full, full.hkl.numpy() @ R, full) for R in matrices])
    ways = Ways(tuple(triplet(R) for R in matrices), np.asarray(matrices), rows)
    # Both tables are sorted alike, so that spots stay sorted. A spot that some way forbids cannot choose.
    obs = replace(obs, asu=full, hkl_id=own[obs.hkl_id])
    return obs.subset((rows >= 0).all(0)[obs.hkl_id]), ways


def _rows(asu, hkl, of) -> torch.Tensor:
    """Row of `asu` that indices `hkl` of the rows of `of` belong to, -1 where there is none."""
    ok = ~symmetry.is_absent(hkl, asu.spacegroup)
    dataset = of.dataset_id.numpy()
    together = np.concatenate([asu.hkl.numpy(), hkl[ok]])
    both = np.concatenate([asu.dataset_id.numpy(), dataset[ok]])
    union, which = reciprocal_asu(together, asu.cell, asu.spacegroup, asu.anomalous, both)
    place = torch.full((len(union),), -1)
    place[which[: len(asu)]] = torch.arange(len(asu))
    rows = torch.full((len(hkl),), -1)
    rows[torch.from_numpy(ok)] = place[which[len(asu) :]]
    return rows


def reindexed(obs: Observations, ways: Ways, choice: torch.Tensor) -> Observations:
    """Each image in its way.

    Parameters
    ----------
    obs, ways : as `closed` returned them
    choice : (image,) int64
    """
    g = choice[obs.image_id]
    hkl_id = ways.rows[g, obs.hkl_id]
    hkl = (obs.hkl[:, :, None] * torch.from_numpy(ways.matrices)[g]).sum(1)
    order = hkl_id.argsort(stable=True)
    return replace(obs, hkl_id=hkl_id, hkl=hkl)._map_spots(lambda x: x[order])


def gauge(choice, weight, ways: Ways, group) -> np.ndarray:
    """New number of each way, so that the one with most weight becomes the identity, (way,)."""
    most = int(np.argmax(np.bincount(choice, weights=weight, minlength=len(ways))))
    inverse = np.rint(np.linalg.inv(ways.matrices[most])).astype(int)
    moved = [R @ inverse for R in ways.matrices]
    return np.array(
        [
            next((k for k, Q in enumerate(ways.matrices) if _same_way(R, Q, group)), g)
            for g, R in enumerate(moved)
        ]
    )


def check_ways(n: int, group: gemmi.SpaceGroup) -> None:
    """Raise `InputError` where the lattice allows one way only."""
    if n < 2:
        raise InputError(
            f"The lattice has no symmetry beyond that of {group.xhm()}, so there is one way of indexing; "
            "leave --reindex out, or name an operator."
        )
