"""The scale of spots whose amplitudes are those of a structure.

    log K = log K_flat(v; x_i) - α - γ s_i²        α + γ s²: straight line through log ‹|F_calc|²/ε› of the model

A merge has amplitudes with ‹F²› = ε and the whole fall-off in K; a structure has its own fall-off, solvent and all.
Taking its Wilson line off K at the start leaves overall scale and B to the structure as given.
"""

import torch

from bayesref.scaling.scale import Product, Scale


class Anchor(Scale):
    """A given straight line in s², without weights.

    Parameters
    ----------
    stol2, Sigma : (hkl,), s² in Å⁻² and Σ of the model
    """

    def __init__(self, stol2: torch.Tensor, Sigma: torch.Tensor):
        super().__init__([])
        x = torch.stack([torch.ones_like(stol2), stol2], 1)
        self.line = torch.linalg.lstsq(x, Sigma.log()[:, None]).solution[:, 0]

    def features(self, obs):
        return (-(self.line[0] + self.line[1] * obs.stol2),)

    def _evaluate(self, w, obs):
        return self.prepared(obs)[0]

    def jacobian(self, w, obs):
        return w.new_zeros(len(obs), 0)

    def initial(self):
        return torch.zeros(0, dtype=torch.float64)

    def sd(self):
        return torch.zeros(0, dtype=torch.float64)

    def adapt(self, w, variance):
        return torch.ones_like(w)


class StructureScale(Product):
    """A scale with the fall-off of a structure taken off it; its site is "weights".

    Parameters
    ----------
    anchor : Anchor
    flat : the scale of a merge
    begin : (weight,), whitened weights to start from
    """

    site = "weights"

    def __init__(self, anchor: Anchor, flat: Scale, begin: torch.Tensor):
        super().__init__(anchor, *getattr(flat, "terms", (flat,)))
        self.anchor, self.begin = anchor, begin

    def initial(self):
        return self.begin

    def linearized(self, w):
        if self.linear:
            return self
        flat = Product(*self.terms[1:]).linearized(w)
        return StructureScale(self.anchor, flat, self.begin)
