"""Rigid groups: U of a body that shakes, a Wishart prior, and a simulated motion that comes back."""

from dataclasses import replace

import gemmi
import numpy as np
import pytest
import torch
from bayesref.models import refine_anisotropic as page
from scipy import stats

from bayesref._checks import InputError
from bayesref.crystal.atoms import B_PER_U, symmetric
from bayesref.refinement.adp import Displacements
from bayesref.refinement.atomic_model import AtomicModel
from bayesref.refinement.curvature import Factor, precision
from bayesref.refinement.point_estimate import fit_globals, start
from bayesref.refinement.refine import mean_intensity, refine
from bayesref.refinement.simulate import RefineOptions, simulate_refine
from bayesref.refinement.target import Target
from bayesref.refinement.tls import RigidMotion, groups_of
from bayesref.refinement.tls_step import bordered, borders
from bayesref.restraints.restraints import build_restraints
from bayesref.results.refined_structure import write_model

OPTIONS = RefineOptions(dmin=1.9, error=0.02, noise=0.03, free_fraction=0.1)
HALVES = ("A/1-4", "A/5-8")


@pytest.fixture(scope="module")
def shaking(molecules):
    """(crystal, groups, parameters): two halves, the second of which librates more."""
    crystal, _ = molecules
    groups = groups_of(crystal, HALVES)
    g = torch.Generator().manual_seed(5)
    p = groups.start + torch.cat([torch.zeros(2, 6), 0.8 * torch.randn(2, 15, generator=g)], 1).double()
    p[1, 3:6] += 0.4
    own = Displacements("tls", 6 + 0.1 * crystal.B, torch.zeros(0, 5).double(), groups)
    return own.apply(crystal, own.B, None, p), groups, p


def test_U_is_the_covariance_of_what_the_body_does(shaking):
    crystal, groups, p = shaking
    C = groups.covariance(p)
    U = symmetric(groups.U(p))
    draws = torch.distributions.MultivariateNormal(torch.zeros(6).double(), C[1]).sample((40000,))
    atom = 30
    assert int(groups.index[atom]) == 1
    arm = crystal.xyz[atom] - crystal.xyz[groups.index == 1].mean(0)
    u = draws[:, :3] + torch.linalg.cross(draws[:, 3:], arm.expand(40000, 3))
    assert float((torch.cov(u.T) - U[atom]).norm() / U[atom].norm()) < 0.03
    assert (torch.linalg.eigvalsh(U) > 0).all()


def test_tensors_give_the_same_U_by_the_textbook(shaking):
    """U_11 = T_11 + L_22 z² + L_33 y² - 2 L_23 yz + 2 S_21 z - 2 S_31 y, and U_12 of Schomaker & Trueblood."""
    crystal, groups, p = shaking
    t = groups.tensors(p)
    radian = np.pi / 180
    for atom in (3, 40):
        k = int(groups.index[atom])
        x, y, z = (crystal.xyz[atom] - groups.centre[k]).tolist()
        T, L, S = t["T"][k], t["L"][k] * radian**2, t["S"][k] * radian
        U11 = (
            T[0, 0]
            + L[1, 1] * z**2
            + L[2, 2] * y**2
            - 2 * L[1, 2] * y * z
            + 2 * S[1, 0] * z
            - 2 * S[2, 0] * y
        )
        U12 = (
            T[0, 1] - L[2, 2] * x * y + L[1, 2] * x * z + L[0, 2] * y * z - L[0, 1] * z**2
            + (S[1, 1] - S[0, 0]) * z + S[2, 0] * x - S[2, 1] * y
        )  # fmt: skip
        U = groups.U(p)[atom]
        assert float(U[0]) == pytest.approx(float(U11), abs=1e-9)
        assert float(U[3]) == pytest.approx(float(U12), abs=1e-9)
        assert float(S.trace()) == pytest.approx(0, abs=1e-12)


def test_the_prior_is_a_wishart_distribution(shaking):
    _, groups, p = shaking
    prior = RigidMotion(groups.start[:1])
    scale = np.diag(groups.spread[0].numpy() ** 2) / 6

    def log_wishart(q):
        C = groups.covariance(torch.cat([q[None], p[1:]]))[0].numpy()
        return stats.wishart(6, scale).logpdf(C)

    def log_jacobian(q):
        rows, columns = np.tril_indices(6)

        def lower(x):
            return groups.covariance(torch.cat([x[None], p[1:]]))[0][rows, columns]

        J = torch.autograd.functional.jacobian(lower, q)
        return float(torch.linalg.slogdet(J)[1])

    for q in p:
        assert float(prior.log_prob(q[None])) == pytest.approx(log_wishart(q) + log_jacobian(q), abs=1e-8)
    torch.manual_seed(0)
    mean = groups.covariance(RigidMotion(groups.start).sample((4000,))).mean(0)[0]
    np.testing.assert_allclose(mean.diagonal().numpy() / (6 * scale.diagonal()), 1, atol=0.1)


