"""One experiment of several: a series of one crystal, its states on the scale of its dark data, and its temperature.

a_t e^{-b_t s²} |F_t| measured,   F_t = F_0 + Σ_s o_s(t) (F_s - F_dark) + δ_t
E|F_0 - F_dark|² = c V,   E|δ_t|² = r_t c V
"""

from dataclasses import dataclass

import torch

from bayesref.data.series import TimeSeries
from bayesref.distributions.shared_error import SharedError
from bayesref.refinement.states import States


@dataclass(frozen=True, eq=False)
class Experiment:
    """A pump-probe series, of which there may be others.

    Attributes
    ----------
    name : that its numbers carry
    series : TimeSeries
    states : States, on the scale of the dark data of the series, in the order of the scheme's occupancies
    temperature : K, or None
    """

    name: str
    series: TimeSeries
    states: States
    temperature: float | None = None

    def amplitudes(self, occupancy, shifts, log_scale, falloff, log_common, log_own) -> SharedError:
        """Distribution of the amplitudes of all datasets, batch (hkl,), event (1 + time,).

        Parameters
        ----------
        occupancy : (time, state)
        shifts : {state: (atom, 3)}, Å, of the states whose atoms move
        log_scale, falloff : (time,), log a_t; b_t, Å²
        log_common : (1,), log c
        log_own : (time,), log r_t
        """
        asu, states = self.series.asu, self.states
        K = torch.exp(log_scale - falloff * asu.stol2[:, None])  # (hkl, time)
        V = states.V * torch.exp(log_common)
        V_time = V[:, None] * torch.exp(log_own)
        d = states.change(occupancy, shifts)
        return SharedError(states.G, V, d, V_time, self.series.SIGF, asu.centric, K)
