"""Atoms that are not bonded keep their distance.

    d₀ = r_i + r_j                    van der Waals radii; those of united atoms where hydrogens are not modelled
         r_i + r_j - 0.3 Å            donor and acceptor of a hydrogen bond
         r_acceptor + 0.1 Å           hydrogen of a donor, and acceptor
         ion_i + ion_j                a metal and another atom
         r_i + r_j - 0.2 to 0.3 Å     where three bonds join them (0.1 for N and O, 0.15 for others), always of
                                      atoms without their hydrogens

Left out: pairs joined by one or two bonds, or by three of which the middle one lies in a plane (its torsion says
it all); pairs of one plane; alternatives of one another (other conformers, or occupancies that sum to no more
than 1); residues without restraints.

Radii are those of the energy library that comes with the dictionary (CCP4's ener_lib.cif: Vagin et al. (2004),
Acta Cryst. D60, 2184), otherwise those of
`radii`; the increments are the defaults of REFMAC and servalcat
(Yamashita et al. (2021), Acta Cryst. D77, 1282).
"""

from dataclasses import dataclass

import gemmi
import numpy as np
import torch
from scipy import sparse

from bayesref.restraints.images import cartesian, neighbours
from bayesref.restraints.radii import hydrogen_bonding, radii
from bayesref.restraints.terms import Bonds, Images, NonBonded, Planes

SIGMA = 0.2  # Å
HYDROGEN_BOND = -0.3  # Å, donor and acceptor
HYDROGEN_ACCEPTOR = 0.1  # Å, beyond the radius of the acceptor
MARGIN = (
    1.0  # Å beyond the minimum distance: two atoms may each move half of it before the list is out of date
)
FULL = 1 + 1e-6  # occupancies that sum to more cannot be alternatives


@dataclass(frozen=True)
class Contacts:
    """What the list of contacts depends on besides the coordinates; see `contact_rules`.

    Attributes
    ----------
    radius, bare_radius, ion_radius : (atom,) Å, with and without implied hydrogens; NaN where there is none
    shorten : (atom,) Å, the 1-4 increment
    donor, acceptor, hydrogen, metal, free : (atom,) bool; `free` atoms touch nothing
    altloc : (atom,) int, 0 for none
    occupancy : (atom,)
    site : (atom,) int, the same for the conformers of an atom, so that one with an incomplete conformer is no clash
    excluded, one_four : sparse (site, site) bool
    across : {(i, j)} sites near a bond to a symmetry copy
    """

    radius: np.ndarray
    bare_radius: np.ndarray
    ion_radius: np.ndarray
    shorten: np.ndarray
    donor: np.ndarray
    acceptor: np.ndarray
    hydrogen: np.ndarray
    metal: np.ndarray
    free: np.ndarray
    altloc: np.ndarray
    occupancy: np.ndarray
    site: np.ndarray
    excluded: sparse.csr_matrix
    one_four: sparse.csr_matrix
    across: frozenset[tuple[int, int]]


def contact_rules(
    crystal, monlib, energy_type, bonds: Bonds, planes: Planes, free, explicit: bool
) -> Contacts:
    """Radii, hydrogen-bonding types and excluded pairs of a crystal's atoms.

    Parameters
    ----------
    energy_type : (atom,) CCP4 energy types
    bonds, planes : of the crystal, with no restraint left out
    free : (atom,) bool, atoms without contacts
    explicit : the model has hydrogens, so that radii are those of atoms without theirs
    """
    elements = [gemmi.Element(s.rstrip("+-0123456789")) for s in crystal.scatterer]
    known = monlib.ener_lib.atoms
    rules = [_rule(known.get(t), t or "", e, explicit) for t, e in zip(energy_type, elements, strict=True)]
    radius, bare, ion, kind = (np.array(c) for c in zip(*rules, strict=True))
    letters = {"": 0}
    altloc = np.array([letters.setdefault(a, len(letters)) for a in crystal.altloc])
    places: dict[str, int] = {}
    site = np.array([places.setdefault("/".join(n.split("/")[:3]), len(places)) for n in crystal.name])
    excluded, one_four, across = _bonded(site, bonds, planes)
    return Contacts(
        radius,
        bare,
        ion,
        np.array([0.1 if e.name in ("N", "O") else 0.15 for e in elements]),
        np.isin(kind, ("D", "B")),
        np.isin(kind, ("A", "B")),
        _donated(bonds, kind, elements),
        np.array([e.is_metal for e in elements]),
        np.array(free, dtype=bool),
        altloc,
        crystal.occupancy.detach().reshape(-1, len(crystal))[0].numpy(),
        site,
        excluded,
        one_four,
        across,
    )


def _rule(entry, energy_type: str, element, explicit: bool) -> tuple[float, float, float, str]:
    """Radii with and without implied hydrogens, of the ion, and hydrogen-bonding type of one atom."""
    if entry is None:
        united, bare, ion = radii(energy_type, element)
        return bare if explicit else united, bare, ion, hydrogen_bonding(energy_type, element)
    bare = entry.vdw_radius if entry.vdw_radius > 0 else element.vdw_r
    united = entry.vdwh_radius if entry.vdwh_radius > 0 else bare
    ion = entry.ion_radius if entry.ion_radius > 0 else np.nan
    return bare if explicit else united, bare, ion, entry.hb_type


def _donated(bonds: Bonds, kind: np.ndarray, elements) -> np.ndarray:
    """(atom,) bool: hydrogens of donors. Many dictionaries have one energy type for all hydrogens."""
    hydrogen = np.array([e.is_hydrogen for e in elements])
    pairs = bonds.atoms.numpy()
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    out = np.zeros(len(elements), dtype=bool)
    out[pairs[hydrogen[pairs[:, 0]] & np.isin(kind[pairs[:, 1]], ("D", "B")), 0]] = True
    return out


