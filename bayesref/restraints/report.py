"""How a model keeps its restraints: deviations, the worst of them, clashes, backbone, peptides.

    rmsd = √⟨(q - q₀)²⟩      rmsZ = √⟨((q - q₀)/σ)²⟩

Torsions deviate from their nearest maximum, volumes of either sign from the nearer one; the deviation of a plane is
the root of λ/(k-3), the distance of its k atoms from it per free one. A clash is an overlap above 0.4 Å of atoms that
no three bonds join, their radii those of atoms without hydrogens (the limit of MolProbity, which adds hydrogens first:
Chen et al. (2010), Acta Cryst. D66, 12; add them here too to compare).
"""

import math
from dataclasses import asdict, dataclass, field

import torch

from bayesref.restraints import geometry, ramachandran
from bayesref.restraints.nonbonded import joined_by_three
from bayesref.restraints.ramachandran import backbone, peptides

CLASH = 0.4  # Å
CIS = math.radians(30)
UNITS = {"bonds": "Å", "angles": "°", "torsions": "°", "chirals": "Å³", "planes": "Å"}


@dataclass(frozen=True)
class Deviation:
    """One kind of restraint: their number, rmsd in `unit`, rmsZ, and how many have |Z| above 4."""

    kind: str
    unit: str
    n: int
    rmsd: float
    rmsZ: float
    n_outlier: int


@dataclass(frozen=True)
class Worst:
    """One restraint with its value, target, and Z; lengths in Å, angles in degrees."""

    kind: str
    atoms: tuple[str, ...]
    value: float
    target: float
    Z: float


@dataclass(frozen=True)
class Clash:
    """Two atoms, the overlap in Å, and whether the second is a symmetry copy."""

    atoms: tuple[str, str]
    overlap: float
    symmetry: bool


@dataclass(frozen=True)
class GeometryReport:
    """See the module; lists are sorted, the worst first.

    Attributes
    ----------
    deviations : one per kind
    worst : restraints with the largest |Z|
    clashes : all of them
    clashscore : clashes per 1000 atoms
    favoured : share of residues in the favoured region of the Ramachandran plot; NaN without any
    outliers : residues outside its allowed region: (name, φ, ψ) in degrees
    cis_peptides : (first residue, second residue, ω in degrees)
    rms_log_B : rms ratio of B factors of bonded atoms, as a difference of logarithms, where B > 0; NaN without
    unrestrained : residue name -> number of residues without restraints
    unknown_atoms : atoms that no description covers
    missing_atoms : atoms that the model lacks; their neighbours may be reported as clashes
    """

    deviations: tuple[Deviation, ...]
    worst: tuple[Worst, ...]
    clashes: tuple[Clash, ...]
    clashscore: float
    favoured: float
    outliers: tuple[tuple[str, float, float], ...]
    cis_peptides: tuple[tuple[str, str, float], ...]
    rms_log_B: float
    unrestrained: dict[str, int] = field(default_factory=dict)
    unknown_atoms: tuple[str, ...] = ()
    missing_atoms: tuple[str, ...] = ()

    def as_dict(self) -> dict:
        """Plain lists and numbers, for JSON."""
        return asdict(self)

    def table(self) -> str:
        """Text for a terminal or a log."""
        lines = [f"{'restraint':<10}{'n':>7}{'rmsd':>10}    {'rmsZ':>6}{'|Z| > 4':>9}"]
        lines += [
            f"{d.kind:<10}{d.n:>7}{d.rmsd:>10.4f} {d.unit:<3}{d.rmsZ:>6.2f}{d.n_outlier:>9}"
            for d in self.deviations
        ]
        lines.append(f"clashes {len(self.clashes)}, {self.clashscore:.1f} per 1000 atoms")
        if math.isfinite(self.favoured):
            lines.append(f"Ramachandran: {100 * self.favoured:.1f} % favoured, {len(self.outliers)} outliers")
        lines += [f"  {name} φ {phi:.0f} ψ {psi:.0f}" for name, phi, psi in self.outliers]
        lines += [f"cis peptide {a} - {b}, ω {omega:.0f}" for a, b, omega in self.cis_peptides]
        if math.isfinite(self.rms_log_B):
            lines.append(f"log B of bonded atoms differs by {self.rms_log_B:.2f} (rms)")
        lines += [f"no restraints: {n} {name}" for name, n in self.unrestrained.items()]
        lines += [f"not in its description: {name}" for name in self.unknown_atoms]
        if self.missing_atoms:
            first = ", ".join(self.missing_atoms[:8]) + (" ..." if len(self.missing_atoms) > 8 else "")
            lines.append(f"{len(self.missing_atoms)} atoms missing: {first}")
        lines += [
            f"  {w.kind:<10}{w.value:>9.3f} for {w.target:>9.3f}, Z {w.Z:>6.1f}  {' - '.join(w.atoms)}"
            for w in self.worst
        ]
        lines += [
            f"  clash {c.overlap:.2f} Å  {' - '.join(c.atoms)}{' (symmetry copy)' if c.symmetry else ''}"
            for c in self.clashes[: len(self.worst)]
        ]
        return "\n".join(lines)


