"""One minibatch of stills: q(F), what each image is, gradients, and the images' own scale.

q(F_h) ∝ p(F_h) exp(-a_h F⁴/2 + b_h F²)          (a, b): of the other images, and of this batch as of its last visit
L_B = Σ_{i in B} w_j E_q[log p(I_i | F, z)]
(a_i, b_i) = λ_i (K_i², K_i I_i),   λ_i = w_j E_q[ψ_i r_i]/E_q[r_i²]
H_j = Σ_{i in j} λ_i K_i² E F⁴ x xᵀ + 1,  x = ∂ log K_i/∂(weights of image j)       a Newton step for each image
"""

from dataclasses import dataclass, replace

import torch

from bayesref.guides.latents import AMPLITUDE, INTENSITY, trace_model
from bayesref.inference.collapsed import Span, find_span

NODES = 12
PRIOR_NODES = 24  # over all amplitudes that the prior allows
WARM_UP = 3  # looks at a batch that nothing is known of
REACH = 30.0  # log units of the prior within which amplitudes lie
STEP = 1.0  # longest Newton step of an image's weights, in units of their prior sd


@dataclass(frozen=True, eq=False)
class Look:
    """What one evaluation of a batch gives.

    Attributes
    ----------
    value : L_B
    gradient : (latent,), of L_B
    log_prior_gradient : (latent,)
    share : (2, spot)
    chi : (spot,), E_q ψ r, without the weight
    information : (spot,), λ K² E F⁴
    """

    value: float
    gradient: torch.Tensor
    log_prior_gradient: torch.Tensor
    share: torch.Tensor
    chi: torch.Tensor
    information: torch.Tensor


def span_of(prior, a, b) -> Span:
    """Where q(F) lies, from its natural parameters."""
    lo, hi = prior.interval(REACH)

    def log_density(F):
        return prior.log_prob(F) - 0.5 * a * F**4 + b * F**2

    return find_span(log_density, lo, hi, passes=5)


def quadrature(prior, a, b, n: int):
    """Nodes F (node, hkl) of q(F) and the logs of their weights."""
    span = span_of(prior, a, b)
    F, slope = span.nodes(n)
    return F, span.posterior(prior.log_prob(F) - 0.5 * a * F**4 + b * F**2, slope).log_weight


def prior_of(model, piece, args, values):
    """Prior of the amplitudes of a piece."""
    one = torch.ones(len(piece.asu), dtype=piece.I.dtype)
    return trace_model(model, (piece, *args), {**values, AMPLITUDE: one}).nodes[AMPLITUDE]["fn"]


@torch.no_grad()
def log_predictive(model, piece, args, values, F, log_weight) -> torch.Tensor:
    """log ∫ q(F) p(I | F) dF of each spot, (spot,), at nodes of q."""
    law = trace_model(model, (piece, *args), {**values, AMPLITUDE: F}).nodes[INTENSITY]["fn"]
    return torch.logsumexp(log_weight[:, piece.hkl_id] + law.log_prob(piece.I), 0)


@torch.no_grad()
def warm_share(model, piece, args, values, others) -> torch.Tensor:
    """Shares of spots that nothing is known of yet, (2, spot): a few rounds of q(F) and λ."""
    one = torch.ones(len(piece.asu), dtype=piece.I.dtype)
    law = trace_model(model, (piece, *args), {**values, AMPLITUDE: one}).nodes[INTENSITY]["fn"]
    prior, K = prior_of(model, piece, args, values), law.loc
    share = torch.stack([K**2, K * piece.I]) / piece.SIGI**2
    for _ in range(WARM_UP):
        a, b = others + torch.zeros_like(others).index_add(1, piece.hkl_id, share)
        F, log_weight = quadrature(prior, a, b, NODES // 2)
        share = look(model, piece, args, None, values, F, log_weight).share
    return share


def look(model, piece, args, latents, at, F, log_weight) -> Look:
    """Evaluate a batch at nodes of q.

    Parameters
    ----------
    latents, at : Latents and z, for gradients; None and the values of the sites, for none
    """
    weight = log_weight.exp()[:, piece.hkl_id]
    with torch.enable_grad():
        z = at.detach().requires_grad_() if latents is not None else None
        values = latents.unpack(z) if latents is not None else at
        F = F.detach().requires_grad_()  # so that K F² carries a gradient even where no latent does
        trace = trace_model(model, (piece, *args), {**values, AMPLITUDE: F})
        law = trace.nodes[INTENSITY]["fn"]
        spot = law.log_prob(piece.I)
        (psi,) = torch.autograd.grad(spot.sum(), law.loc, retain_graph=latents is not None)
        total, gradient, prior = (weight * spot).sum(), torch.zeros(0), torch.zeros(0)
        if z is not None:
            priors = {k: trace.nodes[k]["fn"] for k in values}
            (gradient,) = torch.autograd.grad(total, z, retain_graph=True)
            (prior,) = torch.autograd.grad(latents.log_prior(z, values, priors), z)
    F, loc = F.detach(), law.loc.detach()
    r, F2 = piece.I - loc, F[:, piece.hkl_id] ** 2
    psi_r = (weight * psi * r).sum(0)
    precision = (psi_r / (weight * r**2).sum(0).clamp(min=1e-300)).clamp(min=0)
    K = (weight * loc).sum(0) / (weight * F2).sum(0)
    counted = getattr(law, "weight", None)
    chi = psi_r if counted is None else psi_r / counted.clamp(min=1e-12)
    return Look(
        float(total.detach()), gradient, prior, precision * torch.stack([K**2, K * piece.I]), chi,
        precision * K**2 * (weight * F2**2).sum(0),
    )  # fmt: skip


def hypotheses(model, piece, args, values, ways, others, used, image, n_image) -> torch.Tensor:
    """Log evidence of each image of a batch for each way, and for being of something else, (image, way + 1).

    Parameters
    ----------
    piece : hkl_id are rows of `used`, in the way the images are now
    ways : (way, spot) rows of `used` in each way
    others : (2, hkl used), of the other images
    image : (spot,), number of the image in the batch
    """
    prior = prior_of(model, piece, args, values)
    F, log_weight = quadrature(prior, others[0], others[1], NODES)
    columns = [
        log_predictive(model, replace(piece, hkl_id=rows), args, values, F, log_weight) for rows in ways
    ]
    nothing = torch.zeros_like(others[0])
    F, log_weight = quadrature(prior, nothing, nothing, PRIOR_NODES)
    columns.append(log_predictive(model, piece, args, values, F, log_weight))
    return torch.stack([torch.zeros(n_image, dtype=c.dtype).index_add(0, image, c) for c in columns], 1)


def newton_steps(scale, w, piece, image, n_image, information, gradient):
    """Newton steps of the images' own weights.

    Parameters
    ----------
    scale, w : the scale and its whitened weights
    image : (spot,), number of the image in the batch
    information : (spot,), λ K² E F⁴
    gradient : (image, k), of the log posterior in them

    Returns
    -------
    step : (image, k)
    variance : (image, k), of their posterior
    """
    _, x = scale.split_jacobian(w, piece)
    H = torch.eye(x.shape[1], dtype=x.dtype).repeat(n_image, 1, 1)
    H = H.index_add(0, image, information[:, None, None] * x[:, :, None] * x[:, None, :])
    inverse = torch.linalg.inv(H)
    step = (inverse @ gradient[:, :, None])[:, :, 0]
    return step.clamp(-STEP, STEP), inverse.diagonal(dim1=1, dim2=2)
