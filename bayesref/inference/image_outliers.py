"""What each image is: indexed in one of several ways, or of something else; and how good it is.

    p(g_j | I) ∝ π_g Π_{i in j} ∫ q(F_{h R_g}) p(I_i | F) dF           q: amplitudes given the other images
    p(bad | I) ∝ π_0 Π_{i in j} ∫ p(F_h) p(I_i | F) dF                  amplitudes of something else: those of the prior
    w_j = (1 - p(bad_j)) (ν + n_j)/(ν + Σ_{i in j} ψ_i r_i)            ψ = ∂ log p(I | F)/∂(K F²),  r = I - K F²

w_j multiplies the log likelihood of the image's spots. Its first factor is the expectation step of a mixture. Its
second is that of a precision u_j ~ Gamma(ν/2, ν/2) that all spots of an image share: Σ ψ r is what Σ r²/v is for normal
errors, and its expectation is n_j, whatever the error law (from ∫ p = 1 under a change of the unit of r).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import update_wrapper

import torch
from pyro.distributions import TorchDistribution
from pyro.poutine.messenger import Messenger

from bayesref.guides.latents import INTENSITY
from bayesref.inference.reindexing import Ways

QUALITY_DOF = 20.0  # ν: an image is believed to be usual as far as this many spots would say
FLOOR = 1e-6  # smallest weight of an image, so that its own scale can still be told
QUALITY_LIMITS = (0.05, 2.0)


class Weighted(TorchDistribution):
    """A law of intensities whose log probability counts `weight` times; otherwise the law itself.

    Parameters
    ----------
    base : law of the spots
    weight : (spot,)
    """

    arg_constraints: dict = {}  # noqa: RUF012  torch's name and type
    support = torch.distributions.constraints.real

    def __init__(self, base, weight):
        self.base, self.weight = base, weight
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)
        if hasattr(base, "components"):
            self.components = self._components

    def __getattr__(self, name):
        if name == "base":
            raise AttributeError(name)
        return getattr(self.base, name)

    @property
    def mean(self):
        return self.base.mean

    @property
    def variance(self):
        return self.base.variance

    def expand(self, batch_shape, _instance=None):
        return Weighted(self.base.expand(batch_shape), self.weight)

    def sample(self, sample_shape=torch.Size()):  # noqa: B008  an immutable default, as torch has it
        return self.base.sample(sample_shape)

    def log_prob(self, value):
        return self.weight * self.base.log_prob(value)

    def _components(self, value):
        """Terms that add to the weighted probability, in the ratio of the law's own."""
        parts = self.base.components(value)
        rest = (self.weight - 1) * torch.logaddexp(*parts)
        return tuple(x + rest for x in parts)


class _Reweight(Messenger):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def _pyro_sample(self, msg):
        if msg["name"] == INTENSITY:
            msg["fn"] = Weighted(msg["fn"], self.weight)


class WeightedModel:
    """A model page whose spots count as much as their image does.

    Parameters
    ----------
    model : function model(obs, ...)
    weight : (image,) float64
    """

    def __init__(self, model: Callable, weight: torch.Tensor):
        self.model, self.weight = model, weight
        update_wrapper(self, model)

    def __call__(self, obs, *args):
        with _Reweight(self.weight[obs.image_id]):
            return self.model(obs, *args)


@dataclass(eq=False)
class Images:
    """What a fit of stills is to find out about its images, and what it knows so far.

    Attributes
    ----------
    n : number of images
    ways : ways of indexing; None: as they are
    outliers : whether images may be bad
    quality : whether images have weights of their own
    probability : (image, way + 1), the last column: bad
    quality_weight : (image,), the second factor of w_j
    n_spot : (image,) int64
    """

    n: int
    ways: Ways | None = None
    outliers: bool = False
    quality: bool = False
    probability: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    quality_weight: torch.Tensor = field(default_factory=lambda: torch.zeros(0))

    def __post_init__(self):
        if not len(self.probability):
            self.probability = torch.zeros(self.n, self.n_way + 1, dtype=torch.float64)
            self.probability[:, 0] = 1.0
        if not len(self.quality_weight):
            self.quality_weight = torch.ones(self.n, dtype=torch.float64)

    @property
    def n_way(self) -> int:
        return len(self.ways) if self.ways is not None else 1

    @property
    def undecided(self) -> bool:
        """Whether there is anything to find out of what an image is."""
        return self.n_way > 1 or self.outliers

    @property
    def choice(self) -> torch.Tensor:
        """(image,) int64, the most probable way."""
        return self.probability[:, :-1].argmax(1)

    @property
    def weight(self) -> torch.Tensor:
        """(image,) w_j."""
        return ((1 - self.probability[:, -1]) * self.quality_weight).clamp(min=FLOOR)

    def log_prior(self) -> torch.Tensor:
        """log π of each way and of bad images, (way + 1,); π_0 from the images themselves, with a Beta(1, 19) prior."""
        bad = (float(self.probability[:, -1].sum()) + 1) / (self.n + 20) if self.outliers else 0.0
        p = torch.full((self.n_way + 1,), (1 - bad) / self.n_way, dtype=torch.float64)
        p[-1] = bad
        return p.log()

    def learn(self, images: torch.Tensor, log_evidence: torch.Tensor) -> None:
        """New probabilities of these images from log evidence (image, way + 1)."""
        self.probability[images] = (log_evidence + self.log_prior()).softmax(1)

    def weigh(self, images: torch.Tensor, chi: torch.Tensor, n_spot: torch.Tensor) -> None:
        """New quality of these images from Σ ψ r and the number of spots, (image,) each."""
        u = (QUALITY_DOF + n_spot) / (QUALITY_DOF + chi.clamp(min=0))
        self.quality_weight[images] = u.clamp(*QUALITY_LIMITS)
