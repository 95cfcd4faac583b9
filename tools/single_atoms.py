"""Components without stereochemistry of their own, and iron-sulfur clusters.

Clusters: mean Fe-S, Fe-Fe and angles of [4Fe-4S], [3Fe-4S] and [2Fe-2S] proteins, Venkateswara Rao & Holm (2004), Chem.
Rev. 104, 527. Their Cartesian frames are ideal cubes and rhombs with these lengths; σ are their scatter over states.
"""

import itertools

# component: (atom, element, charge)
IONS = {
    "LI": ("LI", "Li", 1), "NA": ("NA", "Na", 1), "K": ("K", "K", 1), "RB": ("RB", "Rb", 1), "CS": ("CS", "Cs", 1),
    "MG": ("MG", "Mg", 2), "CA": ("CA", "Ca", 2), "SR": ("SR", "Sr", 2), "BA": ("BA", "Ba", 2),
    "MN": ("MN", "Mn", 2), "FE": ("FE", "Fe", 3), "FE2": ("FE", "Fe", 2), "CO": ("CO", "Co", 2), "3CO": ("CO", "Co", 3),
    "NI": ("NI", "Ni", 2), "CU": ("CU", "Cu", 2), "CU1": ("CU", "Cu", 1), "ZN": ("ZN", "Zn", 2), "CD": ("CD", "Cd", 2),
    "HG": ("HG", "Hg", 2), "AL": ("AL", "Al", 3), "GA": ("GA", "Ga", 3), "CR": ("CR", "Cr", 3), "AG": ("AG", "Ag", 1),
    "AU": ("AU", "Au", 1), "PT": ("PT", "Pt", 2), "PD": ("PD", "Pd", 2), "PB": ("PB", "Pb", 2), "TL": ("TL", "Tl", 1),
    "Y1": ("Y", "Y", 2), "YT3": ("Y", "Y", 3), "LA": ("LA", "La", 3), "CE": ("CE", "Ce", 3), "SM": ("SM", "Sm", 3),
    "EU": ("EU", "Eu", 2), "EU3": ("EU", "Eu", 3), "GD3": ("GD", "Gd", 3), "TB": ("TB", "Tb", 3),
    "HO3": ("HO", "Ho", 3),
    "LU": ("LU", "Lu", 3), "YB": ("YB", "Yb", 3), "F": ("F", "F", -1), "CL": ("CL", "Cl", -1), "BR": ("BR", "Br", -1),
    "IOD": ("I", "I", -1), "XE": ("XE", "Xe", 0), "KR": ("KR", "Kr", 0), "AR": ("AR", "Ar", 0), "OH": ("O", "O", -1),
    "O": ("O", "O", 0),
}  # fmt: skip

WATER = {"HOH": "H", "DOD": "D", "WAT": "H"}
WATER_OH, WATER_ANGLE = (0.85, 0.02), (107.0, 3.0)  # electron cloud; Å, degrees
WATER_NUCLEUS = 0.957  # Å, of the free molecule

# gas-phase lengths, CRC Handbook of Chemistry and Physics: atoms with elements, Å
DIATOMICS = {
    "OXY": ((("O1", "O"), ("O2", "O")), 1.208), "CMO": ((("C", "C"), ("O", "O")), 1.128),
    "NO": ((("N", "N"), ("O", "O")), 1.151), "CYN": ((("C", "C"), ("N", "N")), 1.150),
    "PER": ((("O1", "O"), ("O2", "O")), 1.460),
}  # fmt: skip

FE_S = (2.28, 0.04)
_SFS, _FSF = (104.0, 3.0), (73.5, 2.5)


def clusters() -> dict[str, tuple[dict[str, str], dict, dict]]:
    """{component: (atoms {name: element}, bonds {pair: (Å, σ)}, angles {triple: (degrees, σ)})}."""
    sf4_bonds = [(f"FE{i}", f"S{j}") for i in range(1, 5) for j in range(1, 5) if i != j]
    f3s_bonds = [
        ("FE1", "S1"), ("FE1", "S2"), ("FE1", "S3"), ("FE3", "S1"), ("FE3", "S3"), ("FE3", "S4"),
        ("FE4", "S2"), ("FE4", "S3"), ("FE4", "S4"),
    ]  # fmt: skip
    fes_bonds = [(f"FE{i}", f"S{j}") for i in (1, 2) for j in (1, 2)]
    out = {}
    for name, bonds, length in (
        ("SF4", sf4_bonds, FE_S),
        ("F3S", f3s_bonds, (2.27, 0.04)),
        ("FES", fes_bonds, (2.22, 0.03)),
    ):
        atoms = {a: "Fe" if a.startswith("FE") else "S" for b in bonds for a in b}
        angles = {}
        for centre in atoms:
            partners = sorted({a for b in bonds if centre in b for a in b} - {centre})
            value = _SFS if atoms[centre] == "Fe" else _FSF
            if name == "FES":
                value = (104.5, 2.0) if atoms[centre] == "Fe" else (75.5, 2.0)
            for i, j in itertools.combinations(partners, 2):
                angles[(i, centre, j)] = value
        out[name] = (atoms, dict.fromkeys(bonds, length), angles)
    return out
