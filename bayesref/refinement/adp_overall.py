"""The overall displacement and the scale that falls with resolution, together, for ellipsoids and rigid groups.

    U_i → U_i + b/8π² for all atoms:  F_atoms(h) → F_atoms(h) exp(-b s²)          exact, no new structure factors

The same holds for a tensor: what the anisotropic scale has found is given to ellipsoids, whose mean shape it is.

D(s), anisotropy and the displacements all bend the fall-off of F_calc. Fitted in turn, whichever comes first takes up
what the start had wrong, and the others creep after it: so b is found with all sites of the scale fitted at each trial.
"""

from collections.abc import Callable
from dataclasses import replace

import scipy.optimize
import torch

from bayesref.refinement.adp import B_MIN
from bayesref.refinement.target import ATOMS

REACH = 6.0  # Å²
PRECISE = 0.1  # Å²


def settle(target, z, names, fit: Callable):
    """z with the overall displacement and the sites `names` at their best together; z itself where that is no better.

    Parameters
    ----------
    fit : `fit(target, z, names)` gives z with the sites fitted
    """
    values = target.latents.unpack(z)
    best: dict = {"z": z, "value": float("-inf")}

    def loss(shift):
        trial = replace(target, atoms=replace(target.atoms, blur=float(shift)))
        found = fit(trial, best["z"], names)
        value = trial.value_and_grad(found, names)[0]
        if value > best["value"]:
            best.update(z=found, value=value)
        return -value

    low = max(-REACH, B_MIN - float(values["B"].min()))
    if low >= REACH:
        return z
    options = {"xatol": PRECISE, "maxiter": 12}
    found = scipy.optimize.minimize_scalar(loss, bounds=(low, REACH), method="bounded", options=options)
    new = _given_to_atoms(target, target.latents.unpack(best["z"]), float(found.x))
    return new if target.value_and_grad(new, names)[0] > target.value_and_grad(z, names)[0] else z


def _given_to_atoms(target, values, shift: float):
    """z with b, and the anisotropic scale, moved into the displacements of the atoms."""
    tensor = shift * torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=values["B"].dtype)
    displacements = target.atoms.displacements
    if displacements.shaped and "anisotropy" in values:
        tensor = tensor + values["anisotropy"] @ target.atoms.aniso_basis()
        values = {**values, "anisotropy": torch.zeros_like(values["anisotropy"])}
    mine = {k: values[k] for k in ATOMS if k in values}
    return target.latents.pack({**values, **displacements.blurred(mine, tensor)})
