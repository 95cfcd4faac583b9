"""The posterior of an amplitude given its spots: exact, whatever the number of spots.

    I_i ~ Normal(K_i F², v_i), i = the spots of one reflection
    p(F | I, K) = p(F) exp(-a F⁴/2 + b F²) / Z        a = Σ_i K_i²/v_i,   b = Σ_i K_i I_i/v_i
    log Z = log ∫ p(F) exp(-a F⁴/2 + b F²) dF         ∂ log Z/∂a = -½ E F⁴,   ∂ log Z/∂b = E F²

    acentric Wilson, t = (b - 1/εΣ)/√a:   log Z = -log(εΣ) - ½ log a + log[Φ(t)/φ(t)]
    all other priors: Gauss-Legendre nodes that follow the mode of prior × likelihood

The marginal log likelihood of the spots is log Z + Σ_i [-½ log(2π v_i) - I_i²/(2 v_i)].
One spot with K = 1 is the case of French & Wilson (1978), Acta Cryst. A34, 517.
"""

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints

from bayesref.distributions._conditional import AcentricWilson, CentricWilson, Conditional
from bayesref.distributions.wilson import Wilson


class AmplitudePosterior(TorchDistribution):
    """Amplitudes F ≥ 0 conditional on intensities.

    Samples carry the implicit gradient dF/dθ = -∂cdf(F)/∂θ / p(F) with respect to a, b and the prior.

    Parameters
    ----------
    prior : `Wilson`, `RiceWoolfson`, or any distribution with `log_prob` and `interval`; batch shape (*batch)
    a : (*batch), Σ K²/v, zero or above, in 1/F⁴; zero where there are no spots
    b : (*batch), Σ K I/v, in 1/F²
    n_node : quadrature nodes per reflection
    """

    arg_constraints = {"a": constraints.nonnegative, "b": constraints.real}  # noqa: RUF012  torch's name and type
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, prior, a, b, n_node=48, validate_args=None):
        shape = torch.broadcast_shapes(prior.batch_shape, a.shape, b.shape)
        self.prior = prior if prior.batch_shape == shape else prior.expand(shape)
        self.a, self.b, self.n_node = a.expand(shape), b.expand(shape), n_node
        super().__init__(shape, validate_args=validate_args)
        self._kept = None

    def expand(self, batch_shape, _instance=None):
        new = self._get_checked_instance(AmplitudePosterior, _instance)
        batch_shape = torch.Size(batch_shape)
        AmplitudePosterior.__init__(
            new, self.prior.expand(batch_shape), self.a.expand(batch_shape), self.b.expand(batch_shape),
            self.n_node, validate_args=False,
        )  # fmt: skip
        new._validate_args = self._validate_args
        return new

    @property
    def _kinds(self):
        """Rows of the flat batch by kind, [(rows, conditional)]; kept only if no gradient can flow."""
        if self._kept is None:
            kinds = self._split()
            names = self.prior.arg_constraints
            if any(x.requires_grad for x in (self.a, self.b, *(getattr(self.prior, name) for name in names))):
                return kinds
            self._kept = kinds
        return self._kept

    def _split(self):
        if not isinstance(self.prior, Wilson):
            return [(slice(None), Conditional(self.prior, self.a, self.b, self.n_node))]
        V, a, b = (x.reshape(-1) for x in (self.prior.mean_intensity, self.a, self.b))
        centric = self.prior.centric.reshape(-1)
        kinds = []
        for kind, mine in ((AcentricWilson, ~centric), (CentricWilson, centric)):
            rows = mine.nonzero()[:, 0]
            if len(rows) == len(centric):
                return [(slice(None), kind(V, a, b, self.n_node))]
            if len(rows):
                kinds.append((rows, kind(V[rows], a[rows], b[rows], self.n_node)))
        return kinds

    def _merge(self, function, value=None):
        """`function(conditional[, rows of value])` of each kind, put back in order: (*sample, *batch)."""
        if not isinstance(self.prior, Wilson):
            return function(self._kinds[0][1], *() if value is None else (value,))
        kinds = self._kinds
        if value is None:
            parts = [function(kind) for _, kind in kinds]
            shape = self.batch_shape
        else:
            shape = torch.broadcast_shapes(value.shape, self.batch_shape)
            sample = shape[: len(shape) - len(self.batch_shape)]
            flat = value.expand(shape).reshape(*sample, self.batch_shape.numel())
            parts = [function(kind, flat[..., rows]) for rows, kind in kinds]
        if len(parts) == 1:
            return parts[0].reshape(shape)
        order = torch.cat([rows for rows, _ in kinds]).argsort()
        return torch.cat(parts, -1)[..., order].reshape(shape)

    @property
    def log_normalizer(self):
        """log Z, (*batch); differentiable in a, b and the prior."""
        return self._merge(lambda kind: kind.log_normalizer)

    def log_prob(self, value):
        """log p(F | a, b) for F (*sample, *batch)."""
        if self._validate_args:
            self._validate_sample(value)
        return self._merge(lambda kind, F: kind.log_prob(F), value)

    def moment(self, k):
        """E F^k, (*batch)."""
        return self._merge(lambda kind: kind.nodes.moment(k))

    @property
    def mean(self):
        """E F, (*batch)."""
        return self._merge(lambda kind: kind.nodes.mean)

    @property
    def variance(self):
        """Var F, (*batch)."""
        return self._merge(lambda kind: kind.nodes.variance)

    @property
    def mean_intensity(self):
        """E F², (*batch)."""
        return self.moment(2)

    @property
    def variance_intensity(self):
        """Var F², (*batch)."""
        return self._merge(lambda kind: kind.nodes.central(kind.nodes.F**2))

    def cdf(self, value):
        """P(F' < F | a, b) for F (*sample, *batch)."""
        return self._merge(lambda kind, F: kind.cdf(F), value)

    def icdf(self, u):
        """The F with cdf(F) = u, (*sample, *batch), with its implicit gradient in a, b and the prior."""
        return self._merge(lambda kind, u: kind.icdf(u), u)

    def rsample(self, sample_shape=torch.Size()):  # noqa: B008  an immutable default, as torch has it
        """Draws by inversion, (*sample_shape, *batch)."""
        u = torch.rand(self._extended_shape(sample_shape), dtype=self.a.dtype, device=self.a.device)
        eps = torch.finfo(u.dtype).eps
        return self.icdf(u.clamp(eps / 4, 1 - eps / 2))  # the ends of the support have log p = -∞
