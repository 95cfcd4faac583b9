"""What an experiment adds to a scheme: the response of the probe, losses, molecules that do not react, uneven light.

    o(t) = M [(1 - α_t) u + α_t ⟨p⟩(t)],    logit α_t = logit α + s e_t

The numbers are named "k A->B", "activation" (α), "width" and "tail" (of the response, s), "efficiency A->B",
"unreacted" (u), "unevenness" (s) and "uneven" (e). Pages sample them; here they become occupancies.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from bayesref._checks import InputError
from bayesref.kinetics.response import (
    BoxResponse,
    ExponentialGaussianResponse,
    GaussianResponse,
    HistogramResponse,
    NoResponse,
)
from bayesref.kinetics.units import seconds

WIDTHS = {
    "none": (),
    "gaussian": ("width",),
    "exgaussian": ("width", "tail"),
    "box": ("width",),
    "histogram": (),
}


@dataclass(frozen=True)
class Design:
    """An experiment.

    Parameters
    ----------
    response : none, gaussian, exgaussian, box or histogram
    widths : {"width": (expected, factor), "tail": ...}, s or text with a unit; known within the factor, 1 = exactly
    histogram : HistogramResponse, where the response is one
    efficiencies : transitions that lose a fraction of their molecules, which is inferred
    unreacted : occupancies of the molecules that the light does not reach, {structure: occupancy}; the rest is in the
        ground state; "inferred" = a simplex with a uniform prior
    uneven : the light reaches another share at each delay
    """

    response: str = "none"
    widths: Mapping[str, tuple[str | float, float]] = field(default_factory=dict)
    histogram: HistogramResponse | None = None
    efficiencies: tuple[str, ...] = ()
    unreacted: Mapping[str, float] | str | None = None
    uneven: bool = False

    def __post_init__(self):
        if self.response not in WIDTHS:
            raise InputError(f"There is no response {self.response!r}; expected one of {', '.join(WIDTHS)}.")
        needed = WIDTHS[self.response]
        if set(self.widths) != set(needed):
            raise InputError(
                f"A response {self.response} takes {' and '.join(needed) or 'no width'}; found "
                f"{', '.join(self.widths) or 'none'}."
            )
        for name, (value, factor) in self.widths.items():
            if seconds(value) <= 0 or factor < 1:
                raise InputError(
                    f"The {name} of the response is {value}, known within a factor of {factor:g}; expected a time "
                    "above zero and a factor of at least 1."
                )
        if (self.histogram is None) != (self.response != "histogram"):
            raise InputError("A response 'histogram' needs its histogram, and no other response takes one.")

    def occupancies(self, kinetics, values: Mapping[str, torch.Tensor], t) -> torch.Tensor:
        """Occupancies (..., time, structure) of `kinetics` at times t, s, for numbers (...) named as above.

        Where light is uneven, delays that were not measured have the share α.
        """
        rates = {name: values[f"k {name}"] for name in kinetics.rates}
        alpha = torch.as_tensor(values.get("activation", 1.0), dtype=torch.float64)
        if "uneven" in values and values["uneven"].shape[-1] == t.shape[-1]:
            step = torch.as_tensor(values["unevenness"])[..., None] * values["uneven"]
            alpha = torch.sigmoid(torch.logit(alpha, 1e-9)[..., None] + step)
        efficiencies = {name: values[f"efficiency {name}"] for name in self.efficiencies}
        return kinetics.occupancies(
            rates, t, response=self._response(values), efficiencies=efficiencies or None, activation=alpha,
            unreacted=self._unreacted(kinetics, values),
        )  # fmt: skip

    def _response(self, values):
        widths = {name: values.get(name, seconds(value)) for name, (value, _) in self.widths.items()}
        if self.histogram is not None:
            return self.histogram
        if self.response == "exgaussian":
            return ExponentialGaussianResponse(widths["width"], widths["tail"])
        if self.response == "none":
            return NoResponse()
        return {"gaussian": GaussianResponse, "box": BoxResponse}[self.response](widths["width"])

    def _unreacted(self, kinetics, values):
        if self.unreacted is None:
            return None
        if isinstance(self.unreacted, str):
            return values["unreacted"]
        unknown = [name for name in self.unreacted if name not in kinetics.occupied]
        if unknown:
            raise InputError(
                f"Unreacted molecules are said to be in {unknown[0]!r}; the structures are {kinetics.occupied}."
            )
        u = {name: float(self.unreacted.get(name, 0.0)) for name in kinetics.occupied}
        rest = 1 - sum(u.values())
        if min(u.values()) < 0 or rest < -1e-9:
            raise InputError(
                f"The unreacted occupancies {dict(self.unreacted)} must be at least zero, of sum up to one."
            )
        u[kinetics.structures[kinetics.ground]] += max(rest, 0.0)
        return torch.tensor(list(u.values()), dtype=torch.float64)
