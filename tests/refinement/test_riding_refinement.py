"""Hydrogens that ride: they scatter, they touch, and their parents feel it."""

from dataclasses import replace

import gemmi
import numpy as np
import pytest
import small_molecule
import torch
from bayesref.models import refine as page

from bayesref._checks import InputError
from bayesref.refinement.atomic_model import AtomicModel
from bayesref.refinement.hydrogens import RATIO, RidingHydrogens, without_hydrogens
from bayesref.refinement.point_estimate import start
from bayesref.refinement.refine import mean_intensity, refine
from bayesref.refinement.simulate import RefineOptions, simulate_refine
from bayesref.refinement.target import Target
from bayesref.restraints.restraints import build_restraints
from bayesref.structure_factors.calculate import structure_factors

OPTIONS = RefineOptions(dmin=1.3, error=0.01, noise=0.02, free_fraction=0.15)


@pytest.fixture(scope="module")
def library():
    """XAL with hydrogens on CA and CB."""
    text = small_molecule.DICTIONARY.format(sign="negativ")
    names = {"HA": "CA", "HB1": "CB", "HB2": "CB", "HB3": "CB"}
    atoms = "".join(f"XAL {h} H H 0\n" for h in names)
    bonds = "".join(f"XAL {p} {h} single 0.98 0.02\n" for h, p in names.items())
    angles = "".join(f"XAL HA CA {a} 108.5 1.5\n" for a in ("N", "CB", "C"))
    angles += "".join(f"XAL {h} CB CA 109.5 1.5\n" for h in ("HB1", "HB2", "HB3"))
    angles += "XAL HB1 CB HB2 109.5 1.5\nXAL HB1 CB HB3 109.5 1.5\nXAL HB2 CB HB3 109.5 1.5\n"
    torsion = "XAL turn HB1 CB CA N 60.0 10.0 3\n"
    text = text.replace("XAL CB C CH3 0\n", f"XAL CB C CH3 0\n{atoms}")
    text = text.replace("XAL CA CB single", f"{bonds}XAL CA CB single")
    text = text.replace("XAL N CA CB 109.5 1.5\n", f"XAL N CA CB 109.5 1.5\n{angles}")
    text = text.replace("XAL flat", f"{torsion}XAL flat")
    library = gemmi.MonLib()
    library.read_monomer_doc(gemmi.cif.read_string(text))
    return library


@pytest.fixture(scope="module")
def hydrogenated(molecules, library):
    """(crystal without hydrogens, all that scatters): methyl hydrogens are where the dictionary puts them."""
    crystal = molecules[0]
    return crystal, RidingHydrogens.of(crystal, library).crystal(crystal)


def target_of(crystal, library, contacts, data):
    riding = RidingHydrogens.of(crystal, library, contacts=contacts)
    restraints = build_restraints(crystal, library)
    atoms = AtomicModel.of(crystal, restraints, [], data, mean_intensity(data), 1e-5, hydrogens=riding)
    return Target.of(page.model, data, atoms)


def test_they_scatter_with_what_their_parents_have(hydrogenated, library):
    crystal, full = hydrogenated
    data = simulate_refine(full, OPTIONS)
    target = target_of(crystal, library, False, data)
    assert len(target.atoms.hydrogens) == 4 * 8
    w = torch.zeros(0, dtype=torch.float64)
    F = target.atoms.F_atoms(crystal.xyz, crystal.B, w)
    truth = structure_factors(full, data.asu.hkl, method="direct")
    assert float((F - truth).norm() / truth.norm()) < 1e-5
    parent = full.name.index("A/XAL 1/CA")
    child = full.name.index("A/XAL 1/HA")
    assert float(full.B[child] / full.B[parent]) == pytest.approx(RATIO)


@pytest.mark.parametrize("contacts", [False, True])
def test_slopes_reach_the_parents(hydrogenated, library, contacts):
    crystal, full = hydrogenated
    target = target_of(crystal, library, contacts, simulate_refine(full, OPTIONS))
    g = torch.Generator().manual_seed(0)
    z = start(target)
    z = z + 0.05 * torch.randn(len(z), generator=g, dtype=z.dtype)
    _, grad = target.value_and_grad(z)
    for name in ("xyz", "B"):
        site = target.latents.sites[name]
        v = torch.zeros_like(z)
        v[site.where] = torch.randn(site.where.stop - site.where.start, generator=g, dtype=z.dtype)
        h = 1e-4 / float(v.norm())
        up, down = (target.value_and_grad(z + s * h * v)[0] for s in (1, -1))
        size = float(grad[site.where].norm() * v.norm())
        assert float(grad @ v) == pytest.approx((up - down) / (2 * h), abs=2e-3 * size + 1e-3), name


def test_contacts_have_a_hessian_of_their_own(library):
    """Two molecules so close that their methyl groups touch: exact second differences along the parents."""
    crystal = small_molecule.crystal(
        [(5, 5, 5), (5.2, 8.0, 5.4)], cell=(40, 40, 40, 90, 90, 90), spacegroup="P 1"
    )
    riding = RidingHydrogens.of(crystal, library, contacts=True)
    pairs = riding.touch.nonbonded.atoms
    assert torch.isin(pairs, riding.riding.hydrogen).any(1).all()

    def energy(x):
        return -float(riding.log_density(x, lambda y, r: r.log_prob(y)))

    apart = crystal.xyz + torch.tensor([0.0, 10, 0], dtype=torch.float64) * (torch.arange(12) >= 6)[:, None]
    assert energy(crystal.xyz) > energy(apart) + 1
    t = riding.touch.nonbonded

    def scores(x):
        y = riding.riding.place(x)
        d = (y[t.atoms[:, 0]] - y[t.atoms[:, 1]]).norm(dim=1)
        return (t.minimum - d).clamp(min=0) / t.sigma

    J = torch.autograd.functional.jacobian(scores, crystal.xyz).reshape(len(t), -1)
    np.testing.assert_allclose(riding.hessian(crystal.xyz.numpy()).toarray(), (J.T @ J).numpy(), atol=1e-9)


def test_they_explain_data_that_know_of_them(hydrogenated, library):
    crystal, full = hydrogenated
    data, notes = simulate_refine(full, OPTIONS, seed=2), []
    fits = {
        h: refine(full, data, library, hydrogens=h, cycles=4, note=notes.append)
        for h in ("riding", "none", "keep")
    }
    R = {h: p.history[-1]["R_free"] for h, p in fits.items()}
    assert R["riding"] < 0.75 * R["none"]
    assert len(fits["riding"].crystal) == len(crystal) == len(fits["none"].crystal)
    assert len(fits["keep"].crystal) == len(full)
    assert "The model's 32 hydrogens were taken out." in notes
    assert "32 hydrogens ride on their parents." in notes
    assert "The model's 32 hydrogens are refined like other atoms." in notes
    with pytest.raises(InputError, match="riding, keep, none"):
        refine(full, data, library, hydrogens="some")


def test_a_model_with_hydrogens_has_none_that_ride(hydrogenated, library):
    _, full = hydrogenated
    with pytest.raises(InputError, match="hydrogens of its own"):
        RidingHydrogens.of(full, library)
    bare = without_hydrogens(full)
    assert len(bare) == 48
    assert bare.structure[0].count_atom_sites() == 48
    assert without_hydrogens(bare) is bare
    assert replace(bare, B=bare.B).name == hydrogenated[0].name
