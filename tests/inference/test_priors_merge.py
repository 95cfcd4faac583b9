"""Merging with a reference: a good one helps, one that has nothing to do with the data does no harm."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from bayesref.models import merge, merge_reference, merge_reference_rice
from known_truth import simulated

import bayesref as br
from bayesref.data.reference import Reference, ReferenceAmplitudes
from bayesref.distributions.families import FAMILIES
from bayesref.inference.checkpoint import fit_options
from bayesref.scaling.basis import bumps

LAWS = {
    "normal": partial(merge_reference.model, law=br.dist.ReferenceNormal),
    "laplace": partial(merge_reference.model, law=br.dist.ReferenceLaplace),
    "student-t": merge_reference.model,
    "rice": merge_reference_rice.model,
}
CORRELATION = 0.95


@pytest.fixture(scope="module")
def case():
    """About 1,000 reflections with three spots each; 0.9 of them are in the reference."""
    return simulated(dmin=3.0, multiplicity=3, images=30, seed=3)


def reference(asu, F, SIGF=0.02, share=0.9):
    g = torch.Generator().manual_seed(2)
    known = torch.rand(len(asu), generator=g) < share
    s2 = asu.stol2
    basis = bumps(s2, 5, (float(s2.min()), float(s2.max())))
    return Reference(asu, ReferenceAmplitudes(F * known, SIGF * known.double(), known, basis))


@pytest.fixture(scope="module")
def near(case):
    """Structure factors that correlate with the true ones."""
    torch.manual_seed(1)
    asu, V = case.obs.asu, case.obs.asu.epsilon * (1 - CORRELATION**2)
    return reference(asu, br.dist.RiceWoolfson(CORRELATION * case.F, V, asu.centric).sample())


@pytest.fixture(scope="module")
def unrelated(case):
    torch.manual_seed(1)
    return reference(case.obs.asu, br.dist.Wilson(case.obs.asu.epsilon, case.obs.asu.centric).sample())


def fitted(case, model, **given):
    obs = case.obs
    return br.fit(
        partial(model, **given) if given else model, obs, br.Product(br.Falloff(obs), br.Additive(obs))
    )


@pytest.fixture(scope="module")
def without(case):
    return fitted(case, merge.model)


def figures(case, posterior):
    """Correlation with the truth, mean log density of the truth, share of the truth within 90 % limits."""
    a = posterior.amplitudes()
    k = (a.F * case.F / a.SIGF**2).sum() / (a.F**2 / a.SIGF**2).sum()
    z = (k * a.F - case.F) / (k * a.SIGF)
    cc = torch.corrcoef(torch.stack([a.F, case.F]))[0, 1]
    return (
        float(cc),
        float((-0.5 * z**2 - (k * a.SIGF).log()).mean()),
        float((z.abs() < 1.645).double().mean()),
    )


@pytest.mark.parametrize("law", ["normal", "student-t", "rice"])
def test_a_good_reference_improves_the_amplitudes(case, near, without, law):
    posterior = fitted(case, LAWS[law], reference=near)
    cc, score, cover = figures(case, posterior)
    cc0, score0, cover0 = figures(case, without)
    assert posterior.converged
    assert posterior.elbo > without.elbo + 100
    assert cc > cc0 + 0.002
    assert score > score0 + 0.01
    assert abs(cover - 0.9) < 0.04
    assert abs(cover0 - 0.9) < 0.04


def test_the_correlation_is_found(case, near):
    posterior = fitted(case, LAWS["rice"], reference=near)
    sites = posterior.sites(50)
    basis = near(case.obs.asu).basis
    D = torch.sigmoid(sites["D_logit"] + sites["D_shape"] @ basis.T)
    assert abs(float(D.mean()) - CORRELATION) < 0.02


def test_minibatches_find_the_correlation_too(case, near):
    obs, model = case.obs, partial(LAWS["rice"], reference=near)
    scale = br.Product(br.Falloff(obs), br.Additive(obs, n_pair=0))
    posterior = br.fit(model, obs, scale, method="svi", epochs=12, batch_images=6)
    values = posterior.latents.unpack(posterior.mean)
    D = torch.sigmoid(values["D_logit"] + near(obs.asu).basis @ values["D_shape"])
    assert abs(float(D.mean()) - CORRELATION) < 0.03


@pytest.mark.parametrize("law", ["student-t", "rice"])
def test_an_unrelated_reference_does_no_harm(case, unrelated, without, law):
    cc, score, cover = figures(case, fitted(case, LAWS[law], reference=unrelated))
    cc0, score0, _ = figures(case, without)
    assert cc > cc0 - 0.004
    assert score > score0 - 0.06
    assert abs(cover - 0.9) < 0.04


def test_without_a_reflection_in_the_reference_it_is_wilsons_prior(case):
    obs = case.obs
    none = reference(obs.asu, case.F, share=0.0)
    rows = none(obs.asu)
    F = torch.rand(7, len(obs.asu), dtype=torch.float64) + 0.1
    wilson = br.dist.Wilson(obs.asu.epsilon, obs.asu.centric).log_prob(F)
    one = torch.ones_like(rows.F)
    law = br.dist.ReferenceStudentT(rows.F, one, rows.known, obs.asu.epsilon, obs.asu.centric)
    torch.testing.assert_close(law.log_prob(F), wilson)
    rice = br.dist.RiceWoolfson(rows.F, obs.asu.epsilon, obs.asu.centric)
    torch.testing.assert_close(rice.log_prob(F), wilson)


def test_a_reference_follows_its_reflections(case, near):
    asu = case.obs.asu
    order = torch.randperm(len(asu))[:100]
    part = near(asu.subset(order))
    torch.testing.assert_close(part.F, near.rows.F[order])
    assert (part.known == near.rows.known[order]).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_amplitudes_as_a_family(without, family):
    exact = without.amplitudes(n_draws=4)
    other = replace(without, family=family).amplitudes(n_draws=4, n_samples=8)
    assert exact.gap is None
    assert (other.gap > -1e-9).all()
    assert 0 < float(other.gap.mean()) < 0.1
    assert ((other.F - exact.F).abs() < 0.3 * exact.SIGF).all()
    # KL(q ‖ p) seeks the mode: the family is narrower than what it stands for, never much wider.
    assert 0.9 < float((other.SIGF / exact.SIGF).mean()) < 1.01
    assert other.draws.shape == (8, len(exact.F))


def test_amplitudes_that_the_prior_holds_stay_where_they_are(case):
    """A prior far narrower than the error of the scale: spans must not follow K, or they would miss the amplitude."""
    exact = reference(case.obs.asu, case.F, SIGF=0.0, share=1.0)
    obs, held = (
        case.obs,
        {"reference_m": torch.zeros(()).double(), "reference_delta": torch.zeros(1).double()},
    )
    scale = br.Product(br.Falloff(obs), br.Additive(obs, n_pair=0))
    posterior = br.fit(partial(LAWS["normal"], reference=exact), obs, scale, fixed=held)
    assert posterior.converged
    assert abs(posterior.elbo - posterior.log_joint) < 500  # the entropy of the scale and the error model
    a = posterior.amplitudes(n_draws=4)
    torch.testing.assert_close(a.F, case.F, rtol=1e-3, atol=1e-3)
    assert float(a.SIGF.max()) < 1e-3


def test_checkpoints_tell_references_and_laws_apart(case, near, unrelated):
    obs = case.obs
    models = [
        merge_reference.model,
        partial(merge_reference.model, reference=near),
        partial(merge_reference.model, reference=unrelated),
        partial(merge_reference.model, reference=near, law=br.dist.ReferenceNormal),
    ]
    marks = [fit_options(m, obs, (), None, {})["model"] for m in models]
    assert len(set(marks)) == len(models)
    again = partial(merge_reference.model, reference=Reference(obs.asu, near.rows))
    assert fit_options(again, obs, (), None, {})["model"] == marks[1]
