"""Stochastic fit: Adam over minibatches of images, for data too large to sweep at every step.

    L_B(z) = Σ_{i in B} E_q(F)[log p(I_i | F, z)]        spots of the images B;  step along ∇[(n/n_B) L_B + log p(z)]
    q(F_h) ∝ p(F_h) exp(-a_h F⁴/2 + b_h F²) Π_{i in h, B} p(I_i | F_h, z)
    (a_i, b_i) <- (1 - ρ)(a_i, b_i) + ρ λ_i (K_i², K_i I_i),   i in B;     a_h, b_h: sums over the spots outside B

By Fisher's identity the gradient is that of the collapsed likelihood once the natural parameters are current. Each
spot keeps its own share of them, so that the natural-gradient step of a minibatch replaces what these spots said
before, instead of scaling them up by n/n_B: the same step on average (Hoffman et al., 2013, J. Mach. Learn. Res. 14,
1303), without its variance, which for reflections seen two or three times would be fatal. At the end one Newton step
with all spots takes out the noise of the last minibatches, and its curvature gives q(z) = Normal(m, C). Overlapped
Laue spots tie reflections together, which minibatches would cut apart: they join at the end, in `stochastic_end`.
"""

import math
import time
from dataclasses import replace
from functools import partial

import torch

from bayesref._checks import InputError
from bayesref.guides.latents import AMPLITUDE, INTENSITY, Latents
from bayesref.inference import distributed
from bayesref.inference.checkpoint import Checkpoint
from bayesref.inference.collapsed import Collapsed, find_span
from bayesref.inference.curvature import inverse_root, precision, scale_sites
from bayesref.inference.deterministic import with_elbo
from bayesref.inference.evidence import adapt_scales, scale_sds, set_scale_sds
from bayesref.inference.journal import Journal
from bayesref.inference.laue import require_one_process
from bayesref.inference.posterior import Posterior
from bayesref.inference.stochastic_end import finished

POLISH = 4  # runs of L-BFGS on the exact likelihood of Laue data
ADAPT = (2, 4, 8, 16)  # epochs after which the prior sds of the scale follow the evidence


class _Memory:
    """Share of each spot in the natural parameters of its reflection, and the spots of each image.

    With several processes each has images of its own; `elsewhere` holds what those of the others say, (2, hkl).
    """

    def __init__(self, obs):
        self.obs = obs
        self.images = torch.arange(obs.n_image)[distributed.rank() :: distributed.size()]
        self.elsewhere: torch.Tensor | None = None
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
        if self.elsewhere is not None:
            total = total + self.elsewhere[:, hkl]
        own = torch.zeros_like(total).index_add(1, piece.hkl_id, self.share[:, rows])
        return rows, piece, (total - own).clamp(min=torch.tensor([[0.0], [-math.inf]], dtype=total.dtype))

    def exchange(self) -> None:
        """Sum (a, b) over the processes."""
        if distributed.size() > 1:
            mine = self.share.new_zeros(2, len(self.obs.asu)).index_add(1, self.obs.hkl_id, self.share)
            self.elsewhere = distributed.total(mine) - mine

    def whole(self) -> torch.Tensor:
        """Shares of all spots, (2, spot); those of other processes are zero here."""
        return distributed.total(self.share) if distributed.size() > 1 else self.share.clone()

    def restore(self, whole: torch.Tensor) -> None:
        """The inverse of `whole`."""
        mine = torch.isin(self.obs.image_id, self.images)
        self.share = whole * mine if distributed.size() > 1 else whole
        self.exchange()


def _segment_sums(x, first, last):
    """Sums of x[first:last], one per segment."""
    n = last - first
    index = torch.arange(int(n.sum())) - torch.repeat_interleave(n.cumsum(0) - n, n)
    segment = torch.repeat_interleave(torch.arange(len(n)), n)
    return x.new_zeros(len(n)).index_add(0, segment, x[torch.repeat_interleave(first, n) + index])


