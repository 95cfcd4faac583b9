"""What the wavelength does to polychromatic (Laue) intensities.

    wavelength     log K = Σ_k v_k φ_k(λ)                           beam, detector, and all else smooth in λ
    lorentz        log K = log(λ⁴/sin²θ)                            sin θ = λ s, s² = 1/(4 d²)
    polarisation   log K = log(1 - sin²2θ [p cos²φ + (1 - p) sin²φ])

φ_k: bumps over the range of λ with a learned prior. φ: angle on the detector from its first axis; p: share of the
beam's intensity that is polarised along that axis, ½ for an unpolarised one, which gives (1 + cos²2θ)/2 for every φ.
The integrated intensity of a stationary crystal in white radiation is that of Kalman (1979), Acta Cryst. A35, 634; a
smooth factor in λ, as λ⁴, is also taken up by the curve, 1/sin²θ is not. Intensities that the integration program
has corrected already need neither `lorentz` nor `polarisation`.
"""

import torch

from bayesref._checks import InputError
from bayesref.scaling.basis import bumps
from bayesref.scaling.scale import Group, Scale

NEEDED = "columns of wavelengths that vary on an image; read Laue data, or leave the term out"


def require_wavelength(obs, term: str) -> torch.Tensor:
    """λ of each spot, Å.

    Raises
    ------
    InputError : the observations have none
    """
    if obs.wavelength is None:
        raise InputError(f"The scale term '{term}' needs {NEEDED} (--wavelength-key names the column).")
    return obs.wavelength


class Wavelength(Scale):
    """A smooth curve in the wavelength, the wavelength normalisation of Laue data.

    Parameters
    ----------
    obs : Observations, whose wavelengths (those of `overlaps` too) set the range
    n_bumps : over that range

    Raises
    ------
    InputError : observations without wavelengths
    """

    def __init__(self, obs, n_bumps: int = 20):
        wavelength = require_wavelength(obs, "wavelength")
        if obs.overlaps:
            wavelength = torch.cat([wavelength, obs.overlaps.orders.wavelength])
        self.range, self.n_bumps = (float(wavelength.min()), float(wavelength.max())), n_bumps
        super().__init__([Group("wavelength curve", n_bumps, 0.5)])

    def features(self, obs):
        return (bumps(obs.wavelength, self.n_bumps, self.range),)

    def log_scale(self, v, columns):
        return columns @ v

    def basis(self, columns):
        return columns


class Known(Scale):
    """A term without weights. A subclass defines `log_factor`; its mean is taken out, which the overall scale holds."""

    def __init__(self, obs):
        super().__init__([])
        self.mean = float(self.log_factor(obs).mean())

    def log_factor(self, obs) -> torch.Tensor:
        """(spot,)."""
        raise NotImplementedError

    def features(self, obs):
        return (self.log_factor(obs) - self.mean,)

    def sd(self):
        return torch.zeros(0, dtype=torch.float64)

    def log_scale(self, v, log_K):
        return log_K

    def basis(self, log_K):
        return log_K.new_zeros(len(log_K), 0)


class Lorentz(Known):
    """λ⁴/sin²θ, the Lorentz factor of a stationary crystal in white radiation.

    Parameters
    ----------
    obs : Observations with wavelengths
    """

    def __init__(self, obs):
        require_wavelength(obs, "lorentz")
        super().__init__(obs)

    def log_factor(self, obs):
        return 2 * obs.wavelength.log() - obs.stol2.log()  # sin²θ = λ² s²


class Polarisation(Known):
    """The polarisation factor of diffraction.

    Parameters
    ----------
    obs : Observations with wavelengths
    fraction : p, share of the intensity polarised along the first axis of the detector; ½ = unpolarised
    axes : metadata columns of the position on the detector; needed where p is not ½
    centre : position of the direct beam, in units of these columns

    Raises
    ------
    InputError : no wavelengths, a fraction out of range, or no positions for a polarised beam
    """

    def __init__(self, obs, fraction: float = 0.5, axes=None, centre=None):
        require_wavelength(obs, "polarisation")
        if not 0 <= fraction <= 1:
            raise InputError(f"The polarised fraction is {fraction:g}; it must lie between 0 and 1.")
        self.fraction, self.columns, self.centre = fraction, (), centre
        if fraction != 0.5:
            if not axes or centre is None:
                raise InputError(
                    "A polarised beam needs the positions of spots: give their columns with --surface X,Y and "
                    "the direct beam with --beam-centre."
                )
            missing = [k for k in axes if k not in obs.metadata_keys]
            if missing:
                raise InputError(
                    f"The term 'polarisation' needs the column {missing[0]}; add it to --metadata."
                )
            self.columns = tuple(obs.metadata_keys.index(k) for k in axes)
        super().__init__(obs)

    def log_factor(self, obs):
        sine2 = (obs.wavelength**2 * obs.stol2).clamp(max=1)  # sin²θ
        across = 4 * sine2 * (1 - sine2)  # sin²2θ
        share = torch.full_like(sine2, 0.5)
        if self.columns:
            t = obs.transform
            x, y = (
                obs.metadata[:, c] * float(t.sd[c]) + float(t.mean[c]) - at
                for c, at in zip(self.columns, self.centre, strict=True)
            )
            cosine2 = x**2 / (x**2 + y**2).clamp(min=1e-12)
            share = self.fraction * cosine2 + (1 - self.fraction) * (1 - cosine2)
        return torch.log1p(-across * share.clamp(max=1 - 1e-9))
