"""The posterior of a structure: a Gaussian whose precision follows the bond graph, with global modes.

    (a, g) ~ Normal(m, [[P, C], [Cᵀ, Q]]⁻¹)       a: x, y, z, log B, shape of every atom;  g: scale, solvent, conformers
    g ~ Normal(m_g, (Q - Cᵀ P⁻¹ C)⁻¹),   a | g ~ Normal(m_a - P⁻¹ C (g - m_g), P⁻¹)
    e ~ Normal(m_e, E⁻¹)                           e: errors of the model, from the reflections that they are fitted to

P is sparse: restraints between bonded and touching atoms, and the data's information about neighbours
(`curvature`). C and Q are differences of the exact gradient, so that the uncertainty of scale, solvent and
occupancy reaches every atom. Curvature, mean and widths are then averages over the Gaussian itself, not values at the
mode (`expected_b`, `variational`); what all B share has a width of its own (`shared_b`). A mean field has diag(P) in
place of P, which takes bonded atoms for independent.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from bayesref.inference.arrow import ArrowRoot
from bayesref.inference.curvature import inverse_root
from bayesref.refinement.atomic_model import AtomicModel, of_atoms
from bayesref.refinement.curvature import Factor, precision, resolution_cutoff
from bayesref.refinement.expected_b import averaged
from bayesref.refinement.point_estimate import MIN_FREE, PointEstimate, _atom_rows, error_sites
from bayesref.refinement.structured_gaussian import StructuredGaussian
from bayesref.refinement.target import Target
from bayesref.refinement.variational import nearest

STEP = 0.02  # of a difference in a global latent: logarithms and Å² known to a few per cent


@dataclass(frozen=True, eq=False)
class StructurePosterior:
    """Gaussian posterior of all latents of a refinement.

    Attributes
    ----------
    target : Target at the point estimate
    mean : (latent,), near the point estimate, the mode of a skewed density
    model : (latent,), the mean but for coordinates, which are the most probable ones: where atoms swing, places that
        are means of curved paths make no molecule
    atom_rows, global_rows, error_rows : places in z, int64
    law : of z - mean at atom_rows and global_rows, right for each of them
    stiff : the same, right for what the data know best, such as F; see `variational.nearest`
    error_root : (error, error), L with L Lᵀ the covariance of e
    determined : number of parameters that the data determine
    history, reason : of the point estimate
    """

    target: Target
    mean: torch.Tensor
    model: torch.Tensor
    atom_rows: torch.Tensor
    global_rows: torch.Tensor
    error_rows: torch.Tensor
    law: StructuredGaussian
    stiff: StructuredGaussian
    error_root: torch.Tensor | ArrowRoot
    determined: float
    history: list
    reason: str

    def draw(self, n: int, seed: int = 0, stiff: bool = False, about=None) -> torch.Tensor:
        """Draws of z, (draw, latent), about the mean or another z; `stiff` for the spread of F and for geometry."""
        law = self.stiff if stiff else self.law
        g = torch.Generator().manual_seed(seed)
        z = (self.mean if about is None else about).repeat(n, 1)
        z[:, self.rows] += torch.from_numpy(law.draw(n, seed).T)
        de = (self.error_root @ torch.randn(len(self.error_rows), n, generator=g, dtype=z.dtype)).T
        z[:, self.error_rows] += de
        return z

    def sites(self, n: int = 200, seed: int = 0, **how) -> dict[str, torch.Tensor]:
        """Draws of each site in its own units, {name: (draw, ...)}, and of occupancies; `how` as for `draw`."""
        draws = [self.target.latents.unpack(z) for z in self.draw(n, seed, **how)]
        out = {k: torch.stack([d[k] for d in draws]) for k in self.target.latents.sites}
        crystal, conformers = self.atoms.crystal, self.atoms.conformers
        out["occupancy"] = torch.stack([conformers.occupancy(w, crystal.occupancy) for w in out["w"]])
        if self.atoms.displacements is not None and not self.atoms.displacements.spherical:
            moved = [self.atoms.with_parameters(*of_atoms(d)) for d in draws]
            out["U"] = torch.stack([c.U for c in moved if c.U is not None])
            out["B_eq"] = torch.stack([c.B for c in moved])
        return out

    @property
    def rows(self) -> torch.Tensor:
        """Places in z of what `law` is of."""
        return torch.cat([self.atom_rows, self.global_rows])

    @property
    def factor(self) -> Factor:
        """Of P."""
        return self.law.factor

    @property
    def atoms(self) -> AtomicModel:
        return self.target.atoms

    @property
    def values(self) -> dict[str, torch.Tensor]:
        """Sites at the mean."""
        return self.target.latents.unpack(self.mean)

    @cached_property
    def crystal(self):
        """The crystal of the model."""
        return self.atoms.with_parameters(*of_atoms(self.target.latents.unpack(self.model)))

    def molecules(self, n: int, seed: int = 0) -> dict[str, torch.Tensor]:
        """Draws of each site whose bonds are as they should be: stiff, about the model."""
        return self.sites(n, seed, stiff=True, about=self.model)

    @cached_property
    def esd(self) -> dict[str, torch.Tensor]:
        """Standard deviations of xyz (atom, 3), B (8π² U_eq) and occupancy (atom,), in their units, from 400 draws.

        Where atoms are ellipsoids or groups shake, of U (atom, 6) too.
        """
        s = self.sites(400, seed=1)
        out = {k: s[k].std(0) for k in ("xyz", "B", "occupancy")}
        return out if "U" not in s else {**out, "B": s["B_eq"].std(0), "U": s["U"].std(0)}


def structure_posterior(estimate: PointEstimate, mean_field: bool = False) -> StructurePosterior:
    """Laplace's approximation about a point estimate, in the structured form above; log B at its mean, not its mode.

    Parameters
    ----------
    mean_field : keep only the diagonal of P and drop C: for comparison, not for use
    """
    target, z = estimate.target, estimate.z
    rows = _atom_rows(target)[0]
    errors = error_sites(target, z)
    error_rows = target.latents.columns(errors)
    taken = torch.cat([rows, error_rows])
    global_rows = torch.tensor(sorted(set(range(len(z))) - set(taken.tolist())), dtype=torch.int64)
    cutoff = 0.0 if mean_field else resolution_cutoff(target.atoms)
    P, factor = _factor(target, z, cutoff, mean_field)
    mean, skewed = z.clone(), not mean_field and len(rows) == 4 * len(target.atoms.crystal)
    if skewed:
        P, factor, shift = averaged(target, z, P, factor)
        mean[rows] += torch.from_numpy(shift)
    H = _difference_rows(target, z, global_rows)  # (global, latent)
    C = H[:, rows].numpy().T
    law = StructuredGaussian.of(P, 0 * C if mean_field else C, H[:, global_rows].numpy(), factor)
    stiff = law
    if skewed and target.atoms.displacements is None:
        moving = [k for k in target.latents.sites if k not in errors]
        law, stiff, mean = nearest(target, mean, torch.cat([rows, global_rows]), law, moving)
    model = mean.clone()
    xyz = target.latents.columns(["xyz"])
    model[xyz] = z[xyz]
    free = target.data.free
    use = free if int(free.sum()) >= MIN_FREE else None
    judge = target if use is not None else replace(target, without=estimate.without)
    E = _difference_rows(judge, z, error_rows, errors, use)[:, error_rows]
    return StructurePosterior(
        target, mean, model, rows, global_rows, error_rows, law, stiff, inverse_root(E), estimate.determined,
        estimate.history, estimate.reason,
    )  # fmt: skip


def _factor(target, z, cutoff, mean_field):
    """P and its factor; where cutting the data's pairs off has made it indefinite, P with those pairs scaled down."""
    P = precision(target, z, cutoff)
    if mean_field:
        from scipy.sparse import diags

        P = diags(P.diagonal()).tocsc()
        return P, Factor(P)
    try:
        return P, Factor(P)
    except (np.linalg.LinAlgError, RuntimeError):
        local = precision(target, z, 0.0)
        for share in (0.9, 0.75, 0.5, 0.0):
            try:
                mixed = (share * P + (1 - share) * local).tocsc()
                return mixed, Factor(mixed)
            except (np.linalg.LinAlgError, RuntimeError):
                continue
        raise


def _difference_rows(target, z, columns, sites=None, reflections=None):
    """Rows of -∂² log p/∂z² by central differences of the gradient, (column, latent)."""
    out = torch.zeros(len(columns), len(z), dtype=z.dtype)
    for i, k in enumerate(columns.tolist()):
        e = torch.zeros_like(z)
        e[k] = STEP
        up = target.value_and_grad(z + e, sites, reflections)[1]
        down = target.value_and_grad(z - e, sites, reflections)[1]
        out[i] = (down - up) / (2 * STEP)
    return out


def mean_field(posterior: StructurePosterior) -> StructurePosterior:
    """The same posterior with all parameters taken for independent."""
    return structure_posterior(
        PointEstimate(
            posterior.target, posterior.mean, posterior.history, posterior.reason, posterior.determined
        ),
        True,
    )
