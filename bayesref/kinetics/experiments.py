"""Several experiments (temperatures, mutants, pump energies) of one scheme that share chosen rates."""

from collections.abc import Mapping, Sequence

import torch

from bayesref._checks import InputError
from bayesref.kinetics.scheme import Scheme


def experiment_rates(
    scheme: Scheme, rates: Mapping[str, torch.Tensor], n: int, shared: Sequence[str] = ()
) -> list[dict[str, torch.Tensor]]:
    """The rates of each experiment.

    Parameters
    ----------
    scheme : Scheme
    rates : 1/s; {name: (...)} for shared ones, {name: (..., experiment)} for the others
    n : number of experiments
    shared : names of the rates that all experiments have in common

    Returns
    -------
    list of n dicts {name: (...)}; a shared rate is one tensor in all of them, so that its gradients add up
    """
    for name in [*rates, *shared]:
        if name not in scheme.rates:
            raise InputError(
                f"The scheme has no transition {name!r} to share or give a rate; it has {', '.join(scheme.rates)}."
            )
    for name in scheme.rates:
        if name not in rates:
            raise InputError(f"There is no rate for {name}; give one for every transition.")
    value = {name: torch.as_tensor(k, dtype=torch.float64) for name, k in rates.items()}
    for name, k in value.items():
        if name not in shared and (k.ndim == 0 or k.shape[-1] != n):
            raise InputError(
                f"The rate of {name} has shape {tuple(k.shape)}; expected (..., {n}), one per experiment, or name it "
                "among the shared rates."
            )
    return [{name: k if name in shared else k[..., i] for name, k in value.items()} for i in range(n)]
