"""A small residual network of the metadata.

    x₀ = W₀ m + b₀,     x_l = x_{l-1} + tanh(W_l x_{l-1} + b_l),     log K = c · x_L          m: metadata of a spot

c starts at zero, so that K starts at one. Weights have normal priors of variance one over the fan-in; the size of c
is learned. Posterior uncertainty is that of the network linearised at its optimum, the Gauss-Newton Laplace
approximation (Immer et al., 2021, AISTATS 130, 703): a nonlinear network at weights drawn from it is meaningless.
"""

import math

import torch

from bayesref.scaling.scale import Group, Scale


class Neural(Scale):
    """Residual network from metadata to log K.

    Parameters
    ----------
    obs : Observations, for the number of metadata columns
    width, depth : size of the hidden layers and their number
    seed : of the starting weights
    """

    linear = False

    def __init__(self, obs, width: int = 12, depth: int = 2, seed: int = 0):
        self.shape = (obs.metadata.shape[1], width, depth)
        n_in, self.seed = self.shape[0], seed
        groups = [Group("W0", n_in * width, n_in**-0.5, False), Group("b0", width, 1.0, False)]
        for i in range(1, depth + 1):
            groups += [Group(f"W{i}", width**2, width**-0.5, False), Group(f"b{i}", width, 1.0, False)]
        super().__init__([*groups, Group("network", width, 1 / math.sqrt(width))])

    def initial(self):
        w = torch.randn(
            self.n_weights, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64
        )
        w[-self.shape[1] :] = 0
        return w

    def features(self, obs):
        return (obs.metadata,)

    def _layers(self, v):
        n_in, width, depth = self.shape
        parts = v.split([g.n for g in self.groups])
        first = (parts[0].reshape(n_in, width), parts[1])
        hidden = [(parts[2 * i].reshape(width, width), parts[2 * i + 1]) for i in range(1, depth + 1)]
        return first, hidden, parts[-1]

    def log_scale(self, v, m):
        (W, b), hidden, c = self._layers(v)
        x = torch.addmm(b, m, W)
        for W, b in hidden:
            x = x + torch.tanh(torch.addmm(b, x, W))
        return x @ c

    def jacobian(self, w, obs):
        """∂ log K/∂w by one backward sweep that keeps the spots apart, (spot, weight)."""
        sd = self.sd().to(w)
        (m,) = self.prepared(obs)
        (W, b), hidden, c = self._layers(w * sd)
        xs, slopes = [torch.addmm(b, m, W)], []
        for W, b in hidden:
            t = torch.tanh(torch.addmm(b, xs[-1], W))
            slopes.append(1 - t**2)
            xs.append(xs[-1] + t)
        columns, back = [xs.pop()], c.expand(len(m), -1)
        for (W, _), slope, x in zip(reversed(hidden), reversed(slopes), reversed(xs), strict=True):
            z = back * slope
            columns = [(x[:, :, None] * z[:, None, :]).flatten(1), z, *columns]
            back = back + z @ W.T
        return torch.cat([(m[:, :, None] * back[:, None, :]).flatten(1), back, *columns], 1) * sd

    def linearized(self, w):
        return _Linearized(self, w.detach())


class _Linearized(Scale):
    """log K(w₀) + ∂ log K/∂w (w - w₀), with the groups of the scale it stands for."""

    def __init__(self, scale: Scale, w0: torch.Tensor):
        super().__init__(list(scale.groups))
        self.scale, self.w0 = scale, w0

    def _evaluate(self, w, obs):
        return sum(torch.func.jvp(lambda x: self.scale._evaluate(x, obs), (self.w0,), (w - self.w0,)))

    def jacobian(self, w, obs):
        return self.scale.jacobian(self.w0, obs)
