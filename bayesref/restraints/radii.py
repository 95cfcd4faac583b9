"""Radii and hydrogen bonding of an atom, from its element and CCP4 energy type, where there is no energy library.

Without hydrogens of its own: Bondi (1964), J. Phys. Chem. 68, 441. With implied ones: carbons are larger by what
their hydrogens add, after Chothia (1975), Nature 254, 304; ions: Shannon (1976), Acta Cryst. A32, 751, six neighbours.
"""

import gemmi

_BARE = {"C": 1.70, "N": 1.55, "O": 1.50, "S": 1.80, "P": 1.80, "H": 1.20, "D": 1.20}
_UNITED_CARBON = {
    "CH1": 1.80,
    "CH2": 1.82,
    "CH3": 1.85,
    "CR1": 1.75,
    "CR15": 1.75,
    "CR16": 1.75,
    "C1": 1.75,
    "C2": 1.78,
}
_ION = {
    "LI": 0.76, "NA": 1.02, "K": 1.38, "RB": 1.52, "CS": 1.67, "MG": 0.72, "CA": 1.00, "SR": 1.18, "BA": 1.35,
    "MN": 0.83, "FE": 0.70, "CO": 0.70, "NI": 0.69, "CU": 0.73, "ZN": 0.74, "CD": 0.95, "HG": 1.02,
}  # fmt: skip
_BOTH = ("OH1", "OH2", "OHA", "OHB", "OHC", "OH0")
_DONOR_N = ("NH1", "NH2", "NT1", "NT2", "NT3", "NC1", "NC2", "NR15", "NR16", "N21", "NH0H")
_ACCEPTOR_N = ("NRD5", "NRD6", "N20", "NRB5", "NS", "NT")


def radii(energy_type: str, element: gemmi.Element) -> tuple[float, float, float]:
    """Å: with implied hydrogens, without them, and of the ion (NaN for what is no metal)."""
    bare = _BARE.get(element.name, element.vdw_r)
    united = _UNITED_CARBON.get(energy_type, bare) if element.name == "C" else bare
    ion = _ION.get(element.name.upper(), element.covalent_r) if element.is_metal else float("nan")
    return united, bare, ion


def hydrogen_bonding(energy_type: str, element: gemmi.Element) -> str:
    """D donor, A acceptor, B both, N neither. Nitrogens and oxygens of unknown type may be either."""
    if element.name == "O":
        return "B" if energy_type in _BOTH or energy_type in ("", "O1") else "A"
    if element.name == "N":
        if energy_type in _DONOR_N:
            return "D"
        return "A" if energy_type in _ACCEPTOR_N else "B" if energy_type in ("", "N") else "N"
    return "A" if element.name in ("F", "Cl", "Br", "I") and not energy_type.startswith("C") else "N"
