"""What merged intensities say of the crystal: anisotropy of its diffraction.

Figures of one dataset for run.json, and sentences for the user.
"""

import numpy as np

from bayesref.validation.anisotropy import anisotropy

MATTERS = 4.0  # standard errors of the largest principal B; below, it is noise


def intensity_figures(asu, amplitudes, dataset: int = 0) -> dict:
    """Anisotropy of one dataset.

    Returns
    -------
    anisotropic_B (three principal B less their mean, Å²), anisotropic_B_error, axes (rows, Cartesian). Empty where
    there are too few reflections.
    """
    mine = ((asu.dataset_id == dataset) & (amplitudes.N > 0)).numpy()
    hkl, I, epsilon = (x.numpy()[mine] for x in (asu.hkl, amplitudes.I, asu.epsilon))
    found = anisotropy(hkl, I, epsilon, asu.cell, asu.spacegroup)
    if found is None:
        return {}
    return {
        "anisotropic_B": found.B.tolist(),
        "anisotropic_B_error": found.error,
        "anisotropic_axes": found.axes.tolist(),
    }


def intensity_lines(figures: dict) -> list[str]:
    """A sentence for each table of `intensity_figures` among the figures of a run."""
    lines = []
    for name, f in figures.items():
        if not name.startswith("intensities_") or not f:
            continue
        B = ", ".join(f"{x:+.1f}" for x in f["anisotropic_B"])
        strong = np.abs(f["anisotropic_B"]).max() > MATTERS * f["anisotropic_B_error"]
        verdict = "anisotropic" if strong else "no clear anisotropy"
        number = name.removeprefix("intensities_")
        lines.append(
            f"Dataset {number}: principal B of F {B} Å² about their mean, ± {f['anisotropic_B_error']:.1f}: {verdict}."
        )
    return lines
