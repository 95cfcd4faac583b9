"""Priors of atoms: stereochemistry of the coordinates, similarity of the B factors.

    log p(xyz) = Σ restraints log p(bond), log p(angle), ... + const        each a density with its own σ
               + Σ loose atoms log Normal(x; x₀, LOOSE)                     x₀: the model as given
               + Σ contacts of riding hydrogens
    log p(B)   = Σ atoms log Normal(log B; log B̄, s_i) + Σ bonds log Normal(log B_i - log B_j; 0, σ) + const
    log p(A|B) = Σ roundness, similarity and rigid bonds of ellipsoids, see `restraints.adp`

A loose atom has no bond, as a water: what is known of it beforehand is where the model has it, to half an ångström.
Without that it would wander to any peak of noise that its own density does not hold it from.
Products of densities of overlapping quantities have no known constant, nor can they be drawn from directly;
a posterior needs neither. `mean` is where a fit starts.
"""

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints

LOOSE = 0.5  # Å
B_SPREAD = (
    1.0  # s of loose atoms: B factors of one crystal differ from their typical value by a factor e or so
)
# s of bonded atoms: neighbours that move alike must not each pull towards B̄. With n restraints of σ = 0.2 to 0.3 about
# an atom, a step along the chain has a precision κ of about 70, and log B a spread of (κ/s²)^-¼/√2 = 0.5.
B_SPREAD_BONDED = 4.0


class _Energy(torch.autograd.Function):
    """log p(xyz) of one set of coordinates by the compiled value and gradient."""

    @staticmethod
    def forward(xyz, restraints):
        value, slope = restraints.value_and_grad(xyz.detach().numpy())
        return xyz.new_tensor(value), torch.from_numpy(slope)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx, grad, _):
        return grad * ctx.saved_tensors[0], None


def energy(xyz: torch.Tensor, restraints) -> torch.Tensor:
    """log p(xyz) of restraints, with its slopes, by the compiled code."""
    return _Energy.apply(xyz.contiguous(), restraints)[0]


class _AtomPrior(TorchDistribution):
    """A density over all atoms at once, known but for its constant."""

    arg_constraints = {}  # noqa: RUF012  the name and type are torch's

    def __init__(self, restraints, start, temperature):
        self.restraints, self.start, self.temperature = restraints, start, temperature
        super().__init__(event_shape=start.shape, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        if torch.Size(batch_shape) != self.batch_shape:
            raise NotImplementedError("Atoms are sampled once, not over a plate.")
        return self

    @property
    def mean(self):
        """Where a fit starts."""
        return self.start

    def sample(self, sample_shape=torch.Size()):  # noqa: B008  an immutable default, as torch has it
        """The start: draws of such a density need a Markov chain."""
        return self.start.expand(self._extended_shape(sample_shape))


class Stereochemistry(_AtomPrior):
    """Coordinates (atom, 3), Å, under geometric restraints.

    Parameters
    ----------
    restraints : `bayesref.restraints` of these atoms
    start : (atom, 3), Å
    temperature : τ², by which log p of the restraints is divided
    reference : (atom, 3), Å, x₀
    loose : (atom,) bool
    hydrogens : RidingHydrogens of these atoms, or None
    """

    support = constraints.independent(constraints.real, 2)

    def __init__(self, restraints, start, temperature, reference, loose, hydrogens=None):
        super().__init__(restraints, start, temperature)
        self.hydrogens = hydrogens
        self.reference, self.loose = reference[loose], loose

    def log_prob(self, value):
        """log p(xyz) + const, (*sample,)."""
        near = -0.5 * ((value[..., self.loose, :] - self.reference) / LOOSE).square().sum((-1, -2))
        if value.ndim == 2 and value.dtype == torch.float64:
            if self.hydrogens is not None:
                touch = self.hydrogens.log_density(value, lambda x, r: _Energy.apply(x, r)[0])
                near = near + touch / self.temperature
            return near + _Energy.apply(value.contiguous(), self.restraints)[0] / self.temperature
        return near + self.restraints.log_prob(value) / self.temperature


def spread_of_B(restraints, n_atom: int) -> torch.Tensor:
    """s_i (atom,) of the logarithm of B about its typical value."""
    spread = torch.full((n_atom,), B_SPREAD, dtype=torch.float64)
    if restraints is not None:
        spread[restraints.similar.atoms.flatten()] = B_SPREAD_BONDED
    return spread


class Thermal(_AtomPrior):
    """B factors (atom,), Å², similar along bonds.

    Parameters
    ----------
    restraints : `bayesref.restraints` of these atoms
    start : (atom,), Å²; their median is B̄
    temperature : τ², by which log p of the restraints is divided
    """

    support = constraints.independent(constraints.positive, 1)

    def log_prob(self, value):
        """log p(B) + const, (*sample,)."""
        x = value.log()
        level = ((x - self.start.median().log()) / spread_of_B(self.restraints, x.shape[-1])) ** 2
        return self.restraints.log_density_B(value) / self.temperature - (0.5 * level + x).sum(-1)


class Ellipsoids(_AtomPrior):
    """Shapes (atom, 5) of displacements whose sizes are given; see `bayesref.restraints.adp`.

    Parameters
    ----------
    restraints : EllipsoidRestraints; None where there are no shapes
    start : (atom, 5)
    temperature : τ² of shapes and of rigid bonds, by which their log p are divided
    B : (atom,), Å²
    """

    support = constraints.independent(constraints.real, 2)

    def __init__(self, restraints, start, temperature, B):
        super().__init__(restraints, start, temperature)
        self.B = B

    def log_prob(self, value):
        """log p(A | B) + const, (*sample,)."""
        if self.restraints is None:
            return value.new_zeros(value.shape[:-2])
        return self.restraints.log_density(self.B, value, self.temperature)
