"""Twin laws against the tables of merohedral twinning, and against what an operator must do to indices."""

import gemmi
import numpy as np
import pytest

from bayesref._checks import InputError
from bayesref.crystal import symmetry
from bayesref.crystal.twin_laws import twin_law, twin_laws

TETRAGONAL, HEXAGONAL = (60, 60, 80, 90, 90, 90), (60, 60, 80, 90, 90, 120)

# Chandra, Acharya & Moody (1999), Acta Cryst. D55, 1750: space groups and their merohedral laws
KNOWN = [
    ("P 43", TETRAGONAL, {"k,h,-l"}),
    ("I 4", TETRAGONAL, {"k,h,-l"}),
    ("P 3", HEXAGONAL, {"-h,-k,l", "k,h,-l", "-k,-h,-l"}),
    ("P 63", HEXAGONAL, {"k,h,-l"}),
    ("H 3", HEXAGONAL, {"k,h,-l"}),
    ("R 3:R", (60, 60, 60, 80, 80, 80), {"-h,-l,-k"}),
    ("P 31 2 1", HEXAGONAL, {"-h,-k,l"}),
    ("P 31 1 2", HEXAGONAL, {"-h,-k,l"}),
    ("P 2 3", (60, 60, 60, 90, 90, 90), {"k,h,-l"}),
    ("P 43 21 2", TETRAGONAL, set()),
    ("P 6 2 2", HEXAGONAL, set()),
    ("C 2", (60, 80, 40, 90, 105, 90), set()),
    ("P 21", (60, 80, 60.3, 90, 105, 90), {"l,-k,h"}),
    ("P 21", (60, 80, 50, 90, 90.2, 90), {"h,-k,-l"}),
    ("P 21 21 21", (60, 60.2, 80, 90, 90, 90), {"k,h,-l"}),
]


def pairing(law, spacegroup):
    """Which reflection each of many is paired with: the same for all operators of a coset."""
    hkl = np.random.default_rng(0).integers(-9, 10, (200, 3))
    hkl = hkl[~symmetry.is_absent(hkl, spacegroup)]
    return law.mates(hkl, spacegroup)[0]


@pytest.mark.parametrize(("group", "cell", "expected"), KNOWN)
def test_known_laws(group, cell, expected):
    spacegroup = gemmi.SpaceGroup(group)
    found = twin_laws(cell, group)
    assert len(found) == len(expected)
    theirs = [pairing(twin_law(x, cell, group), spacegroup) for x in expected]
    for law in found:
        assert sum(np.array_equal(pairing(law, spacegroup), x) for x in theirs) == 1


@pytest.mark.parametrize(("group", "cell", "expected"), [x for x in KNOWN if x[2]])
def test_laws_make_pairs_of_reflections_of_one_resolution(group, cell, expected):
    spacegroup, unit_cell = gemmi.SpaceGroup(group), gemmi.UnitCell(*cell)
    hkl = np.array(gemmi.make_miller_array(unit_cell, spacegroup, 6.0))
    hkl = symmetry.to_asu(hkl, spacegroup)[0]
    for law in twin_laws(cell, group):
        mate, absent = law.mates(hkl, spacegroup)
        back, _ = law.mates(mate, spacegroup)
        np.testing.assert_array_equal(back, hkl)
        assert (mate != hkl).any()
        d, d_mate = (unit_cell.calculate_d_array(x) for x in (hkl, mate))
        np.testing.assert_allclose(d_mate / d, 1, atol=1e-9 if law.merohedral else 0.02)
        same = symmetry.epsilon(hkl, spacegroup) == symmetry.epsilon(mate, spacegroup)
        assert same[~absent].all()
        np.testing.assert_array_equal(
            symmetry.is_centric(hkl, spacegroup), symmetry.is_centric(mate, spacegroup)
        )


def test_misfit_is_the_obliquity_of_a_twofold():
    (law,) = twin_laws((60, 80, 50, 90, 90.2, 90), "P 21")
    assert law.misfit == pytest.approx(0.2, rel=0.01)
    (exact,) = twin_laws(TETRAGONAL, "P 43")
    assert exact.merohedral
    assert not law.merohedral


def test_obliquity_limits_the_list():
    cell = (60, 80, 50, 90, 91.5, 90)
    assert len(twin_laws(cell, "P 21")) == 1
    assert twin_laws(cell, "P 21", max_obliquity=1.0) == []


def test_screw_axis_may_forbid_a_mate():
    law = twin_law("k,h,-l", (60, 60, 80, 90, 90, 90), "P 2 21 21")
    mate, absent = law.mates([[3, 0, 0], [2, 0, 0], [1, 2, 3]], gemmi.SpaceGroup("P 2 21 21"))
    np.testing.assert_array_equal(absent, [True, False, False])
    np.testing.assert_array_equal(mate[2], [2, 1, 3])


@pytest.mark.parametrize(
    ("operator", "says"),
    [
        ("hello", "no twin operator"), ("-h,-k,l", "symmetry of P 43 itself"), ("l,h,k", "misses the lattice"),
        ("h+k,k,l", "misses the lattice"), ("h/2,k,l", "whole indices"),
    ],
)  # fmt: skip
def test_bad_operators(operator, says):
    with pytest.raises(InputError, match=says):
        twin_law(operator, TETRAGONAL, "P 43")


def test_improper_operator_is_that_of_friedel_mates():
    improper, proper = (twin_law(x, TETRAGONAL, "P 43") for x in ("k,h,l", "-k,-h,-l"))
    np.testing.assert_array_equal(improper.rotation, proper.rotation)


def test_law_of_three_domains_is_refused():
    with pytest.raises(InputError, match="more than two domains"):
        twin_law("k,l,h", (60, 60, 60, 90, 90, 90), "P 21 21 21")