def fit_stochastic(
    model, obs, args, *, epochs=40, batch_images=None, learning_rate=0.03, rho=1.0, tolerance=1.0, seed=0,
    report=lambda row: None, checkpoint: Checkpoint | None = None,
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
    checkpoint : where to save the fit as it goes, and what to resume
    """
    if not 0 < rho <= 1:
        raise InputError(
            f"rho is {rho}; a step of the natural parameters has a weight above 0 and at most 1."
        )
    if obs.overlaps:
        require_one_process()
    latents, alone = Latents(model, (obs, *args)), replace(obs, overlaps=None)
    collapsed = Collapsed(model, alone, args, latents)
    z = distributed.from_first(lambda: latents.initial(args))
    names = scale_sites(collapsed, z)
    s = _Loop(collapsed, _Memory(alone), z, names, batch_images, epochs, learning_rate, rho, seed, report)
    journal, small, reason, done = Journal(checkpoint, s.capture), 0, "", False
    try:
        journal.open(s.restore)
        for epoch in range(epochs):
            gain = journal.do(partial(s.epoch, epoch))
            small = small + 1 if abs(gain) < tolerance * len(obs) / 1000 else 0
            if small == 2 and epoch > epochs // 2:
                reason, done = f"two epochs gained less than {tolerance:g} log units per thousand spots", True
                break
        else:
            reason = f"all {epochs} epochs done, the last gaining {gain:.3g} log units"
        journal.flush()
    except distributed.ProcessLost:
        journal.flush()
        raise
    except KeyboardInterrupt as e:
        journal.flush()
        # With several processes, each was interrupted elsewhere; a kind of interrupt of its own means to end at once.
        if distributed.size() > 1 or type(e) is not KeyboardInterrupt:
            raise
        reason = "interrupted; this is the best so far"
    if obs.overlaps:
        runs, z = 0 if reason.startswith("interrupted") else POLISH, s.z.detach().clone()
        p = finished(model, obs, args, latents, z, names, None, runs, report, s.history, seed)
        return replace(p, reason=f"{reason}; {p.reason}" if p.reason else reason)
    mean, root, log_joint = _newton_step(collapsed, s.z.detach().clone(), names)
    posterior = Posterior(
        model, obs, args, latents, mean, root, log_joint, history=s.history, reason=reason, converged=done
    )
    return with_elbo(posterior, 4, seed)


class _Loop:
    """Latents, optimiser, shares of the spots and random numbers, and how they change in an epoch."""

    def __init__(self, collapsed, memory, z, names, batch_images, epochs, learning_rate, rho, seed, report):
        self.collapsed, self.memory, self.names, self.rho, self.report = collapsed, memory, names, rho, report
        self.z = z.requires_grad_()
        self.g = torch.Generator().manual_seed(seed + distributed.rank())
        n = memory.obs.n_image
        if n < distributed.size():
            raise InputError(f"{distributed.size()} processes cannot share {n} images; start fewer.")
        # No process may be left without an image at a step.
        self.n_step = min(-(-n // (batch_images or max(1, n // 10))), n // distributed.size())
        self.adam = torch.optim.Adam([self.z], lr=learning_rate, betas=(0.9, 0.99))
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.adam, epochs * self.n_step, learning_rate / 20
        )
        self.history: list[dict] = []
        self.start = time.monotonic()

    def epoch(self, epoch: int) -> float:
        """One pass over the images; now and then, prior sds from the evidence. Returns the gain, log units."""
        mine = self.memory.images
        order = mine[torch.randperm(len(mine), generator=self.g)]
        for images in order.tensor_split(self.n_step):
            self.adam.zero_grad()
            self.z.grad = -_gradient(self.collapsed, self.memory, images, self.z.detach(), self.rho)
            self.adam.step()
            self.schedule.step()
            self.memory.exchange()
        value = self.collapsed.refresh(self.z.detach(), warm=epoch > 2)
        gain = value - self.history[-1]["elbo"] if self.history else float("inf")
        self.history.append({
            "step": epoch, "phase": "epoch", "elbo": value, "gain": gain,
            "evaluations": (epoch + 1) * self.n_step, "seconds": time.monotonic() - self.start,
        })  # fmt: skip
        self.report(self.history[-1])
        if epoch in ADAPT:
            better, _ = adapt_scales(self.collapsed, self.z.detach(), self.names)
            with torch.no_grad():
                self.z.copy_(better)
            self.collapsed.refresh(self.z.detach(), warm=True)
        return gain

    def capture(self) -> tuple[dict[str, torch.Tensor], dict]:
        """Tensors and JSON state between epochs; copies, since the optimiser works in place."""
        tensors = {
            "z": self.z.detach().clone(),
            "share": self.memory.whole(),
            "sd": scale_sds(self.collapsed.args),
        }
        tensors |= {f"adam.{k}": x.clone() for k, x in self.adam.state.get(self.z, {}).items()}
        tensors |= {f"step.{k}": x for k, x in self.collapsed.state().items()}
        tensors["random"] = distributed.joined(self.g.get_state()[None])
        state = {
            "history": [dict(row) for row in self.history],
            "evaluations": len(self.history) * self.n_step,
            "schedule": {
                k: v for k, v in self.schedule.state_dict().items() if k in ("last_epoch", "_last_lr")
            },
            "learning_rate": self.adam.param_groups[0]["lr"],
            "seconds": time.monotonic() - self.start,
        }
        return tensors, state

    def restore(self, tensors: dict[str, torch.Tensor], state: dict) -> None:
        """What `capture` returned, from however many processes."""
        with torch.no_grad():
            self.z.copy_(tensors["z"])
        set_scale_sds(self.collapsed.args, tensors["sd"])
        self.memory.restore(tensors["share"])
        self.adam.state[self.z] = {k[5:]: x for k, x in tensors.items() if k.startswith("adam.")}
        self.collapsed.restore({k[5:]: x for k, x in tensors.items() if k.startswith("step.")})
        self.g.set_state(tensors["random"][distributed.rank() % len(tensors["random"])])
        self.schedule.load_state_dict(state["schedule"])
        self.adam.param_groups[0]["lr"] = state["learning_rate"]
        self.history = [dict(row) for row in state["history"]]
        self.start = time.monotonic() - state["seconds"]
        for row in self.history:
            self.report(row)


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
    node = span.posterior(log_density(F, trace), slope).weight.detach()
    weight = node[:, piece.hkl_id]
    (psi,) = torch.autograd.grad(spot.sum(), law.loc, retain_graph=True)
    memory.share[:, rows] = _renewed(memory.share[:, rows], piece, law.loc.detach(), psi, weight, F, rho)
    total = (weight * spot).sum() + _amplitude_prior(trace, node, F, piece, memory.obs, rows)
    (grad,) = torch.autograd.grad(total, z, retain_graph=True)
    *grad, n_B = distributed.total(torch.cat([grad, grad.new_tensor([len(piece)])])).split([len(z), 1])
    priors = {k: trace.nodes[k]["fn"] for k in values}
    (prior,) = torch.autograd.grad(collapsed.latents.log_prior(z, values, priors), z)
    grad = grad[0] * (len(memory.obs) / n_B) + prior
    if not torch.isfinite(grad).all():
        bad = [k for k, s in collapsed.latents.sites.items() if not torch.isfinite(grad[s.where]).all()]
        raise FloatingPointError(
            f"The likelihood is not finite; the gradient fails at the site {', '.join(bad)}."
        )
    return grad


def _amplitude_prior(trace, node, F, piece, obs, rows):
    """Σ_h E log p(F_h | z) m_h/n_h of a prior with latents of its own: m_h of the n_h spots of h are in the batch."""
    log_p = trace.nodes[AMPLITUDE]["fn"].log_prob(F)
    if not log_p.requires_grad:
        return 0.0
    every = obs.offsets.diff()[obs.hkl_id[rows].unique()]
    return ((node * log_p).sum(0) * piece.offsets.diff() / every).sum()


def _renewed(share, piece, loc, psi, weight, F, rho):
    """(1 - ρ) share + ρ λ (K², K I), (2, spot)."""
    r = piece.I - loc
    precision = ((weight * psi * r).sum(0) / (weight * r**2).sum(0).clamp(min=1e-300)).clamp(min=0)
    F2 = F[:, piece.hkl_id] ** 2
    K = (weight * loc).sum(0) / (weight * F2).sum(0)
    return (1 - rho) * share + rho * precision * torch.stack([K**2, K * piece.I])