def _bonded(site: np.ndarray, bonds: Bonds, planes: Planes):
    """Pairs within two bonds or one plane, pairs three bonds apart, and pairs near a bond to another copy."""
    n = int(site.max()) + 1
    atoms, inside = site[bonds.atoms.numpy()], bonds.image.numpy() == 0
    a, b = atoms[inside].T
    one = sparse.coo_matrix((np.ones(2 * len(a)), (np.r_[a, b], np.r_[b, a])), (n, n)).tocsr()
    one.data[:] = 1  # several conformers of one bond
    flat = planes.atoms.numpy()
    i, j = np.repeat(flat, flat.shape[1], 1).ravel(), np.tile(flat, flat.shape[1]).ravel()
    real = (i >= 0) & (j >= 0)
    plane = (
        sparse.coo_matrix((np.ones(real.sum()), (site[i[real]], site[j[real]])), (n, n)).tocsr().astype(bool)
    )
    two, middle = one @ one, one - one.multiply(plane)
    three, loose = one @ one @ one, one @ middle @ one
    rigid = three - three.multiply(loose.astype(bool))
    near: set[tuple[int, int]] = set()
    for p, q in atoms[~inside]:
        P, Q = [p, *one[p].indices], [q, *one[q].indices]
        # One bond or two between them: one end of the pair is an end of the bond.
        for x, y in [(p, y) for y in Q] + [(x, q) for x in P]:
            near |= {(int(x), int(y)), (int(y), int(x))}
    return (one + two + plane + rigid).astype(bool).tocsr(), loose.astype(bool).tocsr(), frozenset(near)


def contacts(xyz: np.ndarray, rules: Contacts, cell, spacegroup, operators) -> tuple[NonBonded, Images]:
    """The pairs that are near enough to matter, and the images that they and the bonds refer to.

    Parameters
    ----------
    xyz : (atom, 3) Å
    operators : of the images of the bonds; they keep their numbers
    """
    largest = np.nanmax(np.fmax(rules.radius, rules.ion_radius))
    atoms, image, distance, found = neighbours(xyz, cell, spacegroup, 2 * largest + MARGIN)
    minimum = _minimum(atoms, image, rules)
    keep = _may_touch(atoms, image, rules) & (distance < minimum + MARGIN)
    atoms, image, minimum = atoms[keep], image[keep], minimum[keep]
    numbers = {op: k for k, op in enumerate(operators)}
    used = np.unique(image)
    renumber = np.zeros(len(found), dtype=np.int64)
    renumber[used] = [numbers.setdefault(found[k], len(numbers)) for k in used]
    table = NonBonded(
        torch.from_numpy(atoms),
        torch.from_numpy(renumber[image]),
        torch.from_numpy(minimum),
        torch.full((len(atoms),), SIGMA, dtype=torch.float64),
    )
    return table, cartesian(cell, spacegroup, list(numbers))


def joined_by_three(table: NonBonded, rules: Contacts) -> torch.Tensor:
    """(pair,) bool: atoms of a list of contacts that three bonds join."""
    i, j = rules.site[table.atoms.cpu().numpy()].T
    return (table.image == 0).cpu() & torch.from_numpy(_entry(rules.one_four, i, j))


def _may_touch(atoms, image, rules: Contacts) -> np.ndarray:
    """(pair,) bool: not bonded, not alternatives of each other."""
    i, j = atoms.T
    same = image == 0
    bonded = same & _entry(rules.excluded, rules.site[i], rules.site[j])
    if rules.across:
        bonded |= ~same & np.array([(int(a), int(b)) in rules.across for a, b in rules.site[atoms]])
    one_conformer = (rules.altloc[i] == rules.altloc[j]) & (rules.altloc[i] > 0)
    clash = same & (rules.altloc[i] != rules.altloc[j]) & (rules.altloc[i] > 0) & (rules.altloc[j] > 0)
    together = (rules.occupancy[i] + rules.occupancy[j] > FULL) | (same & one_conformer)
    return ~bonded & ~clash & together & ~rules.free[i] & ~rules.free[j]


def _minimum(atoms, image, rules: Contacts) -> np.ndarray:
    """(pair,) Å, the distance below which two atoms repel."""
    i, j = atoms.T
    minimum = rules.radius[i] + rules.radius[j]
    bond = (rules.donor[i] & rules.acceptor[j]) | (rules.acceptor[i] & rules.donor[j])
    minimum = np.where(bond, minimum + HYDROGEN_BOND, minimum)
    for a, b in ((i, j), (j, i)):
        minimum = np.where(
            rules.hydrogen[a] & rules.acceptor[b], rules.radius[b] + HYDROGEN_ACCEPTOR, minimum
        )
    ions = rules.ion_radius[i] + rules.ion_radius[j]
    metal = (rules.metal[i] | rules.metal[j]) & np.isfinite(ions)
    minimum = np.where(metal, ions, minimum)
    far = (image == 0) & _entry(rules.one_four, rules.site[i], rules.site[j])
    # After hydrogen bonds and metals: whatever the pair is, a torsion may bring it this close.
    apart = rules.bare_radius[i] + rules.bare_radius[j] - rules.shorten[i] - rules.shorten[j]
    return np.where(far, np.minimum(minimum, apart), minimum)


def _entry(matrix: sparse.csr_matrix, i, j) -> np.ndarray:
    """(pair,) bool, elements of a sparse matrix."""
    return np.asarray(matrix[i, j]).ravel().astype(bool) if len(i) else np.zeros(0, dtype=bool)
