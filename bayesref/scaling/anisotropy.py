"""Fall-off that depends on the direction in the crystal.

    log K = -2 sᵀ B s = Σ_t v_t φ_t(h),   φ_t = -½ qᵀ T_t q / rms,   q = 2s

T_t are the traceless symmetric tensors that the Laue group leaves alone: five for a triclinic crystal, two for an
orthorhombic one, none for a cubic one. Amplitudes keep Wilson's prior with one Σ in all directions, so that anisotropy
of the crystal is in K and merged amplitudes are corrected for it. φ has unit rms over the spots, so that v is in log K.
`physical` has the same term among others.
"""

from bayesref._checks import InputError
from bayesref.scaling.physical import _anisotropy, invariant_tensors
from bayesref.scaling.scale import Group, Scale


class Anisotropy(Scale):
    """Anisotropic fall-off of all observations together.

    Parameters
    ----------
    obs : Observations

    Raises
    ------
    InputError : the Laue symmetry allows none
    """

    def __init__(self, obs):
        asu = obs.asu
        self.tensors = invariant_tensors(asu.cell, asu.spacegroup)
        if not len(self.tensors):
            raise InputError(
                f"Space group {asu.spacegroup.xhm()} allows no anisotropic fall-off; leave anisotropy out of --scale."
            )
        self.rms = _anisotropy(obs, self.tensors).square().mean(0).sqrt()
        super().__init__([Group("anisotropy", len(self.tensors), 0.3)])

    def features(self, obs):
        return (_anisotropy(obs, self.tensors) / self.rms,)

    def log_scale(self, v, columns):
        return columns @ v

    def basis(self, columns):
        return columns

    def B(self, v):
        """The tensor B of log K = -2 sᵀ B s, Å², (3, 3), of the unwhitened weights v."""
        return ((v / self.rms)[:, None, None] * self.tensors).sum(0)
