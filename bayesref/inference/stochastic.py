"""Stochastic fit: Adam over minibatches of images, for data too large to sweep at every step.

    L_B(z) = Σ_{i in B} E_q(F)[log p(I_i | F, z)]        spots of the images B;  step along ∇[(n/n_B) L_B + log p(z)]
    q(F_h) ∝ p(F_h) exp(-a_h F⁴/2 + b_h F²) Π_{i in h, B} p(I_i | F_h, z)
    (a_i, b_i) <- (1 - ρ)(a_i, b_i) + ρ λ_i (K_i², K_i I_i),   i in B;     a_h, b_h: sums over the spots outside B

By Fisher's identity the gradient is that of the collapsed likelihood once the natural parameters are current. Each
spot keeps its own share of them, so that the natural-gradient step of a minibatch replaces what these spots said
before, instead of scaling them up by n/n_B: the same step on average (Hoffman et al., 2013, J. Mach. Learn. Res. 14,
1303), without its variance, which for reflections seen two or three times would be fatal. At the end one Newton step
with all spots takes out the noise of the last minibatches, and its curvature gives q(z) = Normal(m, C).
"""

import math
import time

import torch

from bayesref._checks import InputError
from bayesref.guides.latents import INTENSITY, Latents
from bayesref.inference.collapsed import Collapsed, find_span
from bayesref.inference.curvature import inverse_root, precision, scale_sites
from bayesref.inference.deterministic import with_elbo
from bayesref.inference.evidence import adapt_scales
from bayesref.inference.posterior import Posterior

ADAPT = (2, 4, 8, 16)  # epochs after which the prior sds of the scale follow the evidence


class _Memory:
    """Share of each spot in the natural parameters of its reflection, and the spots of each image."""

    def __init__(self, obs):
        self.obs = obs
        self.share = torch.zeros(2, len(obs), dtype=obs.I.dtype)  # a_i, b_i
        order = obs.image_id.argsort(stable=True)
        self.by_image = order.split(torch.bincount(obs.image_id, minlength=obs.n_image).tolist())

    def batch(self, images):
        """Spots of these images: their rows, the observations, and (a, b) that other spots give, (hkl,) each."""
        rows = torch.cat([self.by_image[i] for i in images]).sort().values
        piece = self.obs.subset(rows)
        hkl = piece.hkl_id.unique()
        piece = piece.compact()
        # Totals are taken over the reflections of the batch alone, whose spots are contiguous.
        first, last = self.obs.offsets[hkl], self.obs.offsets[hkl + 1]
        total = torch.stack([_segment_sums(x, first, last) for x in self.share])
        own = torch.zeros_like(total).index_add(1, piece.hkl_id, self.share[:, rows])
        return rows, piece, (total - own).clamp(min=torch.tensor([[0.0], [-math.inf]], dtype=total.dtype))


def _segment_sums(x, first, last):
    """Sums of x[first:last], one per segment."""
    n = last - first
    index = torch.arange(int(n.sum())) - torch.repeat_interleave(n.cumsum(0) - n, n)
    segment = torch.repeat_interleave(torch.arange(len(n)), n)
    return x.new_zeros(len(n)).index_add(0, segment, x[torch.repeat_interleave(first, n) + index])


