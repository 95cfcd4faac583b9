"""Links of residues in a chain whose atoms have other names, or that end it: chromophores, caps, c-type heme, sugar.

Chromophores of fluorescent proteins are three residues in one: N1 and CA1 of the first, CA3, C3 and O3 of the last.
Their bonds to the chain have the peptide's values (Engh & Huber 2001), the end CA3 those of glycine. Thioether of
heme c: C-S 1.81 Å; N-glycoside: C-N 1.44 Å (Allen et al. 1987, J. Chem. Soc. Perkin Trans. 2, S1).
"""

from adjust import AMIDE_H

CHROMOPHORES = ("CRO", "CR2", "CRQ", "GYS", "OHD")
# standard name of the peptide group -> name in the component
ALIASES = {name: {"N": "N1", "C": "C3", "O": "O3"} for name in CHROMOPHORES}

MODIFICATIONS = {
    "ACE-C": ("ACE", {
        ("C", "O"): (1.229, 0.019), ("C", "CH3"): (1.503, 0.020), ("O", "C", "CH3"): (121.0, 2.0)}, ("H",)),
    "NH2-N": ("NH2", {}, ("H3",)),
    "ASN-N": ("ASN", {}, ("HD22",)),
    "NAG-C1": ("NAG", {}, ("O1", "HO1")),
}  # fmt: skip
LINKS = {
    "ACE-PEP": ((("ACE", "ACE-C", ""), ("", "DEL-HN1", "peptide")), {
        (1, "C", 2, "N"): (1.336, 0.023), (1, "CH3", 1, "C", 2, "N"): (116.5, 2.0),
        (1, "O", 1, "C", 2, "N"): (122.7, 1.6), (1, "C", 2, "N", 2, "CA"): (121.7, 2.5),
        (1, "C", 2, "N", 2, "H"): (119.3, 3.0),
    }, {"omega": ((1, "CH3"), (1, "C"), (2, "N"), (2, "CA"), 180.0, 6.0, 0)},
        (((1, "CH3"), (1, "C"), (1, "O"), (2, "N")), ((1, "C"), (2, "N"), (2, "CA"), (2, "H")))),
    "PEP-NH2": ((("", "DEL-OXT", "peptide"), ("NH2", "NH2-N", "")), {
        (1, "C", 2, "N"): (1.325, 0.020), (1, "CA", 1, "C", 2, "N"): (116.4, 2.0),
        (1, "O", 1, "C", 2, "N"): (122.9, 2.0), (1, "C", 2, "N", 2, "HN1"): (119.9, 3.0),
        (1, "C", 2, "N", 2, "HN2"): (119.9, 3.0),
    }, {}, (((1, "CA"), (1, "C"), (1, "O"), (2, "N")),)),
    "ASN-NAG": ((("ASN", "ASN-N", ""), ("NAG", "NAG-C1", "")), {
        (1, "ND2", 2, "C1"): (1.439, 0.020), (1, "CG", 1, "ND2", 2, "C1"): (123.0, 3.0),
        (1, "ND2", 2, "C1", 2, "C2"): (111.0, 3.0), (1, "ND2", 2, "C1", 2, "O5"): (107.0, 3.0),
    }, {}, ()),
}  # fmt: skip

for _ring in "BC":
    LINKS[f"CYS-HEC-CA{_ring}"] = ((("CYS", "CYS-S", ""), ("HEC", "", "")), {
        (1, "SG", 2, f"CA{_ring}"): (1.81, 0.02),
        (1, "CB", 1, "SG", 2, f"CA{_ring}"): (102.0, 3.0),
        (1, "SG", 2, f"CA{_ring}", 2, f"C3{_ring}"): (110.0, 3.0),
        (1, "SG", 2, f"CA{_ring}", 2, f"CB{_ring}"): (110.0, 3.0),
    }, {}, ())  # fmt: skip


def _to_chromophore(name: str):
    """Peptide before a chromophore; ω either way, since some are cis."""
    # the acyl imine of CRQ has no hydrogen at N1
    side = (name, f"{name}-N1", "")
    values = {
        (1, "C", 2, "N1"): (1.336, 0.023), (1, "CA", 1, "C", 2, "N1"): (117.2, 2.2),
        (1, "O", 1, "C", 2, "N1"): (122.7, 1.6), (1, "C", 2, "N1", 2, "CA1"): (121.7, 2.5),
    }  # fmt: skip
    planes = [((1, "CA"), (1, "C"), (1, "O"), (2, "N1"))]
    if name == "CRQ":
        values[(1, "C", 2, "N1")] = (1.40, 0.03)  # conjugated C-N=C, Allen et al. (1987)
        values[(1, "C", 2, "N1", 2, "CA1")] = (121.0, 4.0)
        return (("", "DEL-OXT", "peptide"), side), values, {}, tuple(planes)
    values[(1, "C", 2, "N1", 2, "H")] = (119.3, 3.0)
    planes.append(((1, "C"), (2, "N1"), (2, "CA1"), (2, "H")))
    omega = {"omega": ((1, "CA"), (1, "C"), (2, "N1"), (2, "CA1"), 180.0, 6.0, 2)}
    return (("", "DEL-OXT", "peptide"), side), values, omega, tuple(planes)


def _from_chromophore(name: str, group: str):
    """Peptide after a chromophore."""
    values = {
        (1, "C3", 2, "N"): (1.336, 0.023), (1, "CA3", 1, "C3", 2, "N"): (117.2, 2.2),
        (1, "O3", 1, "C3", 2, "N"): (122.7, 1.6), (1, "C3", 2, "N", 2, "CA"): (121.7, 2.5),
    }  # fmt: skip
    last = "CD" if group == "P-peptide" else "H"
    values[(1, "C3", 2, "N", 2, last)] = (125.0, 4.0) if last == "CD" else (119.3, 3.0)
    omega = {"omega": ((1, "CA3"), (1, "C3"), (2, "N"), (2, "CA"), 180.0, 6.0, 2)}
    planes = (((1, "CA3"), (1, "C3"), (1, "O3"), (2, "N")), ((1, "C3"), (2, "N"), (2, "CA"), (2, last)))
    mod = "DEL-HNP" if last == "CD" else "DEL-HN1"
    return ((name, f"{name}-C3", ""), ("", mod, group)), values, omega, planes


for _name in CHROMOPHORES:
    _imine = _name == "CRQ"
    _n1 = {} if _imine else {("N1", "CA1"): (1.459, 0.020), ("N1", "H"): AMIDE_H,
                             ("CA1", "N1", "H"): (118.7, 3.0)}  # fmt: skip
    MODIFICATIONS[f"{_name}-N1"] = (_name, _n1, ("H",) if _imine else ("H2",))
    MODIFICATIONS[f"{_name}-C3"] = (_name, {
        ("CA3", "C3"): (1.514, 0.016), ("C3", "O3"): (1.229, 0.019), ("CA3", "C3", "O3"): (120.6, 1.8),
    }, ("OXT",))  # fmt: skip
    LINKS[f"PEP-{_name}"] = _to_chromophore(_name)
    LINKS[f"{_name}-PEP"] = _from_chromophore(_name, "peptide")
    LINKS[f"{_name}-PRO"] = _from_chromophore(_name, "P-peptide")
