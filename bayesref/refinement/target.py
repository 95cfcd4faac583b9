"""What is maximised: the probability of the data and of the parameters, amplitudes integrated out.

    log p(y, z) = Σ_h log p(y_h | G_h(z), V_h(z)) + log p(z)          G = D |F_calc|,  V = ε β
    log p(y | G, V) = log ∫ p(F | G, V) p(y | F) dF                    see `distributions.measured_amplitude`

G, V come from the page: they are the parameters of its site "F", a Rice or Woolfson distribution. z holds every
other site, unconstrained. Differences of Friedel mates, which a page may observe too, add their own log p. The sum
runs over the work set, or, for the parameters of the errors, over the free set.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from bayesref._checks import InputError
from bayesref.data.merged import MergedData
from bayesref.distributions.measured_amplitude import MeasuredAmplitude, log_evidence, measured_amplitude
from bayesref.distributions.rice_woolfson import RiceWoolfson
from bayesref.guides.latents import AMPLITUDE, Latents, trace_model
from bayesref.refinement.atomic_model import SITES, AtomicModel

DIFFERENCE = "difference"  # site of anomalous differences
ATOMS = SITES  # sites of the atoms; all others are of the crystal as a whole


@dataclass(frozen=True, eq=False)
class Target:
    """A page over one set of data and one atomic model.

    Attributes
    ----------
    page : Pyro model, called as `page(data, atoms)`
    data : MergedData
    atoms : AtomicModel
    latents : Latents of the page
    without : (hkl,), G without the measurement of each reflection over G, by which the likelihood then goes: for errors
        that are learned from reflections which the atoms have seen, see `refinement.left_out`; or None
    """

    page: Callable
    data: MergedData
    atoms: AtomicModel
    latents: Latents
    without: torch.Tensor | None = None

    @classmethod
    def of(cls, page, data, atoms) -> "Target":
        """Of a page whose amplitudes are Rice or Woolfson distributed.

        Raises
        ------
        InputError : where they are not
        """
        latents = Latents(page, (data, atoms))
        self = cls(page, data, atoms, latents)
        law = self.trace(latents.unpack(latents.start())).nodes[AMPLITUDE]["fn"]
        if not isinstance(law, RiceWoolfson):
            raise InputError(f"The page samples F from {type(law).__name__}; refinement needs RiceWoolfson.")
        return self

    @property
    def globals(self) -> list[str]:
        """Sites that are not of single atoms."""
        return [k for k in self.latents.sites if k not in ATOMS]

    def trace(self, values):
        """Trace of the page at these values."""
        F = torch.ones(len(self.data.asu), dtype=torch.float64)
        return trace_model(self.page, (self.data, self.atoms), {**values, AMPLITUDE: F})

    def expected(self, values) -> tuple[torch.Tensor, torch.Tensor]:
        """G and V of every reflection, (hkl,) each."""
        law = self.trace(values).nodes[AMPLITUDE]["fn"]
        return law.loc, law.scatter

    def measured(self, z) -> MeasuredAmplitude:
        """Evidence and moments of every reflection at z; those of free ones are used for statistics only."""
        with torch.no_grad():
            G, V = self.expected(self.latents.unpack(z))
        d = self.data
        return measured_amplitude(G, V, d.asu.centric, d.value, d.sigma, d.kind)

    def value_and_grad(self, z, sites=None, rows=None, tempering=1.0) -> tuple[float, torch.Tensor]:
        """log p(y, z) and its gradient (latent,); zero where a site is not among `sites` (default: all).

        Parameters
        ----------
        rows : (hkl,) bool, reflections that count (default: the work set)
        tempering : factor on the log likelihood
        """
        rows = ~self.data.free if rows is None else rows
        z = z.detach().requires_grad_()
        values = self.latents.unpack(z)
        if sites is not None:
            values = {k: v if k in sites else v.detach() for k, v in values.items()}
        trace = self.trace(values)
        law = trace.nodes[AMPLITUDE]["fn"]
        if self.without is not None:
            law = RiceWoolfson(law.loc * self.without, law.scatter, self.data.asu.centric)
        priors = {k: trace.nodes[k]["fn"] for k in values}
        likelihood = self.log_likelihood(law, values, rows) + self._log_differences(trace, rows)
        value = tempering * likelihood + self._log_prior(z, values, priors, sites)
        (grad,) = torch.autograd.grad(value, z)
        return float(value.detach()), grad

    def log_likelihood(self, law, values, rows) -> torch.Tensor:
        """log p(y) of the rows that count, given the law of their amplitudes."""
        d = self.data
        return log_evidence(
            law.loc[rows], law.scatter[rows], d.asu.centric[rows], d.value[rows], d.sigma[rows], d.kind
        ).sum()

    def _log_differences(self, trace, rows):
        """log p of the anomalous differences of the rows that count, where the page observes them."""
        node, anomalous = trace.nodes.get(DIFFERENCE), self.atoms.anomalous
        if node is None or anomalous is None:
            return 0.0
        counts = rows[anomalous.pairs.row]
        return torch.where(counts, node["fn"].log_prob(node["value"]), 0.0).sum()

    def part(self) -> torch.Tensor | None:
        """(hkl,) bool, reflections of the work set that are enough for a first fit of the scale; None: all."""
        return None

    def explained(self, G, values) -> torch.Tensor:
        """What stands beside F_obs in R factors, (hkl,): G, unless crystals are twinned."""
        return G

    def _log_prior(self, z, values, priors, sites):
        """log p of the sites that move; the others add a constant."""
        total = z.new_zeros(())
        for k, s in self.latents.sites.items():
            if sites is not None and k not in sites:
                continue
            jacobian = s.transform.log_abs_det_jacobian(z[s.where].reshape(s.shape), values[k])
            total = total + priors[k].log_prob(values[k]).sum() + jacobian.sum()
        return total
