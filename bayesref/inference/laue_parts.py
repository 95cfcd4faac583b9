"""Parts of the fit of overlapped Laue spots: sums that are chosen, spots of single orders, spans of reflections."""

from dataclasses import replace

import torch

from bayesref.data.overlaps import Overlaps
from bayesref.inference.collapsed import Span


class Probe(Overlaps):
    """Overlaps that note the intensity of each order, and answer with sums s (node, spot) chosen beforehand."""

    s: torch.Tensor | None
    parts: torch.Tensor

    def __init__(self, overlaps: Overlaps):
        super().__init__(overlaps.orders, overlaps.spot)
        self.__dict__["s"], self.__dict__["parts"] = None, None

    def total(self, x):
        self.__dict__["parts"] = x
        return super().total(x) if self.s is None else self.s

    def answering(self, s):
        self.__dict__["s"] = s


def only(obs, rows):
    """The spots of single orders of some reflections, whose rows of the asu are kept in that order."""
    number = torch.full((len(obs.asu),), -1)
    number[rows] = torch.arange(len(rows))
    mine = obs.subset(number[obs.hkl_id] >= 0)
    changes = {"asu": obs.asu.subset(rows), "overlaps": None, "message": None}
    if len(mine):
        return replace(mine, hkl_id=number[mine.hkl_id], **changes)
    # A plate cannot be empty: one spot of such error that it says nothing.
    mine = obs.subset(slice(0, 1))
    return replace(mine, hkl_id=torch.zeros(1, dtype=torch.int64), SIGI=mine.SIGI * 1e12, **changes)


def pick(spans, rows, room):
    """The spans of some reflections, widened by `room` widths."""
    whole = {k: torch.cat([getattr(s, k) for s in spans])[rows] for k in ("lo", "hi", "middle", "width")}
    lo, hi = whole["lo"] - room * whole["width"], whole["hi"] + room * whole["width"]
    return Span(lo.clamp(min=0), hi, whole["middle"], whole["width"])


def log_mass(posterior):
    """Log density times quadrature weight, (node, *batch)."""
    return posterior.log_weight + posterior.log_normalizer
