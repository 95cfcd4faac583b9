"""The width of the rocking curve of each image, beside the one that all share.

    log K_i = r_j v_i,      v = (x² - ‹x²›)/sd(x²),   x: distance of spot i from the Ewald sphere, `ewald_offset`
    r_j ~ Normal(0, sd)                                sd learned: images are shrunk towards the common curve

A Gaussian curve exp(-x²/2 w_j²) has r_j = -sd(x²)/(2 w_j²) + its mean, which a smooth function of x takes, and a factor
for the image, which the term `image` takes. x is known to the accuracy of the image's orientation only.
"""

import torch

from bayesref._checks import InputError
from bayesref.scaling.scale import Group, Scale

KEY = "ewald_offset"


class Rocking(Scale):
    """One weight for each image on the squared distance from the Ewald sphere.

    Parameters
    ----------
    obs : Observations with `ewald_offset` among their metadata

    Raises
    ------
    InputError : it is not
    """

    def __init__(self, obs):
        super().__init__([Group("image rocking", obs.n_image, 0.1)])
        if KEY not in obs.metadata_keys:
            raise InputError(
                f"The term rocking needs {KEY} among the metadata; it has {', '.join(obs.metadata_keys) or 'none'}: "
                "add it to --metadata (stills in CrystFEL streams and DIALS files have it)."
            )
        self.column, self.n_image = obs.metadata_keys.index(KEY), obs.n_image
        # x = 0 is the sphere, whatever the mean of the spots is.
        at = list(obs.transform.keys).index(KEY) if obs.transform is not None else 0
        self.zero = 0.0 if obs.transform is None else -float(obs.transform.mean[at] / obs.transform.sd[at])
        x2 = (obs.metadata[:, self.column] - self.zero) ** 2
        self.mean, self.spread = float(x2.mean()), max(float(x2.std()), 1e-6)

    def features(self, obs):
        x2 = (obs.metadata[:, self.column] - self.zero) ** 2
        return obs.image_id, (x2 - self.mean) / self.spread

    def log_scale(self, v, image, x2):
        return v[image] * x2

    def basis(self, image, x2):
        J = x2.new_zeros(len(x2), self.n_image)
        J[torch.arange(len(x2), device=x2.device), image] = x2
        return J

    def image_columns(self):
        return torch.arange(self.n_image)[:, None]

    def split_jacobian(self, w, obs):
        _, x2 = self.prepared(obs)
        return x2.new_zeros(len(x2), 0), (self.sd().to(w)[0] * x2)[:, None]
