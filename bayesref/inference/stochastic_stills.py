"""Stochastic fit of stills: minibatches of images, from memory or disk; images may change their indices and weight.

    z_s <- z_s + Adam[(N/n) ∂L_B/∂z_s + ∂ log p(z)/∂z_s]                  latents that images share
    w_j <- w_j + H_j⁻¹ [∂L_B/∂w_j - w_j],   j in B                        weights of one image each: Newton's step
    (a, b) <- natural-gradient step of q(F)                               `inference.stochastic_memory`
    p(g_j, bad_j | I) <- evidence of the images of B given the others     `inference.image_outliers`

The elbo of an epoch is Σ_B L_B - Σ_h KL(q(F_h) | p(F_h)), each batch at the latents of its visit. At the end a few
steps with all spots on the exact likelihood, `inference.stochastic_end`.
"""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from bayesref._checks import InputError
from bayesref.distributions import AmplitudePosterior
from bayesref.guides.latents import Latents
from bayesref.inference import distributed
from bayesref.inference.checkpoint import Checkpoint
from bayesref.inference.collapsed import Collapsed
from bayesref.inference.curvature import scale_sites
from bayesref.inference.evidence import scale_sds, set_scale_sds
from bayesref.inference.image_outliers import Images, WeightedModel
from bayesref.inference.journal import Journal
from bayesref.inference.posterior import Posterior
from bayesref.inference.reindexing import reindexed
from bayesref.inference.stochastic_batch import (
    NODES,
    hypotheses,
    look,
    newton_steps,
    prior_of,
    quadrature,
    warm_share,
)
from bayesref.inference.stochastic_end import finished
from bayesref.inference.stochastic_memory import Running, Shares
from bayesref.io.stills_store import ImageStore, on_disk

SETTLE = 3  # epochs before images are judged, by the start alone until then: their scales must be known
FIRST = 4  # looks at each batch in the first epoch, so that the images' own weights come near
COUNTS = 0.02  # weight from which on an image has a part in the last steps
ADAPT = range(1, 100, 2)  # epochs after which the prior sds of the scale follow the evidence


def fit_stills(
    model, obs, args, *, images: Images | None = None, store: Path | None = None, memory="shares", epochs=12,
    batch_images=None, learning_rate=0.03, tolerance=1.0, polish=4, seed=0, report=lambda row: None,
    checkpoint: Checkpoint | None = None,
) -> Posterior:  # fmt: skip
    """Stochastic variational inference over minibatches of stills; see the module's text.

    Parameters
    ----------
    model, obs, args : Pyro model, called as `model(obs, *args)`
    images : what is to be found out about the images; what was found is left there
    store : folder for the spots; None: they stay in memory
    memory : "shares" or "running", see `inference.stochastic_memory`
    epochs : at most so many passes over the images
    batch_images : images per step (default: a fortieth of them, at least 100)
    learning_rate : of Adam, falling to a twentieth over the epochs
    tolerance : stop after two epochs that gain less than so many log units per thousand spots
    polish : runs of L-BFGS over all spots at the end, see `inference.stochastic_end`
    checkpoint : where to save the fit as it goes, and what to resume

    Returns
    -------
    Posterior, of the observations as they were indexed in the end
    """
    if memory not in ("shares", "running"):
        raise InputError(f"There is no memory '{memory}' of minibatches; choose shares or running.")
    if distributed.size() > 1:
        raise InputError("Options for stills need one process; start the command without torchrun.")
    images = images or Images(obs.n_image)
    if store is not None:
        obs = on_disk(obs, Path(store) / "written")
    s = _Loop(model, obs, args, images, store, memory, (epochs, batch_images, learning_rate), seed, report)
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
    except KeyboardInterrupt as e:
        journal.flush()
        if type(e) is not KeyboardInterrupt:
            raise
        reason = "interrupted; this is the best so far"
    runs = 0 if reason.startswith("interrupted") else polish
    again = bool(runs) and images.undecided
    p = s.finished(runs, last=not again)
    if again:
        # With the error model of the exact likelihood, some images are judged otherwise.
        s.judge(p)
        p = s.finished(runs, again=True)
    ended = f"{reason}; {p.reason}" if p.reason else reason
    return replace(p, reason=ended, converged=p.converged if runs else done)