def test_groups():
    import small_molecule

    crystal = small_molecule.crystal([(5, 5, 5), (9, 9, 9)], cell=(40, 40, 40, 90, 90, 90), spacegroup="P 1")
    assert groups_of(crystal).name == ("A",)
    assert (groups_of(crystal).index == 0).all()
    with pytest.raises(InputError, match="at least 10"):
        groups_of(crystal, ["A/1"])
    with pytest.raises(InputError, match="no atom"):
        groups_of(crystal, ["B"])
    with pytest.raises(InputError, match="two TLS groups"):
        groups_of(crystal, ["A/1-2", "A"])
    with pytest.raises(InputError, match=r"such as A/1-50"):
        groups_of(crystal, ["A/one"])


def test_the_bordered_step_solves_the_whole_system(shaking, molecules):
    truth, groups, _ = shaking
    data = simulate_refine(truth, OPTIONS)
    d = Displacements.of(truth, "tls", groups)
    restraints = build_restraints(truth, molecules[1])
    atoms = AtomicModel.of(truth, restraints, [], data, mean_intensity(data), displacements=d)
    target = Target.of(page.model, data, atoms)
    z = fit_globals(target, start(target))
    P = precision(target, z, 0.0)
    C, Q = borders(target, z)
    whole = np.block([[P.toarray(), C], [C.T, Q]])
    g = np.random.default_rng(0).standard_normal(len(whole))
    np.testing.assert_allclose(whole @ bordered(target, z, Factor(P))(g), g, atol=1e-6)
    # Q against differences of the exact slope, on average: rows of the diagonal of L and T
    site = target.latents.sites["tls"].where
    exact = []
    for k in range(6):
        e = torch.zeros_like(z)
        e[site.start + k] = 2e-2
        up, down = (target.value_and_grad(z + s * e, ["tls"])[1] for s in (1, -1))
        exact.append(float((down - up)[site.start + k]) / 4e-2)
    assert np.trace(Q[:6, :6]) == pytest.approx(sum(exact), rel=0.5)


@pytest.fixture(scope="module")
def fit(shaking, molecules):
    truth = shaking[0]
    begin = replace(truth, U=None, anisotropic=torch.zeros(48, dtype=torch.bool))
    data = simulate_refine(truth, OPTIONS, seed=2)
    notes = []
    return refine(begin, data, molecules[1], adp="tls", tls_groups=HALVES, cycles=3, note=notes.append), notes


def test_a_simulated_motion_comes_back(shaking, fit):
    truth, _, p = shaking
    found, notes = fit
    score = (found.crystal.U - truth.U) / found.esd["U"]
    assert 0.75 < float((score.abs() < 1.645).double().mean()) <= 1
    error = (found.crystal.U - truth.U).norm()
    mean = truth.U[:, :3].mean(1)
    sphere = torch.stack([mean, mean, mean, 0 * mean, 0 * mean, 0 * mean], 1)
    assert float(error) < 0.35 * float((truth.U - sphere).norm())
    mine, true = (found.atoms.displacements.groups.tensors(x) for x in (found.values["tls"], p))
    draws = found.atoms.displacements.groups.tensors(found.sites(200)["tls"])
    z = torch.cat([((mine[k] - true[k]) / draws[k].std(0).clamp(min=1e-6)).flatten() for k in ("L", "S")])
    assert float((z.abs() < 2.5).double().mean()) > 0.8
    assert any("A/1-4, A/5-8" in n for n in notes)


def test_groups_and_displacements_are_written_with_their_esds(fit, tmp_path):
    found, _ = fit
    write_model(found, tmp_path / "out.cif")
    block = gemmi.cif.read(str(tmp_path / "out.cif")).sole_block()
    tls = block.find("_pdbx_refine_tls.", ["id", "T[1][1]", "T[1][1]_esd", "L[2][3]", "S[3][1]", "origin_x"])
    t = found.atoms.displacements.groups.tensors(found.values["tls"])
    assert len(tls) == 2
    for k, row in enumerate(tls):
        numbers = [float(x) for x in list(row)[1:]]
        assert numbers[0] == pytest.approx(float(t["T"][k, 0, 0]), abs=1e-5)
        assert numbers[1] > 0
        assert numbers[2] == pytest.approx(float(t["L"][k, 1, 2]), abs=1e-5)
        assert numbers[3] == pytest.approx(float(t["S"][k, 2, 0]), abs=1e-5)
    details = [r[0] for r in block.find(["_pdbx_refine_tls_group.selection_details"])]
    assert [gemmi.cif.as_string(d) for d in details] == list(HALVES)
    U = block.find("_atom_site_anisotrop.", ["U[1][1]", "U[1][1]_esd", "U[2][3]_esd"])
    assert len(U) == 48
    assert float(U[7][0]) == pytest.approx(float(found.crystal.U[7, 0]), abs=1e-4)
    assert float(U[7][1]) == pytest.approx(float(found.esd["U"][7, 0]), abs=1e-4)
    B = block.find(["_atom_site.B_iso_or_equiv"])
    assert float(B[7][0]) == pytest.approx(float(found.crystal.U[7, :3].mean()) * B_PER_U, abs=0.01)
