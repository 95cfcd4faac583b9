"""bayesref: Bayesian merging and refinement for time-resolved macromolecular crystallography.

Names load on first use, so that importing the package costs little.
"""

import importlib

_HOME = {
    "Additive": "scaling.additive",
    "AmplitudePosterior": "distributions",
    "AtomicModel": "refinement.atomic_model",
    "Falloff": "scaling.falloff",
    "ImageWise": "scaling.image_wise",
    "InputError": "_checks",
    "MergedData": "data.merged",
    "Neural": "scaling.neural",
    "Observations": "data.observations",
    "ParticleImages": "fourier.particles",
    "Physical": "scaling.physical",
    "Posterior": "inference.posterior",
    "Product": "scaling.scale",
    "Scale": "scaling.scale",
    "draw_density": "fourier.draw",
    "fit": "inference.fit",
    "french_wilson": "distributions.french_wilson",
    "read_unmerged": "io.unmerged",
    "refine": "refinement.refine",
    "simulate_merge": "data.simulate",
}
_MODULES = {"dist": "distributions"}

__version__ = "0.1.0"
__all__ = [*_HOME, *_MODULES]


def __getattr__(name):
    if name in _HOME:
        value = getattr(importlib.import_module(f"bayesref.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"bayesref.{_MODULES[name]}")
    else:
        raise AttributeError(f"module 'bayesref' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
