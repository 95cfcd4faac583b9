"""Links between residues, and what they change in the residues they join: our own descriptions.

Backbone: Engh & Huber (2001), International Tables for Crystallography F, ch. 18.3 (bonds, angles; their σ), cis and
trans ω. Disulfide: the same. Phosphodiester: Parkinson et al. (1996), Acta Cryst. D52, 57. Metal to ligand: medians of
Harding (2006), Acta Cryst. D62, 678. Iron-sulfur to cysteine: Venkateswara Rao & Holm (2004), Chem. Rev. 104, 527.
Thioester of p-coumaric acid (PYP) and Schiff base of retinal: bond lengths of Allen et al. (1987), J. Chem. Soc. Perkin
Trans. 2, S1 (thioester C-S 1.76, C=N 1.28 Å).
"""

import chain_ends
from adjust import AMIDE_H

# modification: (group or component, {(atoms): (value, σ)} changed, atoms deleted)
MODIFICATIONS = {
    "DEL-OXT": ("peptide", {
        ("C", "O"): (1.229, 0.019), ("CA", "C", "O"): (120.1, 2.1),
    }, ("OXT",)),
    "DEL-HN1": ("peptide", {
        ("N", "CA"): (1.459, 0.020), ("N", "H"): AMIDE_H, ("CA", "N", "H"): (118.7, 3.0),
    }, ("H2", "H3")),
    "DEL-HNP": ("P-peptide", {("N", "CA"): (1.468, 0.017), ("N", "CD"): (1.474, 0.014),
                              ("CA", "N", "CD"): (111.7, 1.4)}, ("H", "H2", "H3")),
    "CYS-SS": ("CYS", {("CB", "SG"): (1.808, 0.033)}, ("HG",)),
    "CYS-S": ("CYS", {("CB", "SG"): (1.808, 0.033)}, ("HG",)),
    "HC4-S": ("HC4", {("C1", "O1"): (1.21, 0.02), ("C1", "C2"): (1.46, 0.02), ("C2", "C1", "O1"): (123.0, 3.0)},
              ("O2", "HO2")),
    "LYS-NZ": ("LYS", {}, ("HZ2", "HZ3")),
    "RET-C15": ("RET", {}, ("O1",)),
    "HIS-NE": ("HIS", {}, ("HE2",)),
    "HIS-ND": ("HIS", {}, ("HD1",)),
    "DEL-HO3": ("DNA/RNA", {("C3'", "O3'"): (1.427, 0.014)}, ("HO3'",)),
    "DEL-OP3": ("DNA/RNA", {("P", "O5'"): (1.593, 0.010), ("P", "OP1"): (1.485, 0.017), ("P", "OP2"): (1.485, 0.017),
                            ("OP1", "P", "OP2"): (119.6, 1.5)}, ("OP3", "HOP3")),
}  # fmt: skip

_PEPTIDE = {
    (1, "C", 2, "N"): (1.336, 0.023),
    (1, "CA", 1, "C", 2, "N"): (117.2, 2.2),
    (1, "O", 1, "C", 2, "N"): (122.7, 1.6),
    (1, "C", 2, "N", 2, "CA"): (121.7, 2.5),
    (1, "C", 2, "N", 2, "H"): (119.3, 3.0),
}
_PROLINE = {
    (1, "C", 2, "N"): (1.338, 0.019),
    (1, "CA", 1, "C", 2, "N"): (117.1, 2.8),
    (1, "O", 1, "C", 2, "N"): (121.1, 1.9),
    (1, "C", 2, "N", 2, "CA"): (119.3, 1.5),
    (1, "C", 2, "N", 2, "CD"): (128.4, 2.1),
}
_CIS = {(1, "C", 2, "N", 2, "CA"): (127.0, 2.4), (1, "C", 2, "N", 2, "CD"): (120.6, 2.2)}
_PLANES = (((1, "CA"), (1, "C"), (1, "O"), (2, "N")), ((1, "C"), (2, "N"), (2, "CA"), (2, "H")))
_PRO_PLANES = (((1, "CA"), (1, "C"), (1, "O"), (2, "N")), ((1, "C"), (2, "N"), (2, "CA"), (2, "CD")))


def _omega(value, last="CA"):
    return {
        "psi": ((1, "N"), (1, "CA"), (1, "C"), (2, "N"), 160.0, 30.0, 2),
        "omega": ((1, "CA"), (1, "C"), (2, "N"), (2, last), value, 6.0, 0),
        "phi": ((1, "C"), (2, "N"), (2, "CA"), (2, "C"), 60.0, 20.0, 3),
    }


