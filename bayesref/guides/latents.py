"""The latent variables of a model, amplitudes aside, as one unconstrained vector.

    θ = (T_1(z_1), T_2(z_2), ...),     log p(z) = Σ log p(θ) + log |∂T/∂z|

A model that bayesref fits samples amplitudes at the site "F", observes intensities at the site "I", and may sample
anything continuous besides. Those other sites are laid end to end in z; the sites that `pyro.condition` fixes
are data, and do not appear.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import pyro
import torch
from pyro import poutine
from torch.distributions import Transform, biject_to

from bayesref._checks import InputError

AMPLITUDE, INTENSITY = "F", "I"


@dataclass(frozen=True)
class Site:
    """One latent site: its place in z, its shape and its transform from the real numbers."""

    where: slice
    shape: torch.Size
    transform: Transform
    start: torch.Tensor


@contextmanager
def unchecked():
    """No argument checks within, and what they were before afterwards.

    Pyro restores its own record of them, which at first says that torch's are off though they are on.
    """
    before = torch.distributions.Distribution._validate_args
    try:
        with pyro.validation_enabled(False):
            yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


def trace_model(model, args, values):
    """Trace of the model with these sites set, without argument checks (they read values back).

    Handlers outside, such as the trace of a guide that calls this, do not see the sites.
    """
    with unchecked(), poutine.block():
        return poutine.trace(poutine.condition(model, data=values)).get_trace(*args)


class Latents:
    """Sites of `model(*args)` that are sampled, except the amplitudes.

    Parameters
    ----------
    model : Pyro model with sites "F" and "I"
    args : its arguments

    Raises
    ------
    InputError : no site "F", or "I" is not observed
    """

    def __init__(self, model, args):
        with torch.no_grad(), unchecked():
            trace = poutine.trace(model).get_trace(*args)
        sites = {
            name: s for name, s in trace.nodes.items()
            if s["type"] == "sample" and not isinstance(s["fn"], poutine.subsample_messenger._Subsample)
        }  # fmt: skip
        if AMPLITUDE not in sites or INTENSITY not in sites or not sites[INTENSITY]["is_observed"]:
            raise InputError(
                f"The model samples {', '.join(sites) or 'nothing'}; it must sample amplitudes at the site 'F' and "
                "observe intensities at the site 'I' (see models/merge.py)."
            )
        self.amplitudes = sites[AMPLITUDE]["fn"]  # their prior, at a draw of the other sites
        self.sites: dict[str, Site] = {}
        n = 0
        for name, s in sites.items():
            if s["is_observed"] or name == AMPLITUDE:
                continue
            transform = biject_to(s["fn"].support)
            start = transform.inv(_typical(s["fn"]))
            self.sites[name] = Site(slice(n, n + start.numel()), start.shape, transform, start.reshape(-1))
            n += start.numel()
        self.n = n

    def start(self) -> torch.Tensor:
        """z at the prior's median or mean, (latent,)."""
        parts = [s.start for s in self.sites.values()]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    def initial(self, args) -> torch.Tensor:
        """`start`, with the sites of the scales among `args` where those want to start."""
        z = self.start()
        for a in args:
            if hasattr(a, "initial") and a.site in self.sites:
                z[self.sites[a.site].where] = a.initial().to(z)
        return z

    def columns(self, names) -> torch.Tensor:
        """Places in z of the sites `names`, (n,) int64."""
        index = [torch.arange(self.n)[self.sites[k].where] for k in names]
        return torch.cat(index) if index else torch.zeros(0, dtype=torch.int64)

    def unpack(self, z: torch.Tensor) -> dict[str, torch.Tensor]:
        """Values of the sites, in their own shapes and units."""
        return {k: s.transform(z[s.where].reshape(s.shape)) for k, s in self.sites.items()}

    def pack(self, values: dict[str, torch.Tensor]) -> torch.Tensor:
        """The inverse of `unpack`, (latent,)."""
        return torch.cat([s.transform.inv(values[k]).reshape(-1) for k, s in self.sites.items()])

    def log_prior(self, z: torch.Tensor, values, priors) -> torch.Tensor:
        """log p(z) with the Jacobian of the transforms, from `unpack(z)` and the prior of each site."""
        total = z.new_zeros(())
        for k, s in self.sites.items():
            total = total + priors[k].log_prob(values[k]).sum()
            total = total + s.transform.log_abs_det_jacobian(z[s.where].reshape(s.shape), values[k]).sum()
        return total


def _typical(fn):
    """A point well inside the prior: the median where there is one, else the mean, else a draw."""
    base = fn
    while hasattr(base, "base_dist"):
        if isinstance(base, torch.distributions.LogNormal):
            return base.loc.exp().expand(fn.shape())
        base = base.base_dist
    try:
        mean = fn.mean
        return mean.expand(fn.shape()).clone() if torch.isfinite(mean).all() else fn.sample()
    except NotImplementedError:
        return fn.sample()
