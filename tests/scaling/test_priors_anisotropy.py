"""The term `anisotropy` of a scale: the tensor that was put in comes out, and amplitudes are flat in all directions."""

from dataclasses import replace

import gemmi
import pytest
import torch
from bayesref.models.merge_normal import model
from known_truth import simulated

import bayesref as br
from bayesref._checks import InputError
from bayesref.scaling.anisotropy import Anisotropy
from bayesref.scaling.physical import _anisotropy, invariant_tensors


def test_the_tensor_is_found_again():
    case = simulated(dmin=3.2, multiplicity=4, images=20, seed=4)
    obs, asu = case.obs, case.obs.asu
    true = torch.diag(torch.tensor([9.0, -3.0, -6.0], dtype=torch.float64))
    tensors = invariant_tensors(asu.cell, asu.spacegroup)
    v = torch.einsum("tij,ij->t", tensors, true)
    factor = (_anisotropy(obs, tensors) @ v).exp()
    bent = replace(obs, I=obs.I * factor, SIGI=obs.SIGI * factor)
    scale = br.Product(br.Falloff(bent), br.Additive(bent, n_pair=0), Anisotropy(bent))
    posterior = br.fit(model, bent, scale)
    weights = (posterior.latents.unpack(posterior.mean)["w"] * scale.sd())[-2:]
    # ⟨F²⟩ of some 800 reflections is itself anisotropic by chance.
    torch.testing.assert_close(scale.terms[-1].B(weights), true, atol=2.5, rtol=0)
    jacobian = scale.terms[-1].jacobian(weights * 0, bent)
    assert jacobian.shape == (len(bent), 2)


def test_a_cubic_crystal_has_none():
    case = simulated(dmin=3.2, multiplicity=4, images=20, seed=4)
    cubic = replace(
        case.obs.asu, cell=gemmi.UnitCell(30, 30, 30, 90, 90, 90), spacegroup=gemmi.SpaceGroup("P 2 3")
    )
    with pytest.raises(InputError, match="no anisotropic fall-off"):
        Anisotropy(replace(case.obs, asu=cubic))
