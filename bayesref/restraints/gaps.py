"""Bonds between neighbours of a chain that a poor model has too long.

gemmi takes the next residue of a chain as bonded where the bond is less than 1.5 times its proper length. Coordinates
that are off by a few tenths of an ångström have longer ones here and there; without their bond the two atoms would be
pushed apart. Where residues are missing, the ends are at least 3.5 Å apart.
"""

import itertools
import math

import gemmi

# Last atom, next atom, proper length in Å (Engh & Huber 2001, International Tables F, 18.3), link
JOINTS = (("C", "N", 1.34, None), ("O3'", "P", 1.61, "p"))
SEEN, FAR = 1.5, 2.0  # gemmi's limit and ours, in proper lengths


def join_neighbours(structure: gemmi.Structure) -> list[str]:
    """Add a connection for each bond along a chain that is 1.5 to 2 times too long; what was joined, in words."""
    joined: list[str] = []
    for chain in structure[0]:
        polymer = list(chain.get_polymer())
        for a, b in itertools.pairwise(polymer):
            if a.seqid == b.seqid:  # alternatives of one residue
                continue
            for first, second, length, link in JOINTS:
                for x, y in _pairs(a, b, first, second):
                    distance = x.pos.dist(y.pos)
                    if SEEN * length <= distance < FAR * length:
                        structure.connections.append(
                            _connection(chain, (a, x), (b, y), link or _peptide(a, b), len(joined))
                        )
                        joined.append(f"{chain.name}/{a}/{x.name} - {b}/{y.name} ({distance:.2f} Å)")
    return joined


def _pairs(a: gemmi.Residue, b: gemmi.Residue, first: str, second: str):
    """Atoms of these names that belong to the same conformer."""
    return [
        (x, y)
        for x in a
        for y in b
        if x.name == first
        and y.name == second
        and (x.altloc == y.altloc or not x.has_altloc() or not y.has_altloc())
    ]


def _peptide(a: gemmi.Residue, b: gemmi.Residue) -> str:
    """Name of the peptide link, by ω."""
    cis = abs(gemmi.calculate_omega(a, b)) < math.pi / 6
    return ("P" if b.name == "PRO" else "") + ("CIS" if cis else "TRANS")


def _connection(chain, one, two, link: str, number: int) -> gemmi.Connection:
    c = gemmi.Connection()
    c.name = f"joint{number + 1}"
    c.type = gemmi.ConnectionType.Covale
    c.asu = gemmi.Asu.Same
    c.link_id = link
    c.partner1 = gemmi.make_address(chain, *one)
    c.partner2 = gemmi.make_address(chain, *two)
    return c
