"""Alternate conformers: groups of atoms whose occupancies belong together.

Σ_k o_k = o_total        over the conformers k of one residue; all atoms of one conformer share o_k
"""

from collections import defaultdict

Group = list[tuple[str, list[int]]]


def occupancy_groups(crystal) -> list[Group]:
    """Groups of conformers, each a list of (altloc, rows of its atoms).

    One group holds a residue's conformers, also where they are different residues at one place of the chain.
    Atoms of a residue that have another set of conformers than the rest (a side chain with three conformers on
    a backbone with two) are a group of their own. A conformer without an alternative is in no group.
    """
    sites: dict[str, list[int]] = defaultdict(list)
    for row, (name, altloc) in enumerate(zip(crystal.name, crystal.altloc, strict=True)):
        if altloc:
            sites[_site(name)].append(row)
    groups = []
    for rows in sites.values():
        groups += _split(crystal, rows)
    return groups


def _site(name: str) -> str:
    """Chain and number of "A/GLY 12/CA/B"."""
    chain, residue, _ = name.split("/")[:3]
    return f"{chain}/{residue.split()[-1]}"


def _split(crystal, rows: list[int]) -> list[Group]:
    """The groups of one place of the chain."""
    residues = {crystal.name[r].split("/")[1] for r in rows}
    letters: dict[str, set[str]] = defaultdict(set)
    for r in rows:
        letters[crystal.name[r].split("/")[2]].add(crystal.altloc[r])
    everything = frozenset().union(*letters.values())
    parts: dict[frozenset[str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for r in rows:
        own = frozenset(letters[crystal.name[r].split("/")[2]])
        # Of several residues at one place, each has atoms that the others lack.
        alike = len(residues) > 1 or len(own) < 2
        parts[everything if alike else own][crystal.altloc[r]].append(r)
    return [sorted(part.items()) for part in parts.values() if len(part) > 1]
