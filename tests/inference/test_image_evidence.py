"""Weights of single images integrated out: the term against its definition, and an error model that is known."""

import pytest
import torch
from bayesref.models import merge
from serial_truth import small

import bayesref as br
from bayesref.guides.latents import AMPLITUDE, INTENSITY, Latents
from bayesref.inference import stochastic_end
from bayesref.inference.collapsed import Collapsed
from bayesref.inference.image_evidence import ImageEvidence, image_evidence, information


@pytest.fixture(scope="module")
def obs():
    return small(width_sd=0.0, misorientation=0.0, ambiguous=False, bad=0.0, images=100)[1]


def scale_of(obs):
    return br.Product(br.Falloff(obs, 0), br.Additive(obs, 6, 0), br.ImageWise(obs))


@pytest.fixture(scope="module")
def term(obs):
    scale = scale_of(obs)
    latents = Latents(merge.model, (obs, scale))
    collapsed = Collapsed(merge.model, obs, (scale,), latents)
    z = latents.initial((scale,))
    collapsed.refresh(z)
    evidence = ImageEvidence(collapsed, scale)
    evidence.refresh(z)
    return evidence, z


def log_det(term, z):
    """-½ Σ_j log |A_j|, image by image, with the shares of spots as the term has them at the start."""
    evidence, start = term
    c, scale = evidence.collapsed, evidence.scale
    values, first = c.latents.unpack(z), c.latents.unpack(start)
    total = 0.0
    W, x, image = [], [], []
    for piece, F, m in zip(c.pieces, evidence.amplitudes, c.moments, strict=True):
        trace = c.run(piece, first, F)
        W0 = information(trace.nodes[INTENSITY]["fn"])
        law = c.run(piece, values, F).nodes[INTENSITY]["fn"]
        # τ of Wilson's prior: log p(x) = ... - e^x/ε (acentric) or e^x/2ε, x = log F²
        prior = trace.nodes[AMPLITUDE]["fn"]
        tau = m.m2 / piece.asu.epsilon * torch.where(piece.asu.centric, 0.5, 1.0)
        known = torch.zeros_like(tau).index_add(0, piece.hkl_id, W0) + tau
        assert prior.batch_shape == tau.shape
        W.append(information(law) * (1 - W0 / known[piece.hkl_id]))
        x.append(scale.split_jacobian(values["w"], piece)[1])
        image.append(piece.image_id)
    W, x, image = torch.cat(W), torch.cat(x), torch.cat(image)
    for j in range(c.pieces[0].n_image):
        mine = image == j
        A = torch.eye(2, dtype=torch.float64) + x[mine].T @ (W[mine, None] * x[mine])
        total -= 0.5 * float(torch.logdet(A))
    return total


def test_value_and_slope(term):
    evidence, z = term
    values = {k: v.requires_grad_() for k, v in evidence.collapsed.latents.unpack(z.clone()).items()}
    value = evidence(values)
    assert float(value.detach()) == pytest.approx(log_det(term, z), rel=1e-3)
    names = [k for k in values if k != "w"]
    slopes = torch.autograd.grad(value, [values[k] for k in names], allow_unused=True)
    for name, slope in zip(names, slopes, strict=True):
        if name == "blank_odds":
            continue
        site = evidence.collapsed.latents.sites[name]
        h = torch.zeros_like(z)
        h[site.where] = 1e-4
        dz = (log_det(term, z + h) - log_det(term, z - h)) / 2e-4
        dv = float(
            (evidence.collapsed.latents.unpack(z + h)[name] - evidence.collapsed.latents.unpack(z - h)[name])
            / 2e-4
        )
        assert float(slope) * dv == pytest.approx(dz, rel=1e-2, abs=1e-3)
    (w,) = torch.autograd.grad(evidence(values), [values["w"]], allow_unused=True)
    assert w is None


def test_error_model_of_stills_with_few_spots(obs, monkeypatch):
    """Errors as written, a = 1: at the peak of the images' weights a is too small by their number."""
    got = {}
    for name in ("peak", "evidence"):
        if name == "peak":
            monkeypatch.setattr(stochastic_end, "image_evidence", lambda *a: None)
        else:
            monkeypatch.setattr(stochastic_end, "image_evidence", image_evidence)
        fixed = {"b": 1e-6, "c": 1e-6, "nu": 1e3, "blank_odds": 1e-9}
        fixed = {k: torch.tensor(v, dtype=torch.float64) for k, v in fixed.items()}
        p = br.fit(merge.model, obs, scale_of(obs), method="stills", epochs=6, fixed=fixed)
        got[name] = float(p.latents.unpack(p.mean)["a"])
    n = len(obs)
    assert got["evidence"] > got["peak"] + 0.5 / n**0.5
    assert abs(got["evidence"] - 1) < 3 / (2 * n) ** 0.5


def test_only_where_images_have_weights(term):
    evidence, _ = term
    rest = torch.tensor([3])
    assert image_evidence(evidence.collapsed, rest) is not None
    assert image_evidence(evidence.collapsed, rest[:0]) is None
    plain = Collapsed(
        merge.model, evidence.collapsed.pieces[0], (br.Falloff(evidence.collapsed.pieces[0], 0),),
        evidence.collapsed.latents,
    )  # fmt: skip
    assert image_evidence(plain, rest) is None
