"""Where a deterministic fit stands, and the steps it can take; each is noted in the journal.

    z, prior sds of the scale, root of its preconditioner, root of the whole, E-step, history

L-BFGS runs in coordinates u, z = z₀ + R u, in the first process; the others evaluate at the points that it sends.
"""

import time
from dataclasses import dataclass

import torch
from scipy.optimize import minimize

from bayesref.inference import distributed
from bayesref.inference.arrow import ArrowRoot
from bayesref.inference.curvature import inverse_root, precision
from bayesref.inference.evidence import adapt_scales, scale_sds, set_scale_sds
from bayesref.inference.journal import Journal

ARROW = ("local", "shared", "L", "Y", "L_s")

TOO_FAR = 1e4  # log units below the start of a line search that a point without a value counts as


@dataclass(frozen=True)
class Identity:
    """No preconditioner, of size n."""

    n: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.n, self.n

    @property
    def T(self) -> "Identity":
        return self

    def __matmul__(self, x):
        return x


class FitState:
    """See the module's text.

    Parameters
    ----------
    collapsed : Collapsed
    z : (latent,) to start from
    names : sites of the scale
    report : called with each row of the history
    checkpoint : where the journal is saved, or None
    """

    def __init__(self, collapsed, z, names, report, checkpoint=None):
        self.collapsed, self.z, self.names, self.report = collapsed, z, names, report
        self.mine = collapsed.latents.columns(names)
        is_rest = torch.ones(len(z), dtype=torch.bool)
        is_rest[self.mine] = False
        self.rest = is_rest.nonzero()[:, 0]
        self.root: torch.Tensor | ArrowRoot | Identity = Identity(len(self.mine))
        self.whole: torch.Tensor | ArrowRoot | None = None
        self.n_spot = distributed.total(float(sum(len(p) for p in collapsed.pieces)))
        self.history: list[dict] = []
        self.evaluations, self.start = 0, time.monotonic()
        self.journal = Journal(checkpoint, self._capture)
        self.do = self.journal.do

    def open(self) -> None:
        """Resume, if there is something to resume; the history is reported again."""
        if self.journal.open(self._restore):
            for row in self.history:
                self.report(row)

    def refresh(self, last: float, warm: bool) -> float:
        """E-step of a round. Returns log p(I | θ)."""

        def step():
            value = self.collapsed.refresh(self.z, warm=warm)
            self._log("round", value, value - last)
            return value

        return self.do(step)

    def adapt(self) -> None:
        """Prior sds from the evidence, and the preconditioner that follows."""

        def step():
            self.z, self.root = adapt_scales(self.collapsed, self.z, self.names)

        self.do(step)

    def look(self, curvature: bool, warm: bool) -> None:
        """E-step before a polishing run, and the root of the posterior covariance where it is wanted."""

        def step():
            self.collapsed.refresh(self.z, warm=warm)
            if curvature:
                H = precision(self.collapsed, self.z, self.names)
                self.whole = distributed.from_first(lambda: inverse_root(H))

        self.do(step)

    def fixed_scale(self):
        """The exact objective with the sites of the scale held where they are."""
        values = self.collapsed.latents.unpack(self.z)
        fixed = {k: values[k] for k in self.names}
        return lambda z: self.collapsed.exact(z, fixed)

    def minimize(self, objective, rows, root, steps: int, phase: str = "") -> float:
        """L-BFGS on -objective in the coordinates u of z[rows] += root u.

        Returns ½|gradient in u|² at its start. `phase` puts it into the history.
        """

        def step():
            if distributed.is_first():
                value, gain = self._lead(objective, rows, root, steps)
            else:
                for z in distributed.points(len(self.z)):
                    objective(z)
                value, gain = 0.0, 0.0
            self.z, self.evaluations, value, gain = distributed.from_first(
                lambda: (self.z, self.evaluations, value, gain)
            )
            if phase:
                self._log(phase, value, gain)
            return gain

        return self.do(step)

    def _lead(self, objective, rows, root, steps):
        """In the first process: run the optimiser. Returns the value and ½|gradient in u|² at its start."""
        base, n = self.z.clone(), len(self.z)
        first: list[tuple[float, float]] = []

        def at(u):
            z = base.clone()
            z[rows] += root @ torch.tensor(
                u
            )  # a copy, aligned as torch does it: last bits can depend on that
            return z

        def compute(u):
            z = at(u)
            distributed.send_point(z, n)
            value, grad = objective(z)
            grad_u = -(root.T @ grad[rows])
            if not first and (value != value or not torch.isfinite(grad_u).all()):
                raise FloatingPointError(self._not_finite(grad))
            return value, grad_u

        def f(u):
            self.evaluations += 1
            value, grad_u = self.journal.evaluate(u, lambda: compute(u))
            if not first:
                first.append((value, 0.5 * float(grad_u @ grad_u)))
            if value != value or not torch.isfinite(grad_u).all():  # too far: the line search comes back
                return TOO_FAR - first[0][0], torch.zeros_like(grad_u).numpy()
            return -value, grad_u.numpy()

        zero = torch.zeros(root.shape[1], dtype=self.z.dtype).numpy()
        options = {"maxiter": steps, "maxfun": 2 * steps, "maxcor": 30, "ftol": 1e-10, "gtol": 1e-3}
        result = minimize(f, zero, jac=True, method="L-BFGS-B", options=options)
        distributed.send_point(None, n)
        self.z = at(result.x)
        return first[0]

    def _log(self, phase, value, gain):
        row = {
            "step": len(self.history), "phase": phase, "elbo": value, "gain": gain,
            "evaluations": self.evaluations, "seconds": time.monotonic() - self.start,
        }  # fmt: skip
        self.history.append(row)
        self.report(row)

    def _not_finite(self, grad):
        bad = [k for k, s in self.collapsed.latents.sites.items() if not torch.isfinite(grad[s.where]).all()]
        return f"The likelihood is not finite; the gradient fails at the site {', '.join(bad) or 'I'}."

    def _capture(self):
        """Tensors and JSON state between steps."""
        tensors = {"z": self.z, "sd": scale_sds(self.collapsed.args)}
        tensors |= _packed("root", self.root) | _packed("whole", self.whole)
        tensors |= {f"step.{k}": x for k, x in self.collapsed.state().items()}
        state = {
            "evaluations": self.evaluations,
            "history": [dict(row) for row in self.history],
            "seconds": time.monotonic() - self.start,
        }
        return tensors, state

    def _restore(self, tensors, state):
        self.z = tensors["z"]
        set_scale_sds(self.collapsed.args, tensors["sd"])
        root = _unpacked("root", tensors)
        self.root = Identity(len(self.mine)) if root is None else root
        self.whole = _unpacked("whole", tensors)
        self.collapsed.restore({k[5:]: x for k, x in tensors.items() if k.startswith("step.")})
        self.evaluations, self.history = state["evaluations"], [dict(row) for row in state["history"]]
        self.start = time.monotonic() - state["seconds"]


def _packed(name: str, root) -> dict[str, torch.Tensor]:
    if isinstance(root, ArrowRoot):
        return {f"{name}.{k}": getattr(root, k) for k in ARROW}
    return {name: root} if isinstance(root, torch.Tensor) else {}


def _unpacked(name: str, tensors) -> torch.Tensor | ArrowRoot | None:
    if f"{name}.L" in tensors:
        return ArrowRoot(*(tensors[f"{name}.{k}"] for k in ARROW))
    return tensors.get(name)
