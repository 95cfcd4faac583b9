"""A model of few latent numbers as a function of one vector.

    z   unconstrained, where optimisers work
    y   natural: as z, save that fractions are themselves, in [0, 1], and points of a simplex their first coordinates
    log p(data, y) = Σ log p(site) + Σ log |∂site/∂y|

In y what the data say of occupancies is nearly normal and only cut off by their bounds; in z it has a long tail
towards every bound.
"""

import math
from dataclasses import dataclass

import pyro
import torch
from pyro import poutine
from torch.distributions import biject_to, constraints

from bayesref.guides.latents import trace_model, unchecked

INSIDE = 2e-3  # from a bound: where slopes are taken


@dataclass(frozen=True)
class _Site:
    """Where a site lies in the vector, how it is made of it, and what bounds it: "", "unit" or "simplex"."""

    where: slice
    shape: torch.Size
    transform: torch.distributions.Transform
    bounds: str


def _bounds(support) -> str:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if support is constraints.simplex:
        return "simplex"
    return "unit" if support is constraints.unit_interval else ""


def _deterministic(site) -> bool:
    """Whether a site was made by `pyro.deterministic`."""
    return site["type"] == "sample" and site["infer"].get("_deterministic", False)


class SmallProblem:
    """Log density of `model(*args)` with its slopes.

    Attributes
    ----------
    n : length of the vector
    groups : indices of those coordinates that are at least zero and whose sum is at most one, a list for each group
    latent : names of the sites
    """

    def __init__(self, model, args, seed: int = 0):
        self.model, self.args = model, args
        self.sites: dict[str, _Site] = {}
        self.groups: list[list[int]] = []
        self.n = 0
        with unchecked(), torch.no_grad():
            pyro.set_rng_seed(seed)
            trace = poutine.trace(model).get_trace(*args)
        for name, s in trace.nodes.items():
            if s["type"] != "sample" or s["is_observed"] or _deterministic(s):
                continue
            if isinstance(s["fn"], poutine.subsample_messenger._Subsample):
                continue
            transform, bounds = biject_to(s["fn"].support), _bounds(s["fn"].support)
            shape = transform.inv(s["value"]).shape
            where = slice(self.n, self.n + math.prod(shape))
            self.sites[name] = _Site(where, shape, transform, bounds)
            if bounds:
                rows = torch.arange(where.start, where.stop).reshape(
                    -1, shape[-1] if bounds == "simplex" else 1
                )
                self.groups += rows.tolist()
            self.n = where.stop

    @property
    def latent(self) -> tuple[str, ...]:
        """Names of the sites."""
        return tuple(self.sites)

    def natural(self, z):
        """y of z."""
        parts = []
        for s in self.sites.values():
            x = z[s.where].reshape(s.shape)
            if s.bounds:
                x = s.transform(x)
                x = x[..., :-1] if s.bounds == "simplex" else x
            parts.append(x.reshape(-1))
        return torch.cat(parts)

    def values(self, y):
        """{site: value} and log |∂site/∂y| of natural coordinates."""
        out, log_slope = {}, torch.zeros((), dtype=torch.float64)
        for name, s in self.sites.items():
            x = y[s.where].reshape(s.shape)
            if s.bounds == "simplex":
                x = torch.cat([x, 1 - x.sum(-1, keepdim=True)], -1)
            elif not s.bounds:
                value = s.transform(x)
                log_slope = log_slope + s.transform.log_abs_det_jacobian(x, value).sum()
                x = value
            out[name] = x
        return out, log_slope

    def unconstrained(self, values):
        """z of {site: value}."""
        return torch.cat([s.transform.inv(values[k]).reshape(-1).double() for k, s in self.sites.items()])

    def draws(self, n: int, seed: int):
        """n draws of the prior, (n, latent), as z."""
        rows = []
        with unchecked(), torch.no_grad():
            pyro.set_rng_seed(seed)
            for _ in range(n):
                trace = poutine.trace(poutine.block(self.model, expose=list(self.sites))).get_trace(
                    *self.args
                )
                rows.append(self.unconstrained({k: trace.nodes[k]["value"] for k in self.sites}))
        return torch.stack(rows)

    def log_joint(self, y):
        """log p(data, y), differentiable."""
        values, log_slope = self.values(y)
        with unchecked():
            return trace_model(self.model, self.args, values).log_prob_sum() + log_slope

    def value_and_grad(self, x, of=None):
        """log p(data, y) and its slopes in x, where y = of(x), or x itself."""
        x = x.detach().requires_grad_()
        value = self.log_joint(x if of is None else of(x))
        (grad,) = torch.autograd.grad(value, x)
        return float(value.detach()), grad

    def value(self, y) -> float:
        """log p(data, y)."""
        with torch.no_grad():
            return float(self.log_joint(y))

    def evaluate(self, y, observed: str | tuple[str, ...]):
        """What is kept of a draw.

        Returns
        -------
        sites : {name: value}, with what `pyro.deterministic` records
        log_prior : {name: log density of a latent site}
        log_likelihood : of each observation of the site `observed`, or of several one after the other
        log_joint : log p(data, y)
        """
        with torch.no_grad():
            trace, log_slope = self._trace(y)
        nodes = trace.nodes
        recorded = [k for k, s in nodes.items() if k in self.sites or _deterministic(s)]
        return (
            {k: nodes[k]["value"] for k in recorded},
            {k: nodes[k]["log_prob"].sum() for k in self.sites},
            nodes[observed]["log_prob"]
            if isinstance(observed, str)
            else torch.cat([nodes[k]["log_prob"] for k in observed]),
            float(trace.log_prob_sum() + log_slope),
        )

    def replicate(self, y, observed: str | tuple[str, ...]):
        """A draw of what might have been observed at y: a tensor, or {site: tensor} of several sites."""
        with torch.no_grad():
            nodes = self._trace(y)[0].nodes
            if isinstance(observed, str):
                return nodes[observed]["fn"].sample()
            return {k: nodes[k]["fn"].sample() for k in observed}

    def _trace(self, y):
        values, log_slope = self.values(y)
        trace = trace_model(self.model, self.args, values)
        trace.compute_log_prob()
        return trace, log_slope

    def log_slope(self, z):
        """log |∂y/∂z|: what turns a density of y into one of z."""
        total = torch.zeros((), dtype=torch.float64)
        for s in self.sites.values():
            if s.bounds:
                x = z[s.where].reshape(s.shape)
                total = total + s.transform.log_abs_det_jacobian(x, s.transform(x)).sum()
        return total

    def free(self, y, g):
        """Which coordinates may move along the slopes g, (latent,) bool: not those that a bound stops."""
        out = torch.ones(self.n, dtype=torch.bool)
        for group in self.groups:
            low = (y[group] <= 1.01 * INSIDE) & (g[group] < 0)
            full = (float(y[group].sum()) >= 1 - 1.01 * INSIDE) & (g[group] > 0)
            out[group] = ~(low | full)
        return out

    def inside(self, y):
        """The nearest y that keeps off its bounds by INSIDE."""
        y = y.clone()
        for group in self.groups:
            x = y[group].clamp(min=INSIDE)
            room = 1 - INSIDE
            y[group] = x if float(x.sum()) <= room else x * (room / x.sum())
        return y
