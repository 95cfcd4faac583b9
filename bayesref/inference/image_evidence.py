"""What the error model loses to the weights of single images: the evidence, not the height of the peak.

    log p(I | θ) ≈ log p(I, ŵ | θ) - ½ Σ_j log |A_j|,     A_j = 1 + Σ_{i in j} W_i x_i x_iᵀ,   x_i = ∂ log K_i/∂w_j
    W_i = K_i² E F⁴ f_i,   f = (ν + 1)/((ν + 3) σ'²): Fisher's information of Student's t, 1/σ'² of a normal law

Each still has some weights of its own (scale, B, rocking width, ...), and twenty to sixty spots. At the peak ŵ
residuals are smaller than errors, as with n - p degrees of freedom, and however many stills there are: an error model
fitted there is too small (Neyman & Scott, 1948, Econometrica 16, 1). log |A_j| falls as σ' grows: that makes up.
In the error model's sites it is taken along its tangent, -½ Σ_i l_i W_i(θ) with the leverages l_i = x_iᵀ A_j⁻¹ x_i of
the last E-step: a bound, which touches where the fit comes to rest. A spot that is nearly all that is known of its
amplitude says little of its scale, so that W_i counts by the share 1 - W_i/(Σ_h W + τ).
"""

import torch

from bayesref.guides.latents import AMPLITUDE, INTENSITY
from bayesref.inference.curvature import _log_intensity_curvature


class ImageEvidence:
    """The term beside log p(I, z), a function of the values of the sites; `refresh` before use.

    Parameters
    ----------
    collapsed : Collapsed, after an E-step
    scale : the scale, with weights of images
    """

    def __init__(self, collapsed, scale):
        self.collapsed, self.scale = collapsed, scale
        self.amplitudes: list[torch.Tensor] = []
        self.leverage: list[torch.Tensor] = []
        self.start, self.value = 0.0, 0.0

    @torch.no_grad()
    def refresh(self, z: torch.Tensor) -> None:
        """Leverages at z, with the amplitudes of the last E-step."""
        values = self.collapsed.latents.unpack(z)
        w, n_image = values[self.scale.site], len(self.scale.image_columns())
        k = self.scale.image_columns().shape[1]
        A = torch.eye(k, dtype=z.dtype).repeat(n_image, 1, 1)
        shares, self.amplitudes = [], [m.m4**0.25 for m in self.collapsed.moments]
        for piece, F, m in zip(self.collapsed.pieces, self.amplitudes, self.collapsed.moments, strict=True):
            trace = self.collapsed.run(piece, values, F)
            W = information(trace.nodes[INTENSITY]["fn"])
            tau = _log_intensity_curvature(trace.nodes[AMPLITUDE]["fn"], m.m2)
            total = torch.zeros_like(tau).index_add(0, piece.hkl_id, W) + tau
            shares.append(1 - W / total[piece.hkl_id])
            _, x = self.scale.split_jacobian(w, piece)
            A.index_add_(0, piece.image_id, (shares[-1] * W)[:, None, None] * x[:, :, None] * x[:, None, :])
        inverse, self.leverage = torch.linalg.inv(A), []
        for piece, share in zip(self.collapsed.pieces, shares, strict=True):
            _, x = self.scale.split_jacobian(w, piece)
            self.leverage.append(share * torch.einsum("si,sij,sj->s", x, inverse[piece.image_id], x))
        self.start, self.value = float(self._tangent(values)), -0.5 * float(torch.logdet(A).sum())

    def _tangent(self, values) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for piece, F, leverage in zip(self.collapsed.pieces, self.amplitudes, self.leverage, strict=True):
            law = self.collapsed.run(piece, values, F).nodes[INTENSITY]["fn"]
            total = total - 0.5 * (leverage * information(law)).sum()
        return total

    def __call__(self, values) -> torch.Tensor:
        # In the scale itself the peak stays where it is: an image's weights are what is integrated over.
        held = {k: v.detach() if k == self.scale.site else v for k, v in values.items()}
        return self._tangent(held) - self.start + self.value


def information(law) -> torch.Tensor:
    """Of one spot about log K, (spot,), where it is expected."""
    f = 1 / law.variance if not hasattr(law, "components") else (law.df + 1) / ((law.df + 3) * law.scale**2)
    return getattr(law, "weight", 1.0) * law.loc**2 * f


def image_evidence(collapsed, rest: torch.Tensor) -> ImageEvidence | None:
    """The term, where images have weights of their own and `rest`, places of sites other than the scale, are fitted."""
    scales = [a for a in collapsed.args if hasattr(a, "image_columns") and a.image_columns().numel()]
    return ImageEvidence(collapsed, scales[0]) if len(rest) and len(scales) == 1 else None
