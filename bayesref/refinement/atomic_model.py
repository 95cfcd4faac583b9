"""A crystal ready for refinement: atoms, restraints, structure factors and solvent for one set of reflections.

    F_atoms(h) = Σ_j q_j f_j(s) Σ_g T_j(h R_g) e^{2πi h·(R_g x_j + t_g)}
    q_j = softmax(0, w_1, w_2, ...) over the conformers of its residue, else as the model has it
    T_j = exp(-B_j s²), or exp(-2π² hᵀ U_j h) with U of ellipsoids and of rigid groups, see `displacements`

A model page asks it for the priors of the atoms and for F_atoms; scale, solvent and errors are written on the page.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import gemmi
import torch

from bayesref._checks import InputError
from bayesref.crystal.atoms import Crystal
from bayesref.crystal.cell import hkl_stol2
from bayesref.crystal.form_factors import FormFactors
from bayesref.refinement.adp import Displacements
from bayesref.refinement.anomalous import AnomalousScatterers
from bayesref.refinement.conformers import Conformers
from bayesref.refinement.hydrogens import RidingHydrogens
from bayesref.refinement.priors import Ellipsoids, Stereochemistry, Thermal
from bayesref.refinement.tls import RigidMotion
from bayesref.restraints.adp import EllipsoidRestraints
from bayesref.restraints.restraints import Restraints
from bayesref.scaling.basis import bumps
from bayesref.structure_factors.calculate import prepare, structure_factors
from bayesref.structure_factors.plan import Plan
from bayesref.structure_factors.scale import anisotropic_scale, symmetrize
from bayesref.structure_factors.solvent import SolventMask

SITES = ("xyz", "B", "w", "A", "tls")  # of atoms, in the order of the arguments of `F_atoms`


@dataclass(frozen=True, eq=False)
class AtomicModel:
    """What a page needs to know of the atoms.

    Attributes
    ----------
    crystal : Crystal, as the fit starts
    restraints : of its coordinates and B factors; None where no atom will move
    conformers : Conformers
    plan : of the structure factors
    F_mask : (hkl,) complex128, transform of the solvent mask
    stol2 : (hkl,), s², Å⁻²
    Sigma : (hkl,), ⟨F²/ε⟩ of the data, smooth in resolution
    scale : typical |F_obs| / |F_calc|
    reference : (atom, 3), Å, coordinates of the model as given
    loose : (atom,) bool, atoms without a bond
    temperature : τ² of the restraints of coordinates and of B factors, see `refinement.temperature`
    displacements : which sites B, A and tls there are, and where they start; None = B of the crystal
    hydrogens : that ride, or None
    anomalous : AnomalousScatterers, where Friedel mates are apart; F_atoms is then without f''
    blur : Å², added to all B while an overall one is looked for, see `refinement.adp_overall`
    """

    crystal: Crystal
    restraints: Restraints | None
    conformers: Conformers
    plan: Plan
    F_mask: torch.Tensor
    stol2: torch.Tensor
    Sigma: torch.Tensor
    scale: float
    reference: torch.Tensor
    loose: torch.Tensor
    temperature: tuple[float, float] = (1.0, 1.0)
    displacements: Displacements | None = None
    hydrogens: RidingHydrogens | None = None
    anomalous: AnomalousScatterers | None = None
    blur: float = 0.0
    _kept: dict = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls, crystal, restraints, groups, data, Sigma, rel_error=1e-3, table="it92", wavelength=None,
        displacements=None, hydrogens=None, pairs=None,
    ) -> "AtomicModel":  # fmt: skip
        """Of a crystal with one state, its restraints and occupancy groups, and the data that it shall explain.

        Parameters
        ----------
        data : MergedData
        Sigma : (hkl,), ⟨F²/ε⟩ of the data
        rel_error, table, wavelength : of the structure factors, see `bayesref.structure_factors.calculate.prepare`
        displacements : Displacements of the crystal; default: isotropic
        hydrogens : RidingHydrogens of the crystal, or None
        pairs : AnomalousPairs of the data, with a wavelength
        """
        if crystal.xyz.ndim != 2:
            raise InputError(
                f"Coordinates have shape {tuple(crystal.xyz.shape)}; refinement takes one state, (atom, 3)."
            )
        hkl = data.asu.hkl
        d = displacements
        if d is not None:
            crystal = d.apply(crystal, d.B, d.A, None if d.groups is None else d.groups.start)
        scattering = crystal if hydrogens is None else hydrogens.crystal(crystal)
        plan = prepare(scattering, hkl, rel_error, table, wavelength)
        anomalous = None
        if pairs is not None:
            if wavelength is None:
                raise InputError("Anomalous pairs need the wavelength of the data.")
            anomalous = AnomalousScatterers.of(crystal, data.asu, pairs, wavelength, rel_error)
            plan = replace(plan, anomalous=False, factors=replace(plan.factors, f2=0 * plan.factors.f2))
        mask = SolventMask(hkl)(crystal)
        with torch.no_grad():
            F = structure_factors(scattering, plan=plan).abs().double()
        scale = float(((Sigma * data.asu.epsilon).mean() / (F**2).mean()).sqrt())
        loose = torch.ones(len(crystal), dtype=torch.bool)
        if restraints is not None:
            loose[restraints.bonds.atoms.flatten()] = False
        return cls(
            crystal, restraints, Conformers.of(groups, crystal.occupancy), plan, mask,
            hkl_stol2(hkl, crystal.cell), Sigma, scale, crystal.xyz.clone(), loose, displacements=d,
            hydrogens=hydrogens, anomalous=anomalous,
        )  # fmt: skip

    @property
    def geometry(self) -> Stereochemistry:
        """Prior of the coordinates, (atom, 3) Å."""
        return Stereochemistry(
            self.restraints, self.crystal.xyz, self.temperature[0], self.reference, self.loose, self.hydrogens
        )

    @property
    def thermal(self) -> Thermal:
        """Prior of the B factors, (atom,) Å²."""
        start = self.crystal.B if self.displacements is None else self.displacements.B
        return Thermal(self.restraints, start, self.temperature[1])

    def ellipsoids(self, B: torch.Tensor) -> Ellipsoids:
        """Prior of the shapes of displacements of sizes B, (atom, 5); (0, 5) where all are spheres."""
        d = self.displacements
        if d is None or not d.shaped:
            return Ellipsoids(None, B.new_zeros(0, 5), (1.0, 1.0), B)
        return Ellipsoids(self.shape_restraints, d.A, d.width2, B)

    @property
    def motion(self) -> RigidMotion:
        """Prior of the motion of rigid groups, (group, 21); (0, 21) where there are none."""
        groups = None if self.displacements is None else self.displacements.groups
        return RigidMotion(self.crystal.xyz.new_zeros(0, 21) if groups is None else groups.start)

    @cached_property
    def shape_restraints(self) -> EllipsoidRestraints:
        """What holds the shapes of displacements."""
        if self.restraints is None:
            raise InputError("Ellipsoids need restraints; this model has none.")
        return EllipsoidRestraints.of(self.restraints.similar, self.crystal.xyz, self.loose)

    @property
    def cell(self) -> gemmi.UnitCell:
        return self.crystal.cell

    def with_parameters(self, xyz, B, w, A=None, tls=None) -> Crystal:
        """The crystal at these sites of atoms; hydrogens that ride are not in it."""
        crystal = replace(
            self.crystal, xyz=xyz, occupancy=self.conformers.occupancy(w, self.crystal.occupancy)
        )
        if self.displacements is None:
            return replace(crystal, B=B)
        return self.displacements.apply(crystal, B, A, tls)

    def scattering(self, crystal: Crystal) -> Crystal:
        """All that scatters: the crystal with the hydrogens that ride on its atoms."""
        return crystal if self.hydrogens is None else self.hydrogens.crystal(crystal)

    def F_atoms(self, *sites) -> torch.Tensor:
        """F of the atoms at (xyz, B, w[, A, tls]), (hkl,) complex128; remembered while nothing moves."""
        if any(x is not None and x.requires_grad for x in sites):
            return self._transform(sites)
        last = self._kept.get("at")
        if last is None or not _same(last, sites):
            with torch.no_grad():
                F = self._transform(sites)
            self._kept.update(at=tuple(None if x is None else x.clone() for x in sites), F=F)
        F = self._kept["F"]
        return F if self.blur == 0 else F * torch.exp(-self.blur * self.stol2)

    def F_anomalous(self, f2: dict[str, torch.Tensor], *sites) -> torch.Tensor:
        """B of `refinement.anomalous` for f'' of each element, (hkl,) complex128; sites as of `F_atoms`."""
        if self.anomalous is None:
            raise InputError("These data have no anomalous pairs; use --anomalous, or another page.")
        unit = self.anomalous.transform(self.with_parameters(*sites))
        return torch.stack([f2.get(e, 1.0) * F for e, F in unit.items()]).sum(0)

    @property
    def factors(self) -> FormFactors:
        """Form factors of the atoms that are refined."""
        factors = self.plan.factors
        return (
            factors
            if self.hydrogens is None
            else replace(factors, index=factors.index[self.hydrogens.riding.heavy])
        )

    def _transform(self, sites):
        crystal = self.scattering(self.with_parameters(*sites))
        return structure_factors(crystal, plan=self.plan).to(torch.complex128)

    def moved(self, *sites) -> "AtomicModel":
        """The model to go on from where (xyz, B, w[, A, tls]) are: contacts, mask and plan made again."""
        sites = tuple(None if x is None else x.detach() for x in sites)
        displacements = self.displacements
        if displacements is not None:
            displacements = displacements.moved(sites[0], sites[1], *sites[3:])
        crystal = replace(self, displacements=displacements).with_parameters(*sites)
        restraints = None if self.restraints is None else self.restraints.refresh(crystal.xyz)
        hydrogens = None if self.hydrogens is None else self.hydrogens.moved(crystal)
        plan = replace(
            prepare(
                crystal if hydrogens is None else hydrogens.crystal(crystal),
                self.plan.hkl,
                self.plan.rel_error,
            ),
            factors=self.plan.factors,
            anomalous=self.plan.anomalous,
        )
        anomalous = None if self.anomalous is None else self.anomalous.moved(crystal, self.plan.rel_error)
        return replace(
            self, crystal=crystal, restraints=restraints, plan=plan, displacements=displacements, anomalous=anomalous,
            hydrogens=hydrogens, F_mask=SolventMask(self.plan.hkl)(crystal), _kept={},
        )  # fmt: skip

    def resolution_bumps(self, n: int) -> torch.Tensor:
        """`n` smooth bumps over s², (hkl, n), that sum to one everywhere."""
        phi = bumps(self.stol2, n, (float(self.stol2.min()), float(self.stol2.max())))
        return phi / phi.sum(1, keepdim=True)

    def aniso_basis(self) -> torch.Tensor:
        """Orthonormal traceless tensors that the point group allows, (n, 6) in order 11 22 33 12 13 23."""
        if "anisotropic" not in self._kept:
            free = torch.eye(6, dtype=torch.float64)
            free[:3, :3] -= 1 / 3
            kept = symmetrize(free, self.crystal.cell, self.crystal.spacegroup)
            U, S, _ = torch.linalg.svd(kept.T)
            self._kept["anisotropic"] = U[:, S > 1e-6].T
        return self._kept["anisotropic"]

    def anisotropy(self, b: torch.Tensor) -> torch.Tensor:
        """exp(-sᵀ B s / 4), (hkl,), for coefficients b (n,) of `aniso_basis`, Å²."""
        return anisotropic_scale(b @ self.aniso_basis(), self.plan.hkl, self.crystal.cell)


def of_atoms(values: dict) -> tuple:
    """The sites of atoms among the values of all sites, as `AtomicModel.F_atoms` takes them."""
    return tuple(values.get(k) for k in SITES[: 5 if "A" in values or "tls" in values else 3])


def _same(last, sites) -> bool:
    """Whether two tuples of sites hold the same numbers."""
    if len(last) != len(sites):
        return False
    pairs = zip(last, sites, strict=True)
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)
