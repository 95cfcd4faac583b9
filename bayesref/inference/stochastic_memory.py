"""What the spots say of the amplitudes, kept between minibatches as natural parameters (a, b) of each reflection.

    Shares    (a, b) <- (a, b) - Σ_{i in B} old share + Σ_{i in B} new share            each spot's share is kept
    Running   (a, b) <- (1 - ρ_t)(a, b) + ρ_t (N/n)(a_B, b_B),   ρ_t = (t + 1)^-0.7    nothing is kept of a spot

Both are natural-gradient steps of q(F_h) ∝ p(F_h) exp(-a_h F⁴/2 + b_h F²), N/n: images over images of the batch
(Hoffman et al., 2013, J. Mach. Learn. Res. 14, 1303). Shares have no noise of minibatches (Hughes & Sudderth, 2013,
NeurIPS 26) and know what the others say of an image; they take 16 bytes of each spot, in memory or in a file. Running
takes 16 bytes of each reflection.
"""

import math
from pathlib import Path

import torch

DECAY = 0.7  # of ρ_t; above 1/2, so that the noise dies, and below 1, so that the start is forgotten


class Shares:
    """(a, b) with the share of every spot.

    Parameters
    ----------
    n_hkl, n_spot, n_image : sizes
    file : where to keep the shares; None: in memory
    """

    def __init__(self, n_hkl: int, n_spot: int, n_image: int, file: Path | None = None):
        self.total = torch.zeros(2, n_hkl, dtype=torch.float64)
        if file is None or not n_spot:
            self.share = torch.zeros(n_spot, 2, dtype=torch.float64)
        else:
            with file.open("wb") as f:
                f.truncate(16 * n_spot)
            self.share = torch.from_file(
                str(file), shared=True, size=2 * n_spot, dtype=torch.float64
            ).reshape(n_spot, 2)
        self.known = torch.zeros(n_image, dtype=torch.bool)

    def others(self, images, places, rows, used) -> torch.Tensor:
        """(a, b) of the reflections `used` that other images give, (2, hkl used).

        Parameters
        ----------
        images : of the batch; places : of their spots in the order of images; rows : row in `used` of each
        """
        own = torch.zeros(2, len(used), dtype=torch.float64).index_add(1, rows, self.share[places].T)
        return _possible(self.total[:, used] - own)

    def knows(self, images) -> bool:
        """Whether all these images have been seen."""
        return bool(self.known[images].all())

    def start(self, places) -> torch.Tensor:
        """Last shares of these spots, (2, spot)."""
        return self.share[places].T

    def renew(self, images, places, old_hkl, hkl, share) -> None:
        """New shares (2, spot) of a batch, whose spots were of the reflections `old_hkl` and are now of `hkl`."""
        self.total.index_add_(1, old_hkl, -self.share[places].T)
        self.total.index_add_(1, hkl, share)
        self.share[places] = share.T
        self.known[images] = True

    def recount(self, batches) -> None:
        """Totals anew from the shares: sums and differences leave rounding behind. `batches` gives places and hkl."""
        self.total.zero_()
        for places, hkl in batches:
            self.total.index_add_(1, hkl, self.share[places].T)

    def state(self) -> dict[str, torch.Tensor]:
        """All of it, to save."""
        return {"share": self.share.clone(), "total": self.total.clone(), "known": self.known.clone()}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Put a `state` back."""
        self.share.copy_(state["share"])
        self.total, self.known = state["total"].clone(), state["known"].clone()


class Running:
    """(a, b) as a running mean over minibatches."""

    def __init__(self, n_hkl: int, n_image: int):
        self.total = torch.zeros(2, n_hkl, dtype=torch.float64)
        self.known = torch.zeros(n_image, dtype=torch.bool)
        self.n_image, self.step = n_image, 0

    def others(self, images, places, rows, used) -> torch.Tensor:
        """(a, b) without this batch's part, which is n/N of it on average."""
        fraction = len(images) / self.n_image
        return _possible(self.total[:, used] * (1 - fraction if bool(self.known[images].all()) else 1.0))

    def knows(self, images) -> bool:
        """Nothing is known of an image by itself."""
        return False

    def start(self, places) -> torch.Tensor:
        """Nothing is known of a spot: zeros."""
        return torch.zeros(2, len(places), dtype=torch.float64)

    def renew(self, images, places, old_hkl, hkl, share) -> None:
        """The step of the module's text."""
        batch = torch.zeros_like(self.total).index_add(1, hkl, share)
        rho = (self.step + 1) ** -DECAY
        self.total = (1 - rho) * self.total + rho * (self.n_image / len(images)) * batch
        self.step += 1
        self.known[images] = True

    def recount(self, batches) -> None:
        """Nothing to do: no rounding is left behind."""

    def state(self) -> dict[str, torch.Tensor]:
        """All of it, to save."""
        return {"total": self.total.clone(), "known": self.known.clone(), "step": torch.tensor(self.step)}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Put a `state` back."""
        self.total, self.known, self.step = state["total"].clone(), state["known"].clone(), int(state["step"])


def _possible(natural: torch.Tensor) -> torch.Tensor:
    """a not below zero, where rounding may put it."""
    return natural.clamp(min=torch.tensor([[0.0], [-math.inf]], dtype=natural.dtype))
