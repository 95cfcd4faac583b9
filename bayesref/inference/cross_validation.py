"""Cross-validation: halves of the images, and spots held out.

    halves   : F₁, F₂ from two random halves of the images of each file, at the same scale and error model, or refitted
    held out : I_pred = K E[F²] ± sd for spots that the fit did not see

Frozen scales are what careless does; a refit also shows the errors that both halves have in common.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from bayesref.guides.latents import INTENSITY
from bayesref.inference.collapsed import Collapsed
from bayesref.inference.posterior import Amplitudes, Posterior


@dataclass(frozen=True)
class Halves:
    """Amplitudes of both halves of one repeat; rows without a spot in a half have N = 0 there."""

    repeat: int
    first: Amplitudes
    second: Amplitudes


def half_datasets(
    posterior: Posterior, n_repeats: int, seed: int = 0, refit: Callable | None = None
) -> list[Halves]:
    """Merge random halves of the images of each file, `n_repeats` times.

    Parameters
    ----------
    posterior : of all spots
    refit : Observations -> Posterior, fits one half anew; None = scales and error model of all spots
    """
    obs = posterior.obs
    g = torch.Generator().manual_seed(seed)
    result = []
    for repeat in range(n_repeats):
        side = _sides(obs, g)[obs.image_id]
        halves = []
        for k in (0, 1):
            half = obs.subset(side == k)
            fitted = posterior if refit is None else refit(half)
            halves.append(fitted.amplitudes(half, seed=seed + 2 * repeat + k))
        result.append(Halves(repeat, *halves))
    return result


def _sides(obs, generator):
    """0 or 1 for each image, half of the images of every file each, (image,)."""
    file_of = torch.zeros(obs.n_image, dtype=torch.int64)
    file_of[obs.image_id] = obs.file_id
    side = torch.zeros(obs.n_image, dtype=torch.int64)
    for f in file_of.unique():
        images = (file_of == f).nonzero()[:, 0]
        side[images[torch.randperm(len(images), generator=generator)]] = torch.arange(len(images)) % 2
    return side


def hold_out(obs, fraction: float, seed: int = 0) -> torch.Tensor:
    """Which spots to hold out, (spot,) bool: each with probability `fraction`."""
    g = torch.Generator().manual_seed(seed)
    return torch.rand(len(obs), generator=g) < fraction


@dataclass(frozen=True)
class Predictions:
    """What the posterior expects of each spot.

    Attributes
    ----------
    I, SIGI : (spot,) expected intensity K E[F²] and sd of a measurement about it, amplitude and error model included
    K : (spot,) scale
    precision : (spot,) λ, the weight of the spot in its amplitude, 1/I²
    blank : (spot,) probability that the spot is a blank, zero where the model knows none
    """

    I: torch.Tensor
    SIGI: torch.Tensor
    K: torch.Tensor
    precision: torch.Tensor
    blank: torch.Tensor


@torch.no_grad()
def predict(posterior: Posterior, obs=None) -> Predictions:
    """Expected intensity of each spot of `obs`, at the mean of the latents.

    Amplitudes are those of the spots that were fitted; `obs` may be other spots of the same asu.
    """
    fitted, obs = posterior.obs, posterior.obs if obs is None else obs
    amplitudes = posterior.amplitudes(fitted, n_draws=1)
    values = posterior.latents.unpack(posterior.mean)
    collapsed = Collapsed(posterior.model, obs, posterior.args, posterior.latents)
    collapsed.refresh(posterior.mean)
    rows, start = [], 0
    for piece, moments in zip(collapsed.pieces, collapsed.moments, strict=True):
        mine = slice(start, start + len(piece.asu))
        start += len(piece.asu)
        m2, v2 = amplitudes.I[mine], amplitudes.SIGI[mine] ** 2
        K = collapsed.run(piece, values).nodes[INTENSITY]["fn"].loc
        law = collapsed.run(piece, values, m2.sqrt()).nodes[INTENSITY]["fn"]
        sd = (law.scale**2 + K**2 * v2[piece.hkl_id]).sqrt()
        blank = torch.zeros_like(K)
        if hasattr(law, "components"):
            spot, none = law.components(piece.I)
            blank = (none - torch.logaddexp(spot, none)).exp().expand_as(K)
        rows.append((K * m2[piece.hkl_id], sd, K, moments.precision, blank))
    return Predictions(*(torch.cat(x) for x in zip(*rows, strict=True)))