def fit_stochastic(
    model, obs, args, *, epochs=40, batch_images=None, learning_rate=0.03, rho=1.0, tolerance=1.0, seed=0,
    report=lambda row: None,
) -> Posterior:  # fmt: skip
    """Stochastic variational inference over minibatches of images; see the module's text.

    Parameters
    ----------
    model, obs, args : Pyro model, called as `model(obs, *args)`
    epochs : at most so many passes over the images
    batch_images : images per step (default: a tenth of them)
    learning_rate : of Adam, falling to a twentieth over the epochs
    rho : weight of a natural-gradient step, in (0, 1]
    tolerance : stop after two epochs that gain less than so many log units per thousand spots
    """
    if not 0 < rho <= 1:
        raise InputError(
            f"rho is {rho}; a step of the natural parameters has a weight above 0 and at most 1."
        )
    latents = Latents(model, (obs, *args))
    collapsed = Collapsed(model, obs, args, latents)
    z = latents.initial(args).requires_grad_()
    names = scale_sites(collapsed, z.detach())
    memory, g = _Memory(obs), torch.Generator().manual_seed(seed)
    n_batch = batch_images or max(1, obs.n_image // 10)
    adam = torch.optim.Adam([z], lr=learning_rate, betas=(0.9, 0.99))
    steps_per_epoch = -(-obs.n_image // n_batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs * steps_per_epoch, learning_rate / 20)
    start, small, reason, done = time.monotonic(), 0, "", False
    history: list[dict] = []
    try:
        for epoch in range(epochs):
            for images in torch.randperm(obs.n_image, generator=g).split(n_batch):
                adam.zero_grad()
                z.grad = -_gradient(collapsed, memory, images, z.detach(), rho)
                adam.step()
                schedule.step()
            value = collapsed.refresh(z.detach(), warm=epoch > 2)
            gain = value - history[-1]["elbo"] if history else float("inf")
            history.append({
                "step": epoch, "phase": "epoch", "elbo": value, "gain": gain,
                "evaluations": (epoch + 1) * steps_per_epoch, "seconds": time.monotonic() - start,
            })  # fmt: skip
            report(history[-1])
            small = small + 1 if abs(gain) < tolerance * len(obs) / 1000 else 0
            if small == 2 and epoch > epochs // 2:
                reason, done = f"two epochs gained less than {tolerance:g} log units per thousand spots", True
                break
            if epoch in ADAPT:
                better, _ = adapt_scales(collapsed, z.detach(), names)
                with torch.no_grad():
                    z.copy_(better)
                collapsed.refresh(z.detach(), warm=True)
        else:
            reason = f"all {epochs} epochs done, the last gaining {gain:.3g} log units"
    except KeyboardInterrupt:
        reason = "interrupted; this is the best so far"
    mean, root, log_joint = _newton_step(collapsed, z.detach().clone(), names)
    posterior = Posterior(
        model, obs, args, latents, mean, root, log_joint, history=history, reason=reason, converged=done
    )
    return with_elbo(posterior, 4, seed)


def _newton_step(collapsed, z, names):
    """One Newton step from z with all spots, kept if it helps: it takes out the noise of the last minibatches."""
    collapsed.refresh(z)
    root = inverse_root(precision(collapsed, z, names))
    before, grad = collapsed.exact(z)
    moved = z + root @ (root.T @ grad)
    after = collapsed.value(moved)
    return (moved, root, after) if after > before else (z, root, before)


def _gradient(collapsed, memory, images, z, rho):
    """∇ of (n/n_B) L_B + log p(z), (latent,); the shares of the batch in (a, b) are renewed on the way."""
    rows, piece, (a, b) = memory.batch(images)
    z = z.requires_grad_()
    values = collapsed.latents.unpack(z)
    plain = {k: v.detach() for k, v in values.items()}

    def log_density(F, trace=None):
        return collapsed.log_density(piece, plain, F, trace) - 0.5 * a * F**4 + b * F**2

    with torch.no_grad():
        lo, hi = collapsed.run(piece, plain).nodes["F"]["fn"].interval(30.0)
        span = find_span(log_density, lo, hi, passes=3)
        F, slope = span.nodes(20)
    trace = collapsed.run(piece, values, F)
    law = trace.nodes[INTENSITY]["fn"]
    spot = law.log_prob(piece.I)
    weight = span.posterior(log_density(F, trace), slope).weight.detach()[:, piece.hkl_id]
    (psi,) = torch.autograd.grad(spot.sum(), law.loc, retain_graph=True)
    memory.share[:, rows] = _renewed(memory.share[:, rows], piece, law.loc.detach(), psi, weight, F, rho)
    total = (weight * spot).sum() * (len(memory.obs) / len(piece))
    priors = {k: trace.nodes[k]["fn"] for k in values}
    (grad,) = torch.autograd.grad(total + collapsed.latents.log_prior(z, values, priors), z)
    if not torch.isfinite(grad).all():
        bad = [k for k, s in collapsed.latents.sites.items() if not torch.isfinite(grad[s.where]).all()]
        raise FloatingPointError(
            f"The likelihood is not finite; the gradient fails at the site {', '.join(bad)}."
        )
    return grad


def _renewed(share, piece, loc, psi, weight, F, rho):
    """(1 - ρ) share + ρ λ (K², K I), (2, spot)."""
    r = piece.I - loc
    precision = ((weight * psi * r).sum(0) / (weight * r**2).sum(0).clamp(min=1e-300)).clamp(min=0)
    F2 = F[:, piece.hkl_id] ** 2
    K = (weight * loc).sum(0) / (weight * F2).sum(0)
    return (1 - rho) * share + rho * precision * torch.stack([K**2, K * piece.I])
