"""Terms of a rotation experiment: symmetry of the anisotropic B, curves of each file, the surface."""

from dataclasses import replace

import gemmi
import numpy as np
import pytest
import torch
from known_truth import simulated

import bayesref as br
from bayesref.scaling.physical import invariant_tensors

D = {"dtype": torch.float64}

# cell, group, tensors that the Laue symmetry leaves free, less the trace: Nye, Physical Properties of Crystals
SYSTEMS = [
    ((30, 40, 50, 80, 95, 105), "P 1", 5),
    ((30, 40, 50, 80, 95, 105), "P -1", 5),
    ((30, 40, 50, 90, 105, 90), "P 1 21 1", 3),
    ((30, 40, 50, 90, 105, 90), "C 1 2 1", 3),
    ((30, 40, 50, 90, 90, 90), "P 21 21 21", 2),
    ((40, 40, 50, 90, 90, 90), "P 41", 1),
    ((40, 40, 50, 90, 90, 90), "P 43 21 2", 1),
    ((66.9, 66.9, 40.96, 90, 90, 120), "P 63", 1),
    ((40, 40, 50, 90, 90, 120), "P 31 2 1", 1),
    ((40, 40, 50, 90, 90, 120), "R 3 :H", 1),
    ((40, 40, 40, 90, 90, 90), "P 21 3", 0),
    ((40, 40, 40, 90, 90, 90), "F 4 3 2", 0),
]


@pytest.mark.parametrize(("cell", "group", "n"), SYSTEMS, ids=[g for _, g, _ in SYSTEMS])
def test_invariant_tensors(cell, group, n):
    cell, group = gemmi.UnitCell(*cell), gemmi.SpaceGroup(group)
    T = invariant_tensors(cell, group).numpy()
    assert T.shape == (n, 3, 3)
    np.testing.assert_allclose(np.trace(T, axis1=1, axis2=2), 0, atol=1e-12)
    np.testing.assert_allclose(np.einsum("sij,tij->st", T, T), np.eye(n), atol=1e-12)
    np.testing.assert_allclose(T, T.transpose(0, 2, 1), atol=1e-12)
    # equivalent reflections must fall off alike
    hkl = np.array([[1, 2, 3], [4, -1, 2]])
    to_cartesian = np.array(cell.frac.mat.tolist())
    for op in group.operations().sym_ops:
        image = np.array([op.apply_to_hkl(h) for h in hkl.tolist()])
        q, r = hkl @ to_cartesian, image @ to_cartesian
        np.testing.assert_allclose(
            np.einsum("hi,tij,hj->th", q, T, q), np.einsum("hi,tij,hj->th", r, T, r), atol=1e-12
        )


def test_anisotropic_fall_off_is_that_of_gemmi():
    """exp(-2 sᵀ B s) of a B given as the tensor of the first weight, against gemmi's own r_u_r."""
    obs = simulated(cell=(30, 40, 35, 90, 105, 90), spacegroup="P 21", dmin=5, multiplicity=2, images=2).obs
    scale = br.Physical(obs)
    n = len(scale.tensors)
    assert scale.groups[-1].name == "anisotropic B"
    w = torch.zeros(scale.n_weights, **D)
    w[-n:] = torch.randn(n, **D)
    B = torch.einsum("t,tij->ij", w[-n:] * scale.groups[-1].sd, scale.tensors)
    u = gemmi.SMat33d(*(float(B[i, j]) for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))))
    want = []
    for h in obs.asu.hkl[obs.hkl_id].tolist():
        q = obs.asu.cell.frac.mat.transpose().multiply(gemmi.Vec3(*h))  # reciprocal vector, |q| = 1/d
        want.append(-2 * u.r_u_r(q) / 4)
    torch.testing.assert_close(scale(w, obs), torch.tensor(want, **D), rtol=1e-9, atol=1e-12)


def test_each_file_has_its_own_curve():
    obs = simulated(dmin=5, multiplicity=3, images=8).obs
    obs = replace(obs, file_id=(obs.image_id >= 4).long())
    scale = br.Physical(obs, n_image_bumps=4, anisotropic=False)
    w = torch.zeros(scale.n_weights, **D)
    w[:4] = 1.0  # k of the first file
    log_K = scale(w, obs)
    assert (log_K[obs.file_id == 0] > 0).all()
    assert (log_K[obs.file_id == 1] == 0).all()


def test_equivalent_images_of_two_files():
    """A curve runs from the first image of its own file to the last."""
    obs = simulated(dmin=5, multiplicity=3, images=8).obs
    obs = replace(obs, file_id=(obs.image_id >= 4).long())
    scale = br.Physical(obs, n_image_bumps=4, anisotropic=False)
    w = torch.randn(4, **D).repeat(2)
    log_K = scale(torch.cat([w, torch.zeros(8, **D)]), obs)
    of_image = torch.stack([log_K[obs.image_id == j][0] for j in range(8)])
    torch.testing.assert_close(of_image[:4], of_image[4:])


def test_one_image():
    obs = simulated((), dmin=6, multiplicity=2, images=1).obs
    scale = br.Physical(obs)
    assert torch.isfinite(scale(torch.randn(scale.n_weights, **D), obs)).all()


def test_cubic_crystals_have_no_anisotropic_group():
    obs = simulated(cell=(40, 40, 40, 90, 90, 90), spacegroup="P 21 3", dmin=6, multiplicity=2, images=2).obs
    assert "anisotropic B" not in [g.name for g in br.Physical(obs).groups]


def test_a_surface_needs_its_columns():
    obs = simulated(("BATCH", "X"), dmin=6, multiplicity=2, images=2).obs
    with pytest.raises(br.InputError, match="X, Y; Y is not among those read"):
        br.Physical(obs, surface=("X", "Y"))
