"""Amplitudes from merged intensities, negative ones included.

    p(J | I) ∝ p(J) exp[-(I - J)²/(2 SIGI²)],   J = F² ≥ 0,  p(J) from Wilson's distribution with mean εΣ

This is the amplitude posterior of a single observation on scale one: a = 1/SIGI², b = I/SIGI². The moments
are exact, not interpolated in a table. French & Wilson (1978), Acta Cryst. A34, 517.
"""

from dataclasses import dataclass

import torch

from bayesref._checks import InputError, check_finite, check_positive, check_shape
from bayesref.distributions.amplitude_posterior import AmplitudePosterior
from bayesref.distributions.wilson import Wilson


@dataclass(frozen=True)
class FrenchWilson:
    """Posterior means and standard deviations.

    Attributes
    ----------
    F, SIGF : (hkl,), of the amplitude
    I, SIGI : (hkl,), of the true intensity F²
    """

    F: torch.Tensor
    SIGF: torch.Tensor
    I: torch.Tensor
    SIGI: torch.Tensor


def french_wilson(I, SIGI, Sigma, centric, epsilon):
    """Posterior amplitudes and intensities given merged intensities.

    Parameters
    ----------
    I, SIGI : (hkl,), measured intensities of any sign, and their standard deviations
    Sigma : (hkl,) or a number, Σ = ⟨I/ε⟩ at the resolution of the reflection (see `wilson_sigma`)
    centric : (hkl,) bool
    epsilon : (hkl,), multiplicity

    Returns
    -------
    FrenchWilson

    Raises
    ------
    InputError : shapes that differ, values that are not finite, SIGI, Sigma or epsilon not above zero
    """
    Sigma = torch.as_tensor(Sigma, dtype=I.dtype, device=I.device)
    Sigma = Sigma.expand_as(I) if Sigma.ndim == 0 else Sigma
    columns = {"I": I, "SIGI": SIGI, "Sigma": Sigma, "centric": centric, "epsilon": epsilon}
    for name, x in columns.items():
        check_shape(name, x, (len(I),))
        check_finite(name, x)
    for name in ("SIGI", "Sigma", "epsilon"):
        check_positive(name, columns[name])
    if centric.dtype != torch.bool:
        raise InputError(f"centric has dtype {centric.dtype}; expected torch.bool. Use centric != 0.")
    a = SIGI**-2
    q = AmplitudePosterior(Wilson(epsilon, centric, Sigma), a, a * I)
    return FrenchWilson(q.mean, q.variance.sqrt(), q.mean_intensity, q.variance_intensity.sqrt())
