"""One scale and one B factor for each image.

    log K_i = k_j + B_j u_i,      j = image of spot i,   u = (s² - ‹s²›)/sd(s²)
    k_j ~ Normal(0, sd_k),  B_j ~ Normal(0, sd_B)          sd learned: images are shrunk towards their mean

Whatever varies smoothly with the image number belongs to another term; this one takes what does not.
"""

import torch

from bayesref.scaling.scale import Group, Scale


class ImageWise(Scale):
    """Scale and B of each image, shrunk by a learned prior.

    Parameters
    ----------
    obs : Observations
    """

    def __init__(self, obs):
        super().__init__([Group("image k", obs.n_image, 0.3), Group("image B", obs.n_image, 0.1)])
        s2 = obs.stol2
        self.n_image, self.mean, self.spread = obs.n_image, float(s2.mean()), max(float(s2.std()), 1e-6)

    def features(self, obs):
        return obs.image_id, (obs.stol2 - self.mean) / self.spread

    def log_scale(self, v, image, u):
        return v[image] + v[self.n_image + image] * u

    def basis(self, image, u):
        J = u.new_zeros(len(u), 2 * self.n_image)
        rows = torch.arange(len(u), device=u.device)
        J[rows, image], J[rows, self.n_image + image] = 1.0, u
        return J

    def image_columns(self):
        j = torch.arange(self.n_image)
        return torch.stack([j, self.n_image + j], 1)

    def split_jacobian(self, w, obs):
        _, u = self.prepared(obs)
        sd = self.sd().to(w)
        local = torch.stack([sd[0].expand_as(u), sd[-1] * u], 1)
        return local.new_zeros(len(u), 0), local
