"""Differentiable Fourier kernels: a transform read at any points, and its exact transpose.

sample, insert          the pair of operations every structure factor and projection is made of
project, back_project   central slices and their adjoint
fourier_volume          a real volume padded, de-apodised and transformed for `project`
to_fourier, to_real     centred transforms of volumes and images
"""

from bayesref.fourier.autograd import NotOffered
from bayesref.fourier.kernels import Kernel, get_kernel, kaiser_bessel
from bayesref.fourier.project import BackProjection, back_project, project
from bayesref.fourier.sample import insert, sample
from bayesref.fourier.transform import FourierVolume, fourier_volume, to_fourier, to_real

__all__ = [
    "BackProjection",
    "FourierVolume",
    "Kernel",
    "NotOffered",
    "back_project",
    "fourier_volume",
    "get_kernel",
    "insert",
    "kaiser_bessel",
    "project",
    "sample",
    "to_fourier",
    "to_real",
]