# link: ((component, modification, group) twice, {atoms: (value, σ)}, torsions, planes)
LINKS = {
    "TRANS": ((("", "DEL-OXT", "peptide"), ("", "DEL-HN1", "peptide")), _PEPTIDE, _omega(180.0), _PLANES),
    "CIS": ((("", "DEL-OXT", "peptide"), ("", "DEL-HN1", "peptide")), _PEPTIDE, _omega(0.0), _PLANES),
    "PTRANS": ((("", "DEL-OXT", "peptide"), ("", "DEL-HNP", "P-peptide")), _PROLINE, _omega(180.0), _PRO_PLANES),
    "PCIS": ((("", "DEL-OXT", "peptide"), ("", "DEL-HNP", "P-peptide")), _PROLINE | _CIS, _omega(0.0), _PRO_PLANES),
    "SS": ((("CYS", "CYS-SS", ""), ("CYS", "CYS-SS", "")), {
        (1, "SG", 2, "SG"): (2.033, 0.016),
        (1, "CB", 1, "SG", 2, "SG"): (104.0, 2.0),
        (1, "SG", 2, "SG", 2, "CB"): (104.0, 2.0),
    }, {"ss": ((1, "CB"), (1, "SG"), (2, "SG"), (2, "CB"), 90.0, 10.0, 2)}, ()),
    "p": ((("", "DEL-HO3", "DNA/RNA"), ("", "DEL-OP3", "DNA/RNA")), {
        (1, "O3'", 2, "P"): (1.607, 0.012),
        (1, "C3'", 1, "O3'", 2, "P"): (119.7, 1.2),
        (1, "O3'", 2, "P", 2, "O5'"): (104.0, 1.9),
        (1, "O3'", 2, "P", 2, "OP1"): (108.0, 3.0),
        (1, "O3'", 2, "P", 2, "OP2"): (108.0, 3.0),
    }, {}, ()),
    "HC4-CYS": ((("CYS", "CYS-S", ""), ("HC4", "HC4-S", "")), {
        (1, "SG", 2, "C1"): (1.76, 0.02),
        (1, "CB", 1, "SG", 2, "C1"): (100.0, 3.0),
        (1, "SG", 2, "C1", 2, "O1"): (122.0, 3.0),
        (1, "SG", 2, "C1", 2, "C2"): (114.0, 3.0),
    }, {}, (((1, "SG"), (2, "C1"), (2, "O1"), (2, "C2")),)),
    "RET-LYS": ((("LYS", "LYS-NZ", ""), ("RET", "RET-C15", "")), {
        (1, "NZ", 2, "C15"): (1.29, 0.02),
        (1, "CE", 1, "NZ", 2, "C15"): (121.0, 3.0),
        (1, "NZ", 2, "C15", 2, "C14"): (122.0, 3.0),
    }, {}, (((1, "CE"), (1, "NZ"), (2, "C15"), (2, "C14")),)),
}  # fmt: skip

# metal-ligand distances: (component, atom, modification of the ligand side): {metal: Å}
_METALS = {
    ("CYS", "SG", "CYS-S"): {"ZN": 2.31, "FE": 2.30, "FE2": 2.30, "CU": 2.15, "CU1": 2.15, "HG": 2.35,
                         "CD": 2.52, "NI": 2.20},
    ("HIS", "NE2", "HIS-NE"): {"ZN": 2.03, "FE": 2.08, "FE2": 2.08, "CU": 2.02, "CU1": 2.00, "NI": 2.10,
                           "CO": 2.14, "MN": 2.21},
    ("HIS", "ND1", "HIS-ND"): {"ZN": 2.03, "FE": 2.08, "FE2": 2.08, "CU": 2.02, "CU1": 2.00, "NI": 2.10,
                           "CO": 2.14, "MN": 2.21},
    ("ASP", "OD1", ""): {"ZN": 1.99, "CA": 2.36, "MG": 2.07, "MN": 2.15, "FE": 2.04, "NA": 2.41},
    ("ASP", "OD2", ""): {"ZN": 1.99, "CA": 2.36, "MG": 2.07, "MN": 2.15, "FE": 2.04, "NA": 2.41},
    ("GLU", "OE1", ""): {"ZN": 1.99, "CA": 2.36, "MG": 2.07, "MN": 2.15, "FE": 2.04, "NA": 2.41},
    ("GLU", "OE2", ""): {"ZN": 1.99, "CA": 2.36, "MG": 2.07, "MN": 2.15, "FE": 2.04, "NA": 2.41},
    ("MET", "SD", ""): {"CU": 2.60, "CU1": 2.60},
    ("HOH", "O", ""): {"ZN": 2.09, "CA": 2.39, "MG": 2.07, "MN": 2.19, "NA": 2.41, "FE": 2.09},
}  # fmt: skip
_SIGMA_METAL = 0.06
_ATOM = {"CU1": "CU", "FE2": "FE"}
for (_comp, _name, _mod), _metals in _METALS.items():
    for _metal, _length in _metals.items():
        _bond = {(1, _name, 2, _ATOM.get(_metal, _metal)): (_length, _SIGMA_METAL)}
        LINKS[f"{_comp}-{_name}-{_metal}"] = (((_comp, _mod, ""), (_metal, "", "")), _bond, {}, ())
_CLUSTERS = {"SF4": ("FE1", "FE2", "FE3", "FE4"), "F3S": ("FE1", "FE3", "FE4"), "FES": ("FE1", "FE2")}
for _cluster, _irons in _CLUSTERS.items():
    for _iron in _irons:
        LINKS[f"CYS-{_cluster}-{_iron}"] = ((("CYS", "CYS-S", ""), (_cluster, "", "")), {
            (1, "SG", 2, _iron): (2.29, 0.04), (1, "CB", 1, "SG", 2, _iron): (104.0, 6.0)}, {}, ())  # fmt: skip
for _heme in ("HEM", "HEC"):
    for _comp, _site, _mod, _bond in (
        ("HIS", "NE2", "HIS-NE", (2.05, 0.07)), ("HIS", "ND1", "HIS-ND", (2.05, 0.07)),
        ("MET", "SD", "", (2.33, 0.05)), ("CYS", "SG", "CYS-S", (2.30, 0.06)),
    ):  # fmt: skip
        LINKS[f"{_comp}-{_site}-{_heme}"] = (
            ((_comp, _mod, ""), (_heme, "", "")),
            {(1, _site, 2, "FE"): _bond},
            {},
            (),
        )
MODIFICATIONS |= chain_ends.MODIFICATIONS
LINKS |= chain_ends.LINKS
