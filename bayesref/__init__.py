"""bayesref: Bayesian merging and refinement for time-resolved macromolecular crystallography.

Names load on first use, so that importing the package costs little.
"""

import importlib

_HOME = {
    "Additive": "scaling.additive",
    "Amortised": "scaling.amortised",
    "AmplitudePosterior": "distributions",
    "AtomicModel": "refinement.atomic_model",
    "BoxResponse": "kinetics.response",
    "Checkpoint": "inference.checkpoint",
    "Crystal": "crystal.atoms",
    "DatasetTree": "inference.tree_datasets",
    "Design": "kinetics.design",
    "Experiment": "refinement.experiment",
    "ExponentialGaussianResponse": "kinetics.response",
    "Falloff": "scaling.falloff",
    "GaussianResponse": "kinetics.response",
    "HistogramResponse": "kinetics.response",
    "ImageWise": "scaling.image_wise",
    "InputError": "_checks",
    "Kinetics": "kinetics.kinetics",
    "Lorentz": "scaling.wavelength",
    "MergedData": "data.merged",
    "Neural": "scaling.neural",
    "NoResponse": "kinetics.response",
    "Observations": "data.observations",
    "Overlaps": "data.overlaps",
    "ParticleImages": "fourier.particles",
    "Physical": "scaling.physical",
    "Polarisation": "scaling.wavelength",
    "Posterior": "inference.posterior",
    "Product": "scaling.scale",
    "RateLinks": "kinetics.rate_links",
    "Reference": "data.reference",
    "Restraints": "restraints.restraints",
    "Rocking": "scaling.rocking",
    "Scale": "scaling.scale",
    "Scheme": "kinetics.scheme",
    "SimplexOccupancies": "kinetics.simplex",
    "SolventMask": "structure_factors.solvent",
    "Wavelength": "scaling.wavelength",
    "arrhenius": "kinetics.temperature",
    "States": "refinement.states",
    "Tilt": "scaling.tilt",
    "TimeSeries": "data.series",
    "TwinnedData": "refinement.twin_data",
    "back_project": "fourier",
    "build_restraints": "restraints.restraints",
    "draw_density": "fourier.draw",
    "experiment_rates": "kinetics.experiments",
    "eyring": "kinetics.temperature",
    "fcalc": "structure_factors.calculate",
    "fit": "inference.fit",
    "fourier_shell_correlation": "fourier.particles",
    "fourier_volume": "fourier",
    "fraction_prior": "kinetics.priors",
    "french_wilson": "distributions.french_wilson",
    "geometry_report": "restraints.report",
    "insert": "fourier",
    "kaiser_bessel": "fourier",
    "mean_and_difference": "refinement.anomalous",
    "model_reference": "io.reference",
    "occupancy_groups": "restraints.occupancy",
    "particle_images": "fourier.particles",
    "per_second": "kinetics.units",
    "phase_confidence": "refinement.anomalous",
    "prepare": "structure_factors.calculate",
    "project": "fourier",
    "rate_prior": "kinetics.priors",
    "read_reference": "io.reference",
    "read_structure": "io.structure",
    "read_unmerged": "io.unmerged",
    "refine": "refinement.refine",
    "rows_of": "crystal.asu",
    "sample": "fourier",
    "seconds": "kinetics.units",
    "self_check": "structure_factors.calculate",
    "simulate_images": "fourier.simulate",
    "simulate_laue": "data.simulate_laue",
    "simulate_merge": "data.simulate",
    "swaps": "kinetics.swaps",
    "to_fourier": "fourier",
    "to_real": "fourier",
    "width_prior": "kinetics.priors",
    "write_structure": "io.structure",
}
_MODULES = {"dist": "distributions"}
_NAMES = {"fcalc": "structure_factors"}  # the function; the folder of that name would hide it

__version__ = "0.1.0"
__all__ = [*_HOME, *_MODULES]


def __getattr__(name):
    if name in _HOME:
        value = getattr(importlib.import_module(f"bayesref.{_HOME[name]}"), _NAMES.get(name, name))
    elif name in _MODULES:
        value = importlib.import_module(f"bayesref.{_MODULES[name]}")
    else:
        raise AttributeError(f"module 'bayesref' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
