"""The end of a stochastic fit, of stills or of Laue data: the exact likelihood of all spots, from where it came to.

Gaussian q(F) are not quite the conditional of a model with heavy tails, or with errors that grow with the intensity,
and bend its error model. So the last steps are those of the deterministic fit (`inference.deterministic`): error model,
prior sds, scale, then everything at once, each step a pass over the spots, which may be on disk. The first E-step
starts from what (a, b) say of each amplitude, which is where it would end but for the tails of the error law.
Overlapped Laue spots tie reflections of one ray together, which a minibatch would cut apart: they join here.
"""

import torch

from bayesref.guides.latents import INTENSITY
from bayesref.inference.curvature import inverse_root, precision
from bayesref.inference.deterministic import with_elbo
from bayesref.inference.fit_state import FitState, Identity
from bayesref.inference.image_evidence import image_evidence
from bayesref.inference.posterior import Posterior
from bayesref.inference.stochastic_batch import prior_of, span_of
from bayesref.inference.tree import collapse

STEPS = 12  # of L-BFGS in one run
TOLERANCE = 0.5  # log units that a further Newton step may still promise


def finished(
    model, obs, args, latents, z, names, natural, runs, report, history, seed, *, again=False, last=True
) -> Posterior:
    """The posterior of the spots `obs` near z.

    Parameters
    ----------
    model, obs, args, latents : what is fitted
    z : (latent,)
    names : sites of the scale
    natural : (2, hkl) of `obs.asu`, (a, b); None: the first E-step looks for the amplitudes itself
    runs : at most so many runs of L-BFGS on the exact likelihood; 0: only the curvature at z
    report, history : of the fit, to go on
    again : z is near the optimum already, for all but some images
    last : with the ELBO
    """
    collapsed, warm = collapse(model, obs, args, latents), natural is not None
    if warm:
        _start_spans(collapsed, latents.unpack(z), natural)
    s = FitState(collapsed, z.detach().clone(), names, report)
    s.history = list(history)
    s.start -= history[-1]["seconds"] if history else 0.0
    gain, every = float("inf"), torch.arange(len(z))
    evidence = None if obs.overlaps else image_evidence(collapsed, s.rest)
    try:
        if runs:
            s.refresh(float("nan"), warm=warm)
            if evidence is not None:
                evidence.refresh(s.z)
                collapsed.more = (evidence,)
            if len(s.rest) and not again:
                s.minimize(s.fixed_scale(), s.rest, Identity(len(s.rest)), STEPS // 2)
            s.adapt()
            s.minimize(collapsed.surrogate, s.mine, s.root, STEPS // 2 if again else STEPS)
        linear = all(getattr(a, "linear", True) for a in args)
        for k in range(runs):
            if evidence is not None:
                evidence.refresh(s.z)
            s.look(curvature=k == 0 or gain > 100 or not linear, warm=True)
            gain = s.minimize(collapsed.exact, every, s.whole, STEPS, phase="polish")
            if gain < TOLERANCE:
                break
        reason = f"a Newton step would gain {gain:.2g} log units" if runs else ""
    except KeyboardInterrupt as e:
        if type(e) is not KeyboardInterrupt:
            raise
        reason, s.whole = "interrupted; this is the best so far", None
    collapsed.refresh(s.z, warm=warm or bool(runs))
    root = s.whole
    if root is None or gain > 1e3:
        root = inverse_root(precision(collapsed, s.z, names))
    log_joint = collapsed.value(s.z)
    p = Posterior(
        model, obs, args, latents, s.z, root, log_joint, history=s.history, reason=reason,
        converged=gain < TOLERANCE,
    )  # fmt: skip
    return with_elbo(p, 4, seed) if last else p


@torch.no_grad()
def _start_spans(collapsed, values, natural) -> None:
    """Spans and scales that a warm E-step starts from."""
    first = 0
    for piece in collapsed.pieces:
        mine = slice(first, first + len(piece.asu))
        first = mine.stop
        a, b = natural[:, mine]
        collapsed.spans.append(span_of(prior_of(collapsed.model, piece, collapsed.args, values), a, b))
        collapsed.K.append(collapsed.run(piece, values).nodes[INTENSITY]["fn"].loc)
