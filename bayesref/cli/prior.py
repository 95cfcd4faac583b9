"""The prior of the amplitudes that `bayesref merge` is asked for: its model page and what the page is given.

    --prior wilson                                       the page as it is
    --prior normal|laplace|student-t --prior-mtz FILE    merge_reference, with `reference` and `law`
    --prior rice --prior-mtz FILE                        merge_reference_rice, with `reference`
    --prior-model FILE                                   merge_model_prior, with `reference`

A page of the user's gets the same arguments, by name.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import reciprocalspaceship as rs
import torch

from bayesref._checks import InputError
from bayesref.cli.options import MergeSettings
from bayesref.crystal.free_flags import free_flags
from bayesref.data.observations import Observations
from bayesref.distributions import ReferenceLaplace, ReferenceNormal, ReferenceStudentT
from bayesref.inference.posterior import Posterior
from bayesref.io.reference import model_reference, read_reference
from bayesref.results.extras import copied_flags, read_flags

LAWS = {"normal": ReferenceNormal, "laplace": ReferenceLaplace, "student-t": ReferenceStudentT}
DEFAULT_PAGE = "merge"


@dataclass(frozen=True)
class Prior:
    """What `amplitude_prior` chose.

    Attributes
    ----------
    page : name of the model page
    given : arguments of the page beyond (obs, scale)
    notes : sentences for the user
    """

    page: str
    given: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def bind(self, model: Callable) -> Callable:
        """The page with its further arguments.

        Raises
        ------
        InputError : the page has no such argument
        """
        names = inspect.signature(model).parameters
        missing = [k for k in self.given if k not in names]
        if missing:
            raise InputError(
                f"The model {self.page} has no argument '{missing[0]}', which --prior needs; leave --model out, or "
                "copy merge_reference and edit it."
            )
        if "reference" in names and "reference" not in self.given:
            raise InputError(f"The model {self.page} needs a reference; give --prior-mtz or --prior-model.")
        return partial(model, **self.given) if self.given else model

    def report(self, posterior: Posterior) -> list[str]:
        """How near each dataset is to the reference: its correlation by resolution, or δ."""
        values, asu = posterior.latents.unpack(posterior.mean), posterior.obs.asu
        if "reference_delta" in values and asu.n_dataset > 1:
            far = ", ".join(
                f"{x:.3f} (dataset {k})" for k, x in enumerate(values["reference_delta"].tolist())
            )
            return [f"Distance δ from the reference: {far}.\n"]
        if not {"D_logit", "D_shape"} <= set(values):
            return []
        ref = self.given["reference"](asu)
        D = torch.sigmoid(values["D_logit"][asu.dataset_id] + ref.basis @ values["D_shape"])
        return [_by_resolution(k, D[rows], asu.dHKL[rows]) for k, rows in _datasets(asu)]


def _datasets(asu):
    return [(k, (asu.dataset_id == k).nonzero()[:, 0]) for k in range(asu.n_dataset)]


def _by_resolution(dataset, D, dHKL):
    """A sentence: the mean of D in five shells."""
    shells = dHKL.argsort(descending=True).tensor_split(5)
    means = [f"{float(D[r].mean()):.3f} to {float(dHKL[r].min()):.2f} Å" for r in shells if len(r)]
    return f"Correlation D of dataset {dataset} with the reference: {', '.join(means)}.\n"


def amplitude_prior(settings: MergeSettings, obs: Observations) -> Prior:
    """Page and reference for --prior, --prior-mtz, --prior-columns and --prior-model.

    Raises
    ------
    InputError : options that do not go together, or a reference that cannot be used
    """
    kind = _kind(settings)
    if kind == "wilson":
        return Prior(settings.model)
    if obs.overlaps:
        raise InputError("A prior with a reference is for spots of one order; leave --wavelength-range out.")
    free, asu = free_rows(settings, obs.asu), obs.asu
    if settings.prior_model is not None:
        reference, note = model_reference(settings.prior_model, asu, free)
        page, given = "merge_model_prior", {"reference": reference}
    else:
        labels = [x.strip() for x in (settings.prior_columns or "").split(",") if x.strip()]
        reference, note = read_reference(settings.prior_mtz, asu, labels or None, free)
        page, given = "merge_reference_rice", {"reference": reference}
        if kind in LAWS:
            page, given = "merge_reference", given | {"law": LAWS[kind]}
    halves = "Both halves know the reference: their agreement is not that of the data alone."
    notes = (note, halves) if settings.half_datasets else (note,)
    return Prior(page if settings.model == DEFAULT_PAGE else settings.model, given, notes)


def _kind(s: MergeSettings) -> str:
    """The prior asked for, its partners present."""
    if s.prior_mtz is not None and s.prior_model is not None:
        raise InputError("--prior-mtz and --prior-model are two references; give one of the two.")
    if s.prior_columns is not None and s.prior_mtz is None:
        raise InputError("--prior-columns names columns of --prior-mtz; give that too.")
    if s.prior_model is not None:
        if s.prior not in (None, "rice"):
            raise InputError(f"--prior-model has the prior rice, not {s.prior}; leave --prior out.")
        return "rice"
    if s.prior_mtz is None:
        if s.prior not in (None, "wilson"):
            raise InputError(
                f"--prior {s.prior} needs a reference; give --prior-mtz or, for rice, --prior-model."
            )
        return "wilson"
    if s.prior in (None, "wilson"):
        raise InputError(
            "--prior-mtz needs --prior normal, laplace, student-t or rice: how near the amplitudes are."
        )
    return s.prior


def free_rows(settings: MergeSettings, asu) -> torch.Tensor | None:
    """Which reflections --free-flags or --free-fraction sets aside, (hkl,) bool; None without either."""
    hkl = asu.hkl.numpy()
    if settings.free_flags is not None:
        table = rs.DataSet(dict(zip("HKL", hkl.T, strict=True)), cell=asu.cell, spacegroup=asu.spacegroup)
        flags = copied_flags(
            settings.free_flags, table.infer_mtz_dtypes().set_index(["H", "K", "L"]), settings.free_seed
        )
        kinds, number = np.unique(read_flags(settings.free_flags)[1], return_counts=True)
        return torch.from_numpy(flags == (kinds[number.argmin()] if len(kinds) == 2 else 0))
    if settings.free_fraction is not None:
        return torch.from_numpy(
            free_flags(hkl, asu.cell, asu.spacegroup, settings.free_fraction, settings.free_seed) == 0
        )
    return None
