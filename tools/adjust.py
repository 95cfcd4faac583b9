"""Where restraints of a lone molecule do not hold in a chain: our own values instead of AceDRG's.

Backbone: Engh & Huber (2001), International Tables for Crystallography F, table 18.3.2.3. AceDRG sees amino acids as
zwitterions, in which the angles at CA are others than between two peptide groups.
γ-Lactam (PCA), which AceDRG protonates: Allen et al. (1987), J. Chem. Soc. Perkin Trans. 2, S1, and Engh & Huber's
proline for the ring. HEC: the component has the vinyl carbons as sp²; in cytochromes a cysteine has added to them.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Change:
    """What is done to a component.

    values : bond or angle -> (Å or degrees, σ)
    without : atoms taken out
    not_planar : atoms taken out of planes
    turns : axes that lose their torsions
    types : atom -> CCP4 energy type
    plane : atoms of one more plane
    """

    values: dict[tuple[str, ...], tuple[float, float]]
    without: tuple[str, ...] = ()
    not_planar: tuple[str, ...] = ()
    turns: tuple[tuple[str, str], ...] = ()
    types: dict[str, str] = field(default_factory=dict)
    plane: tuple[str, ...] = ()


AMIDE_H = (0.863, 0.020)  # Å, electron cloud; AceDRG's of a secondary amide (NAG N2-HN2)
AMIDE_H_NUCLEUS = (1.013, 0.012)
CLOUD_SHIFT = 0.143  # Å, AceDRG's mean of aromatic C-H: 1.085 - 0.942

_N_CA_C, _C_CA_CB, _N_CA_CB = ("N", "CA", "C"), ("C", "CA", "CB"), ("N", "CA", "CB")
_GENERAL = {
    ("CA", "C"): (1.525, 0.026), ("CA", "CB"): (1.535, 0.022),
    _N_CA_C: (111.0, 2.7), _C_CA_CB: (110.4, 2.0), _N_CA_CB: (110.6, 1.8),
}  # fmt: skip
_BACKBONE = {
    "GLY": {("CA", "C"): (1.514, 0.016), _N_CA_C: (113.1, 2.5)},
    "ALA": {("CA", "CB"): (1.520, 0.021), _C_CA_CB: (110.1, 1.5), _N_CA_CB: (110.1, 1.4)},
    "ILE": {("CA", "CB"): (1.544, 0.023), _C_CA_CB: (111.6, 2.0), _N_CA_CB: (110.8, 2.3)},
    "THR": {("CA", "CB"): (1.529, 0.026), _C_CA_CB: (111.6, 2.7), _N_CA_CB: (110.3, 1.9)},
    "VAL": {("CA", "CB"): (1.543, 0.021), _C_CA_CB: (111.4, 1.9), _N_CA_CB: (111.5, 2.2)},
    "PRO": {("CA", "C"): (1.524, 0.020), ("CA", "CB"): (1.531, 0.020), _N_CA_C: (112.1, 2.6),
            _C_CA_CB: (111.7, 2.1), _N_CA_CB: (103.3, 1.2)},
}  # fmt: skip
# a phosphothreonine has the backbone of threonine, hydroxyproline that of proline
_LIKE = {"TPO": "THR", "HYP": "PRO", "PCA": "PRO"}

_PCA = {
    ("N", "CD"): (1.335, 0.02), ("N", "CA"): (1.460, 0.02), ("CD", "OE"): (1.232, 0.02), ("CD", "CG"): (1.510, 0.02),
    ("N", "H"): AMIDE_H,
    ("CA", "N", "CD"): (114.0, 2.0), ("N", "CD", "OE"): (125.5, 2.0), ("N", "CD", "CG"): (108.3, 2.0),
    ("OE", "CD", "CG"): (126.2, 2.0), ("CA", "N", "H"): (123.0, 3.0), ("CD", "N", "H"): (123.0, 3.0),
}  # fmt: skip
_HEC = {
    **{("C3" + ring, "CA" + ring): (1.500, 0.02) for ring in "BC"},
    **{("CA" + ring, "CB" + ring): (1.525, 0.02) for ring in "BC"},
    **{("C3" + ring, "CA" + ring, "CB" + ring): (112.6, 3.0) for ring in "BC"},
    **{("C3" + ring, "CA" + ring, "HA" + ring): (108.0, 3.0) for ring in "BC"},
    **{("CB" + ring, "CA" + ring, "HA" + ring): (108.0, 3.0) for ring in "BC"},
}


def change_of(name: str, group: str) -> Change:
    """What is changed in a component."""
    if name == "HEC":
        turns = (("C3B", "CAB"), ("C3C", "CAC"))
        types = {"CAB": "CH1", "CAC": "CH1"}
        return Change(_HEC, not_planar=("CBB", "HAB", "CBC", "HAC"), turns=turns, types=types)
    if "peptide" not in group:
        return Change({})
    values = _GENERAL | _BACKBONE.get(_LIKE.get(name, name), {})
    if name == "PCA":
        plane = ("N", "CA", "CD", "CG", "OE", "H")
        return Change(
            values | _PCA, ("H2",), turns=(("N", "CD"), ("N", "CA")), types={"N": "NH1"}, plane=plane
        )
    return Change(values)


def keep_row(change: Change, category: str, row: dict[str, str]) -> bool:
    """Whether a restraint stays."""
    atoms = [row[t] for t in row if t.startswith("atom_id")]
    if set(atoms) & set(change.without):
        return False
    if category == "chem_comp_plane_atom":
        return row["atom_id"] not in change.not_planar
    if category == "chem_comp_tor":
        return not any(set(axis) == {row["atom_id_2"], row["atom_id_3"]} for axis in change.turns)
    return True


def adjusted(change: Change, category: str, row: dict[str, str]) -> dict[str, str]:
    """A row of AceDRG's table with our values in place."""
    if category == "chem_comp_atom" and row["atom_id"] in change.types:
        return row | {"type_energy": change.types[row["atom_id"]], "charge": "0"}
    atoms = tuple(row[t] for t in row if t.startswith("atom_id_"))
    new = change.values.get(atoms) or change.values.get(atoms[::-1])
    if category == "chem_comp_bond" and new:
        value, sigma = f"{new[0]:.3f}", f"{new[1]:.3f}"
        row = row | {"value_dist": value, "value_dist_esd": sigma}
        far = AMIDE_H_NUCLEUS if new == AMIDE_H else new
        return row | {"value_dist_nucleus": f"{far[0]:.3f}", "value_dist_nucleus_esd": f"{far[1]:.3f}"}
    if category == "chem_comp_bond" and float(row["value_dist"]) > float(row["value_dist_nucleus"]):
        # C9-H9 of flavins; electrons lie nearer than the nucleus, as those of other aromatic C-H
        return row | {"value_dist": f"{float(row['value_dist_nucleus']) - CLOUD_SHIFT:.3f}"}
    if category == "chem_comp_angle" and new:
        return row | {"value_angle": f"{new[0]:.3f}", "value_angle_esd": f"{new[1]:.3f}"}
    return row
