"""Scale, solvent and D together with what is common to all B factors.

    F_atoms(B + δ) = F_atoms(B) exp(-δ s²)

D(s) and the common part of the B factors nearly make up for each other: fitted by turns, they creep along a valley.
With δ beside them the atoms' transform is needed once, and the valley is crossed in one fit.
"""

from dataclasses import dataclass, field, replace

import scipy.optimize
import torch

from bayesref.distributions.measured_amplitude import log_evidence
from bayesref.guides.latents import AMPLITUDE
from bayesref.refinement.atomic_model import AtomicModel, of_atoms
from bayesref.refinement.target import Target

LOWEST = 1.0  # Å², of any B
STIFF = 0.02  # share of the atoms that may stay behind at LOWEST where the others become smaller
FARTHEST = 30.0  # Å², of δ in one fit


@dataclass(frozen=True, eq=False)
class ShiftedAtoms(AtomicModel):
    """An atomic model whose atoms stay, but for a B that is added to all.

    Attributes
    ----------
    F : (hkl,) complex128, F_atoms at δ = 0
    delta : δ, Å²
    """

    F: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    delta: torch.Tensor = field(default_factory=lambda: torch.zeros(0))

    @classmethod
    def at(cls, atoms: AtomicModel, F: torch.Tensor, delta: torch.Tensor) -> "ShiftedAtoms":
        """Of an atomic model with its F_atoms at the sites that will be asked for."""
        return cls(**{**vars(atoms), "F": F, "delta": delta})

    def F_atoms(self, *sites) -> torch.Tensor:
        return self.F * torch.exp(-self.delta * self.stol2)


def fits(target: Target) -> bool:
    """Whether the common B of this target can be fitted so: spheres, no twin, Friedel mates together."""
    d = target.atoms.displacements
    alone = type(target) is Target and target.atoms.anomalous is None
    return alone and "B" in target.latents.sites and (d is None or d.spherical)


def fit_scale_and_B(target: Target, z: torch.Tensor, names, steps: int, reach: float) -> torch.Tensor:
    """z with the sites `names` and the common B at their best on the work set, the atoms otherwise held.

    Parameters
    ----------
    steps : of L-BFGS
    reach : how far a latent of `names` may go
    """
    where = target.latents.columns(names)
    values = {k: v.detach() for k, v in target.latents.unpack(z).items()}
    F, B = target.atoms.F_atoms(*of_atoms(values)), values["B"]
    d, rows = target.data, ~target.data.free
    keep = [*names, "B"]

    def f(x):
        x = torch.from_numpy(x.copy()).requires_grad_()
        new = z.index_copy(0, where, x[:-1])
        sites = {k: v if k in names else values[k] for k, v in target.latents.unpack(new).items()}
        moved = replace(target, atoms=ShiftedAtoms.at(target.atoms, F, x[-1]))
        trace = moved.trace(sites)
        law = trace.nodes[AMPLITUDE]["fn"]
        priors = {k: trace.nodes[k]["fn"] for k in keep}
        each = log_evidence(
            law.loc[rows], law.scatter[rows], d.asu.centric[rows], d.value[rows], d.sigma[rows], d.kind
        )
        own = {k: s for k, s in target.latents.sites.items() if k in names}
        new_B = (B + x[-1]).clamp(min=LOWEST)
        total = each.sum() + priors["B"].log_prob(new_B) + new_B.log().sum()
        for k, s in own.items():
            jacobian = s.transform.log_abs_det_jacobian(new[s.where].reshape(s.shape), sites[k])
            total = total + priors[k].log_prob(sites[k]).sum() + jacobian.sum()
        (grad,) = torch.autograd.grad(total, x)
        return -float(total.detach()), -grad.numpy()

    x0 = torch.cat([z[where], z.new_zeros(1)]).numpy()
    low, high = x0 - reach, x0 + reach
    low[-1], high[-1] = min(0.0, max(-FARTHEST, LOWEST - float(B.quantile(STIFF)))), FARTHEST
    options = {"maxiter": steps, "ftol": 1e-9, "gtol": 1e-2, "maxcor": 25}
    bounds = scipy.optimize.Bounds(low, high)
    found = torch.from_numpy(
        scipy.optimize.minimize(f, x0, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    )
    z = z.index_copy(0, where, found[:-1])
    z[target.latents.columns(["B"])] = target.latents.sites["B"].transform.inv(
        (B + found[-1]).clamp(min=LOWEST)
    )
    return z