class _Loop:
    """Latents, optimiser, natural parameters, images, and how they change in an epoch."""

    def __init__(self, model, obs, args, images, store, memory, settings, seed, report):
        epochs, batch_images, learning_rate = settings
        self.model, self.args, self.images, self.report = model, args, images, report
        self.collapsed = Collapsed(model, obs, args, Latents(model, (obs, *args)))
        self.z = self.collapsed.latents.initial(args)
        self.names = scale_sites(self.collapsed, self.z)
        self.folder, self.seed = (Path(store) if store else None), seed
        self.store = ImageStore(obs, self.folder / "images" if self.folder else None)
        file = self.folder / "shares.bin" if self.folder else None
        n_hkl, n_image = len(obs.asu), obs.n_image
        self.memory = (
            Shares(n_hkl, len(obs), n_image, file) if memory == "shares" else Running(n_hkl, n_image)
        )
        self.scale = next((a for a in args if hasattr(a, "image_columns") and a.site in self.names), None)
        self.own = self._own_places()
        self.is_shared = torch.ones(len(self.z), dtype=torch.bool)
        self.is_shared[self.own] = False
        self.variance = torch.ones_like(self.z)
        self.g = torch.Generator().manual_seed(seed)
        n_batch = min(batch_images or max(100, n_image // 40), n_image)
        self.n_step = -(-n_image // n_batch)
        self.adam = torch.optim.Adam([self.z], lr=learning_rate, betas=(0.9, 0.99))
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.adam, epochs * self.n_step, learning_rate / 20
        )
        self.n_spot = len(obs)
        self.history: list[dict] = []
        self.start = time.monotonic()

    def _own_places(self) -> torch.Tensor:
        """Places in z of the weights of each image, (image, k)."""
        if self.scale is None or not self.scale.image_columns().numel():
            return torch.zeros(0, 0, dtype=torch.int64)
        return self.scale.image_columns() + self.collapsed.latents.sites[self.scale.site].where.start

    def weighted(self):
        """The model, with the images' weights as they are now."""
        if not (self.images.outliers or self.images.quality):
            return self.model
        return WeightedModel(self.model, self.images.weight)

    def epoch(self, epoch: int) -> float:
        """One pass over the images. Returns the gain, log units."""
        total, curvature = 0.0, torch.zeros(0)
        for images in torch.randperm(self.store.obs.n_image, generator=self.g).tensor_split(self.n_step):
            value, H = self.visit(images, epoch)
            total, curvature = total + value, H + curvature if curvature.numel() else H
        self.memory.recount(self._all_places())
        if epoch in ADAPT:
            self._adapt(curvature)
        value = total - self._divergence()
        gain = value - self.history[-1]["elbo"] if self.history else float("inf")
        self.history.append({
            "step": epoch, "phase": "epoch", "elbo": value, "gain": gain,
            "evaluations": (epoch + 1) * self.n_step, "seconds": time.monotonic() - self.start,
        })  # fmt: skip
        self.report(self.history[-1])
        return gain

    def judge(self, p: Posterior) -> None:
        """One more look at every image at the latents of a posterior; what images share stays as it is."""
        self.z.copy_(p.mean)
        self.history = list(p.history)
        for images in torch.arange(self.store.obs.n_image).tensor_split(self.n_step):
            self.visit(images, SETTLE, learn=False)
        self.memory.recount(self._all_places())

    def finished(self, runs: int, **how) -> Posterior:
        """The exact likelihood of all spots, in the ways and with the weights that their images have now.

        Images of next to no weight are left out: their scale is free to move, and would move the quadrature.
        """
        obs, images = self.store.obs, self.images
        if images.outliers:
            obs = obs.subset((images.weight > COUNTS)[obs.image_id])
        if images.ways is not None:
            obs = reindexed(obs, images.ways, images.choice)
            if self.folder is not None:
                obs = on_disk(obs, self.folder / "reindexed")
        latents, natural = self.collapsed.latents, self.memory.total
        return finished(
            self.weighted(), obs, self.args, latents, self.z, self.names, natural, runs, self.report,
            self.history, self.seed, **how,
        )  # fmt: skip

    def visit(self, images: torch.Tensor, epoch: int, learn: bool = True):
        """One minibatch. Returns L_B and the Gauss-Newton curvature in the shared weights of the scale."""
        places, piece = self.store.batch(images)
        in_batch = torch.full((self.store.obs.n_image,), -1)
        in_batch[images] = torch.arange(len(images))
        image, written = in_batch[piece.image_id], piece.hkl_id
        ways = written[None] if self.images.ways is None else self.images.ways.rows[:, written]
        spot = torch.arange(len(written))
        hkl = ways[self.images.choice[piece.image_id], spot]
        used, rows = torch.unique(ways, return_inverse=True)
        old_hkl, old_rows = hkl, rows[self.images.choice[piece.image_id], spot]
        piece = replace(piece, asu=piece.asu.subset(used), hkl_id=old_rows)
        values = self.collapsed.latents.unpack(self.z)
        others = self.memory.others(images, places, old_rows, used)
        if self.images.undecided and epoch >= SETTLE:
            evidence = hypotheses(
                self.model, piece, self.args, values, rows, others, used, image, len(images)
            )
            self.images.learn(images, evidence)
            choice = self.images.choice[piece.image_id]
            hkl, piece = ways[choice, spot], replace(piece, hkl_id=rows[choice, spot])
        model, known = self.weighted(), self.memory.knows(images)
        share = self.memory.start(places) if known else warm_share(model, piece, self.args, values, others)
        for _ in range(1 if epoch else FIRST):
            a, b = others + torch.zeros_like(others).index_add(1, piece.hkl_id, share)
            F, log_weight = quadrature(prior_of(model, piece, self.args, values), a, b, NODES)
            seen = look(model, piece, self.args, self.collapsed.latents, self.z, F, log_weight)
            self._own_step(images, piece, image, seen)
            share = seen.share
        self.memory.renew(images, places, old_hkl, hkl, share)
        if self.images.quality and epoch >= SETTLE:
            chi = torch.zeros(len(images), dtype=torch.float64).index_add(0, image, seen.chi)
            self.images.weigh(images, chi, torch.bincount(image, minlength=len(images)))
        H = self._curvature(piece, seen)
        if learn:
            self._shared_step(piece, seen)
        return seen.value, H

    def _own_step(self, images, piece, image, seen) -> None:
        """Newton's step for the weights of each image, which count its spots in full: a bad image must find its scale
        before it can be found good."""
        if self.scale is None or not self.own.numel():
            return
        own, where = self.own[images], self.collapsed.latents.sites[self.scale.site].where
        weight = self.images.weight[images] if self.weighted() is not self.model else torch.ones(len(images))
        gradient = seen.gradient[own] / weight[:, None] + seen.log_prior_gradient[own]
        step, self.variance[own] = newton_steps(
            self.scale, self.z[where], piece, image, len(images), seen.information / weight[image], gradient
        )
        self.z[own] += step

    def _shared_step(self, piece, seen) -> None:
        """Adam's step for what images share."""
        gradient = seen.gradient * (self.n_spot / len(piece)) + seen.log_prior_gradient
        if not torch.isfinite(gradient).all():
            sites = self.collapsed.latents.sites.items()
            bad = [k for k, s in sites if not torch.isfinite(gradient[s.where]).all()]
            raise FloatingPointError(
                f"The likelihood is not finite; the gradient fails at the site {', '.join(bad)}."
            )
        self.z.grad = torch.where(self.is_shared, -gradient, 0.0)
        self.adam.step()
        self.schedule.step()

    def _curvature(self, piece, seen) -> torch.Tensor:
        """Σ W x xᵀ of the shared weights of the scale, about the mean of each reflection, (m, m)."""
        if self.scale is None:
            return torch.zeros(0, 0)
        w = self.z[self.collapsed.latents.sites[self.scale.site].where]
        x, _ = self.scale.split_jacobian(w, piece)
        x, W = x.float(), seen.information.float()
        Wx = x * W[:, None]
        n = len(piece.asu)
        total = W.new_zeros(n).index_add(0, piece.hkl_id, W).clamp(min=1e-30)
        mean = x.new_zeros(n, x.shape[1]).index_add(0, piece.hkl_id, Wx)
        return (x.T @ Wx - mean.T @ (mean / total[:, None])).double()

    def _adapt(self, curvature) -> None:
        """Prior sds of the scale from the evidence, at the variances of this epoch."""
        if self.scale is None:
            return
        where = self.collapsed.latents.sites[self.scale.site].where
        shared = self.is_shared[where]
        variance = self.variance[where].clone()
        eye = torch.eye(len(curvature), dtype=torch.float64)
        if int(shared.sum()):
            variance[shared] = torch.linalg.inv(curvature + eye).diagonal().clamp(0, 1)
        w = self.z[where]
        self.z[where] = w / self.scale.adapt(w.clone(), variance)

    def _all_places(self):
        """Places and reflections of all spots, a minibatch at a time."""
        for images in torch.arange(self.store.obs.n_image).tensor_split(self.n_step):
            places, piece = self.store.batch(images)
            hkl = piece.hkl_id
            if self.images.ways is not None:
                hkl = self.images.ways.rows[self.images.choice[piece.image_id], hkl]
            yield places, hkl

    @torch.no_grad()
    def _divergence(self) -> float:
        """Σ_h KL(q(F_h) | p(F_h))."""
        a, b = self.memory.total
        a = a.clamp(min=0)
        obs = self.store.obs
        one = replace(obs.subset(slice(0, 1)), asu=obs.asu)
        q = AmplitudePosterior(
            prior_of(self.model, one, self.args, self.collapsed.latents.unpack(self.z)),
            a,
            b,
            validate_args=False,
        )
        return float((-0.5 * a * q.moment(4) + b * q.moment(2) - q.log_normalizer).sum())

    def capture(self) -> tuple[dict[str, torch.Tensor], dict]:
        """Tensors and JSON state between epochs; copies, since they change in place."""
        tensors = {"z": self.z.clone(), "sd": scale_sds(self.args), "random": self.g.get_state()}
        tensors |= {"variance": self.variance.clone(), "probability": self.images.probability.clone()}
        tensors["quality"] = self.images.quality_weight.clone()
        tensors |= {f"memory.{k}": x for k, x in self.memory.state().items()}
        tensors |= {f"adam.{k}": x.clone() for k, x in self.adam.state.get(self.z, {}).items()}
        schedule = {k: v for k, v in self.schedule.state_dict().items() if k in ("last_epoch", "_last_lr")}
        state = {
            "history": [dict(row) for row in self.history],
            "evaluations": len(self.history) * self.n_step,
            "schedule": schedule,
            "learning_rate": self.adam.param_groups[0]["lr"],
            "seconds": time.monotonic() - self.start,
        }
        return tensors, state

    def restore(self, tensors: dict[str, torch.Tensor], state: dict) -> None:
        """What `capture` returned."""
        self.z.copy_(tensors["z"])
        set_scale_sds(self.args, tensors["sd"])
        self.g.set_state(tensors["random"])
        self.variance = tensors["variance"].clone()
        self.images.probability.copy_(tensors["probability"])
        self.images.quality_weight.copy_(tensors["quality"])
        self.memory.restore({k[7:]: x for k, x in tensors.items() if k.startswith("memory.")})
        self.adam.state[self.z] = {k[5:]: x for k, x in tensors.items() if k.startswith("adam.")}
        self.schedule.load_state_dict(state["schedule"])
        self.adam.param_groups[0]["lr"] = state["learning_rate"]
        self.history = [dict(row) for row in state["history"]]
        self.start = time.monotonic() - state["seconds"]
        for row in self.history:
            self.report(row)