def geometry_report(
    restraints, xyz: torch.Tensor, B: torch.Tensor | None = None, n_worst=10
) -> GeometryReport:
    """Report on coordinates (atom, 3) Å and, where given, B factors (atom,) Å²; contacts are found anew."""
    xyz = xyz.detach()
    restraints = restraints.refresh(xyz)
    deviations, worst = [], []
    for kind, (value, target, sigma, scale) in measured(restraints, xyz).items():
        d = value - target
        Z = d / sigma
        n = len(Z)
        rmsd, rmsZ = (math.sqrt(float(x.square().mean())) if n else 0.0 for x in (d * scale, Z))
        deviations.append(Deviation(kind, UNITS[kind], n, rmsd, rmsZ, int((Z.abs() > 4).sum())))
        atoms = getattr(restraints, kind).atoms
        for i in Z.abs().topk(min(n_worst, n)).indices.tolist():
            names = tuple(restraints.name[a] for a in atoms[i].tolist() if a >= 0)
            worst.append(Worst(kind, names, float(value[i] * scale), float(target[i] * scale), float(Z[i])))
    clashes = _clashes(restraints, xyz)
    favoured, outliers = _backbone(restraints, xyz)
    return GeometryReport(
        tuple(deviations),
        tuple(sorted(worst, key=lambda w: -abs(w.Z))[:n_worst]),
        clashes,
        1000 * len(clashes) / max(1, len(restraints.name)),
        favoured,
        outliers,
        _cis(restraints, xyz),
        _rms_log_B(restraints, B),
        dict(restraints.topology.unrestrained),
        restraints.topology.unknown_atoms,
        restraints.topology.missing_atoms,
    )


def measured(restraints, xyz: torch.Tensor) -> dict[str, tuple]:
    """kind -> value, nearest target and σ of every restraint (n,), and the factor to the unit of the report."""
    t = restraints
    phi = geometry.torsion(xyz, t.torsions.atoms)
    turn = 2 * math.pi / t.torsions.period
    nearest = t.torsions.value + ((phi - t.torsions.value) / turn).round() * turn
    volume = geometry.volume(xyz, t.chirals.atoms)
    sign = torch.where(t.chirals.both & (volume * t.chirals.value < 0), -1.0, 1.0)
    free = ((t.planes.atoms >= 0).sum(-1) - 3).to(xyz.dtype)
    off = (geometry.flatness(xyz, t.planes.atoms).clamp_min(0) / free).sqrt()
    degree = 180 / math.pi
    return {
        "bonds": (
            geometry.distance(xyz, t.bonds.atoms, t.bonds.image, t.images), t.bonds.value, t.bonds.sigma, 1.0
        ),
        "angles": (geometry.angle(xyz, t.angles.atoms), t.angles.value, t.angles.sigma, degree),
        "torsions": (phi, nearest, t.torsions.sigma, degree),
        "chirals": (volume, sign * t.chirals.value, t.chirals.sigma, 1.0),
        "planes": (off, torch.zeros_like(off), t.planes.sigma, 1.0),
    }  # fmt: skip


def _clashes(restraints, xyz) -> tuple[Clash, ...]:
    t = restraints.nonbonded
    spare = torch.from_numpy(restraints.rules.radius - restraints.rules.bare_radius)  # of implied hydrogens
    minimum = t.minimum - spare[t.atoms].sum(-1)
    overlap = minimum - geometry.distance(xyz, t.atoms, t.image, restraints.images)
    bad = (overlap > CLASH) & ~joined_by_three(t, restraints.rules)
    rows = bad.nonzero()[:, 0].tolist()
    found = [
        Clash(
            (restraints.name[int(t.atoms[i, 0])], restraints.name[int(t.atoms[i, 1])]),
            float(overlap[i]),
            bool(t.image[i] > 0),
        )
        for i in rows
    ]
    return tuple(sorted(found, key=lambda c: -c.overlap))


def _backbone(restraints, xyz):
    """Share of favoured residues, and the outliers."""
    table = restraints.ramachandran or backbone(restraints.bonds, restraints.name, restraints.altloc)
    if len(table) == 0:
        return math.nan, ()
    phi, psi = ramachandran.torsions(xyz, table)
    where = ramachandran.classify(phi, psi, table.kind)
    out = tuple(
        (
            "/".join(restraints.name[int(table.atoms[i, 2])].split("/")[:2]),
            float(phi[i].rad2deg()),
            float(psi[i].rad2deg()),
        )
        for i in (where == 0).nonzero()[:, 0].tolist()
    )
    return float((where == 2).double().mean()), out


def _cis(restraints, xyz):
    rows = peptides(restraints.bonds, restraints.name, restraints.altloc)
    omega = geometry.torsion(xyz, rows)
    found = []
    for i in (omega.abs() < CIS).nonzero()[:, 0].tolist():
        first, second = (restraints.name[int(rows[i, k])] for k in (0, 3))
        found.append(
            ("/".join(first.split("/")[:2]), "/".join(second.split("/")[:2]), float(omega[i].rad2deg()))
        )
    return tuple(found)


def _rms_log_B(restraints, B) -> float:
    pairs = restraints.bonds.atoms[restraints.bonds.image == 0]
    if B is None or len(pairs) == 0:
        return math.nan
    pairs = pairs[(B[pairs] > 0).all(1)]
    x = B.detach()[pairs].log()
    return math.sqrt(float((x[:, 0] - x[:, 1]).square().mean()))
