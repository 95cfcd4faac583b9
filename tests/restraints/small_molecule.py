"""A molecule with every kind of restraint (an alanine-like zwitterion, XAL), and crystals of it."""

import gemmi
import numpy as np

from bayesref.crystal.atoms import crystal_from_gemmi

DICTIONARY = """
data_comp_list
loop_
_chem_comp.id
_chem_comp.three_letter_code
_chem_comp.name
_chem_comp.group
_chem_comp.number_atoms_all
_chem_comp.number_atoms_nh
_chem_comp.desc_level
XAL XAL test NON-POLYMER 6 6 .
data_comp_XAL
loop_
_chem_comp_atom.comp_id
_chem_comp_atom.atom_id
_chem_comp_atom.type_symbol
_chem_comp_atom.type_energy
_chem_comp_atom.charge
XAL N N NT3 1
XAL CA C CH1 0
XAL CB C CH3 0
XAL C C C 0
XAL O O O 0
XAL OXT O OC -1
loop_
_chem_comp_bond.comp_id
_chem_comp_bond.atom_id_1
_chem_comp_bond.atom_id_2
_chem_comp_bond.type
_chem_comp_bond.value_dist
_chem_comp_bond.value_dist_esd
XAL N CA single 1.48 0.011
XAL CA CB single 1.52 0.012
XAL CA C single 1.53 0.013
XAL C O deloc 1.25 0.014
XAL C OXT deloc 1.25 0.015
loop_
_chem_comp_angle.comp_id
_chem_comp_angle.atom_id_1
_chem_comp_angle.atom_id_2
_chem_comp_angle.atom_id_3
_chem_comp_angle.value_angle
_chem_comp_angle.value_angle_esd
XAL N CA CB 109.5 1.5
XAL N CA C 109.0 1.6
XAL CB CA C 111.5 1.7
XAL CA C O 117.2 1.8
XAL CA C OXT 117.3 1.9
XAL O C OXT 125.5 2.0
loop_
_chem_comp_tor.comp_id
_chem_comp_tor.id
_chem_comp_tor.atom_id_1
_chem_comp_tor.atom_id_2
_chem_comp_tor.atom_id_3
_chem_comp_tor.atom_id_4
_chem_comp_tor.value_angle
_chem_comp_tor.value_angle_esd
_chem_comp_tor.period
XAL tor1 N CA C O 150.0 20.0 2
XAL flat N CA C OXT 0.0 0.0 1
loop_
_chem_comp_chir.comp_id
_chem_comp_chir.id
_chem_comp_chir.atom_id_centre
_chem_comp_chir.atom_id_1
_chem_comp_chir.atom_id_2
_chem_comp_chir.atom_id_3
_chem_comp_chir.volume_sign
XAL chir_1 CA N CB C {sign}
loop_
_chem_comp_plane_atom.comp_id
_chem_comp_plane_atom.plane_id
_chem_comp_plane_atom.atom_id
_chem_comp_plane_atom.dist_esd
XAL plan-1 C 0.02
XAL plan-1 CA 0.02
XAL plan-1 O 0.02
XAL plan-1 OXT 0.02
"""
NAMES = ("N", "CA", "CB", "C", "O", "OXT")
XYZ = np.array(
    [
        [1.46, 0.05, 0.02],
        [0.0, 0.0, 0.0],
        [-0.55, 1.41, 0.12],
        [-0.52, -0.71, -1.26],
        [0.20, -1.62, -1.74],
        [-1.63, -0.36, -1.72],
    ]
)


def dictionary(sign: str = "negativ") -> gemmi.MonLib:
    """The library that describes XAL; `sign` of its chiral volume."""
    monlib = gemmi.MonLib()
    monlib.read_monomer_doc(gemmi.cif.read_string(DICTIONARY.format(sign=sign)))
    return monlib


def structure(places, cell=(20, 21, 22, 90, 100, 90), spacegroup="P 1 21 1", conformers=("",)):
    """Copies of XAL with the nitrogen-side origin at `places`, its N and CB in these conformers (0.4 Å apart)."""
    st = gemmi.Structure()
    st.cell = gemmi.UnitCell(*cell)
    st.spacegroup_hm = spacegroup
    model, chain = gemmi.Model(1), gemmi.Chain("A")
    for number, place in enumerate(places):
        residue = gemmi.Residue()
        residue.name, residue.seqid, residue.het_flag = "XAL", gemmi.SeqId(number + 1, " "), "H"
        for name, x in zip(NAMES, XYZ, strict=True):
            for k, letter in enumerate(conformers if name in ("CB", "N") else ("",)):
                atom = gemmi.Atom()
                atom.name, atom.element = name, gemmi.Element(name[0])
                atom.pos = gemmi.Position(*(x + place + np.array([0, 0.4 * k, 0])))
                atom.b_iso, atom.occ = 20.0, 1.0 / len(conformers) if letter else 1.0
                atom.altloc = letter or "\0"
                residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    st.add_model(model)
    st.setup_cell_images()
    return st


def crystal(places=((5, 5, 5),), **options):
    """The crystal of `structure`."""
    return crystal_from_gemmi(structure([np.array(p, dtype=float) for p in places], **options))
