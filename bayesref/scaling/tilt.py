"""The error of each still's orientation, as far as partiality shows it.

    x'_i = x_i + a_j q_y - b_j q_x         a crystal turned by small angles a_j, b_j about the axes across the beam
    log K_i = -x'_i²/2w² + ... = ... - (x_i/w²)(a_j q_y - b_j q_x) + O(a², b²)
            = t_j u_i + r_j v_i,           u, v = x_i (s1x, s1y)/rms,     (t, r)_j ~ Normal(0, sd), sd learned

x: distance of spot i from the Ewald sphere, `ewald_offset`, as the written orientation has it; q = s₁ - s₀, which
across the beam is s₁, `s1x` and `s1y`. Turning about the beam itself changes no x. What is left out, the square of the
turn, falls with the resolution as a B factor does. The term `rocking` has the width w_j.
"""

import torch

from bayesref._checks import InputError
from bayesref.scaling.scale import Group, Scale

KEYS = ("ewald_offset", "s1x", "s1y")


class Tilt(Scale):
    """Two weights for each image: the error of its orientation about the two axes across the beam.

    Parameters
    ----------
    obs : Observations with `ewald_offset`, `s1x` and `s1y` among their metadata

    Raises
    ------
    InputError : one of them is not
    """

    def __init__(self, obs):
        super().__init__([Group("image tilt", 2 * obs.n_image, 0.1)])
        missing = [k for k in KEYS if k not in obs.metadata_keys]
        if missing:
            raise InputError(
                f"The term tilt needs {', '.join(KEYS)} among the metadata; {' and '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} not there: add to --metadata (CrystFEL streams have them)."
            )
        self.columns, self.n_image = [obs.metadata_keys.index(k) for k in KEYS], obs.n_image
        # Zero is the sphere, and the beam, whatever the means of the spots are.
        self.zero = torch.tensor([_zero(obs.transform, k) for k in KEYS], dtype=torch.float64)
        self.spread = self._products(obs).square().mean().sqrt().clamp(min=1e-6)

    def _products(self, obs):
        x, s1x, s1y = (obs.metadata[:, self.columns] - self.zero).unbind(1)
        return torch.stack([x * s1x, x * s1y], 1)

    def features(self, obs):
        return obs.image_id, self._products(obs) / self.spread

    def log_scale(self, v, image, u):
        return (v.reshape(self.n_image, 2)[image] * u).sum(1)

    def basis(self, image, u):
        J = u.new_zeros(len(u), self.n_image, 2)
        J[torch.arange(len(u), device=u.device), image] = u
        return J.flatten(1)

    def image_columns(self):
        return torch.arange(2 * self.n_image).reshape(-1, 2)

    def split_jacobian(self, w, obs):
        _, u = self.prepared(obs)
        return u.new_zeros(len(u), 0), self.sd().to(w)[0] * u


def _zero(transform, key) -> float:
    if transform is None:
        return 0.0
    at = list(transform.keys).index(key)
    return -float(transform.mean[at] / transform.sd[at])
