"""A scale that reads each image: one small network for all images, instead of weights for each.

    t_s = (asinh I_s/σ_s, asinh I_s/⟨I⟩, m_s, u_s)                              spot s of image j, standardised
    e_j = mean_{s in S_j} tanh(A t_s + a)                                          what the image is like, a few numbers
    x₀ = W₀ (m_i, u_i, e_j) + b₀,   x_l = x_{l-1} + tanh(W_l x_{l-1} + b_l),   log K_i = c · x_L

m: metadata, u: s² standardised, ⟨I⟩: mean intensity at that resolution. Pooling makes e_j independent of the number and
order of spots (Zaheer et al., 2017, NeurIPS 30); S_j are at most `n_sample` spots, spread over resolution, kept here so
that an image can be read wherever one of its spots is. An image has no weights of its own, so that the scale of a weak
image is one that images like it have; together with `image`, that term takes what the network leaves.

Weights have normal priors of variance one over the fan-in, the size of c is learned, c starts at zero. The
posterior is that of the network linearised at its optimum, as for `scaling.neural`.
"""

import math

import torch

from bayesref.scaling.neural import _Linearized
from bayesref.scaling.scale import Group, Scale

BINS = 20


class Amortised(Scale):
    """Scale from a pooled reading of each image.

    Parameters
    ----------
    obs : Observations; their images are the ones that can be read
    width, depth : size of the hidden layers and their number
    n_embed : numbers that an image is read into
    n_sample : spots of an image that are read
    seed : of the starting weights
    """

    linear = False

    def __init__(self, obs, width=8, depth=1, n_embed=4, n_sample=24, seed=0):
        s2 = obs.stol2
        self.mean, self.spread, self.seed = float(s2.mean()), max(float(s2.std()), 1e-6), seed
        self.table, self.count = self._read(obs, n_sample)
        n_read, n_spot = self.table.shape[2], obs.metadata.shape[1] + 1
        self.shape = (n_read, n_embed, n_spot, width, depth)
        n_in = n_spot + n_embed
        groups = [Group("A", n_read * n_embed, n_read**-0.5, False), Group("a", n_embed, 1.0, False)]
        groups += [Group("W0", n_in * width, n_in**-0.5, False), Group("b0", width, 1.0, False)]
        for i in range(1, depth + 1):
            groups += [Group(f"W{i}", width**2, width**-0.5, False), Group(f"b{i}", width, 1.0, False)]
        super().__init__([*groups, Group("amortised", width, 1 / math.sqrt(width))])

    def initial(self):
        g = torch.Generator().manual_seed(self.seed)
        w = torch.randn(self.n_weights, generator=g, dtype=torch.float64)
        w[-self.shape[3] :] = 0
        return w

    def _spot(self, obs):
        """(m, u) of each spot, (spot, n_spot)."""
        return torch.cat([obs.metadata, ((obs.stol2 - self.mean) / self.spread)[:, None]], 1)

    def _read(self, obs, n_sample):
        """t of the spots that are read, (image, n_sample, n_read), zero where there are fewer, and their number."""
        s2, image = obs.stol2, obs.image_id
        edges = torch.quantile(obs.asu.stol2, torch.linspace(0, 1, BINS + 1, dtype=torch.float64)[1:-1])
        which = torch.bucketize(s2, edges)
        n = torch.bincount(which, minlength=BINS).clamp(min=1)
        mean = (obs.I.new_zeros(BINS).index_add(0, which, obs.I) / n).clamp(min=1e-12)
        t = torch.stack([torch.asinh(obs.I / obs.SIGI), torch.asinh(obs.I / mean[which])], 1)
        t = torch.cat([t, self._spot(obs)], 1)
        t = (t - t.mean(0)) / t.std(0).clamp(min=1e-6)
        # Spots in the order of resolution within each image, every n-th of them.
        order = torch.argsort(s2, stable=True)
        order = order[torch.argsort(image[order], stable=True)]
        counts = torch.bincount(image, minlength=obs.n_image)
        rank = torch.arange(len(image)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        total = counts[image[order]]
        place = rank * n_sample // total.clamp(min=n_sample)
        new = torch.ones(len(image), dtype=torch.bool)
        new[1:] = (place[1:] != place[:-1]) | (image[order][1:] != image[order][:-1])
        table = torch.zeros(obs.n_image, n_sample, t.shape[1], dtype=torch.float64)
        table[image[order][new], place[new]] = t[order[new]]
        return table, torch.bincount(image[order][new], minlength=obs.n_image).clamp(min=1)

    def features(self, obs):
        images, inverse = torch.unique(obs.image_id, return_inverse=True)
        return self._spot(obs), images, inverse

    def _layers(self, v):
        n_read, n_embed, n_spot, width, depth = self.shape
        parts = v.split([g.n for g in self.groups])
        embed = (parts[0].reshape(n_read, n_embed), parts[1])
        first = (parts[2].reshape(n_spot + n_embed, width), parts[3])
        hidden = [(parts[2 * i + 2].reshape(width, width), parts[2 * i + 3]) for i in range(1, depth + 1)]
        return embed, first, hidden, parts[-1]

    def _pooled(self, A, a, images):
        """e of these images, (image, n_embed), tanh of their spots, and which spots there are."""
        there = torch.arange(self.table.shape[1]) < self.count[images][:, None]
        t = torch.tanh(self.table[images] @ A + a) * there[:, :, None]
        return t.sum(1) / self.count[images][:, None], t, there

    def log_scale(self, v, x, images, inverse):
        (A, a), (W, b), hidden, c = self._layers(v)
        e, _, _ = self._pooled(A, a, images)
        x = torch.addmm(b, torch.cat([x, e[inverse]], 1), W)
        for W, b in hidden:
            x = x + torch.tanh(torch.addmm(b, x, W))
        return x @ c

    def jacobian(self, w, obs):
        """∂ log K/∂w by one backward sweep that keeps the spots apart, (spot, weight)."""
        sd = self.sd().to(w)
        x, images, inverse = self.prepared(obs)
        (A, a), (W0, b0), hidden, c = self._layers(w * sd)
        e, t, there = self._pooled(A, a, images)
        inputs = torch.cat([x, e[inverse]], 1)
        xs, slopes = [torch.addmm(b0, inputs, W0)], []
        for W, b in hidden:
            y = torch.tanh(torch.addmm(b, xs[-1], W))
            slopes.append(1 - y**2)
            xs.append(xs[-1] + y)
        columns, back = [xs.pop()], c.expand(len(x), -1)
        for (W, _), slope, y in zip(reversed(hidden), reversed(slopes), reversed(xs), strict=True):
            z = back * slope
            columns = [(y[:, :, None] * z[:, None, :]).flatten(1), z, *columns]
            back = back + z @ W.T
        columns = [(inputs[:, :, None] * back[:, None, :]).flatten(1), back, *columns]
        # e_jk depends on the k-th column of A alone.
        slope = (1 - t**2) * there[:, :, None] / self.count[images][:, None, None]
        to_A = torch.einsum("jst,jsk->jtk", self.table[images], slope)[inverse]
        to_e = (back @ W0[x.shape[1] :].T)[:, None, :]
        own = [(to_A * to_e).flatten(1), (slope.sum(1)[inverse][:, None] * to_e).flatten(1)]
        return torch.cat([*own, *columns], 1) * sd

    def linearized(self, w):
        return _Linearized(self, w.detach())
