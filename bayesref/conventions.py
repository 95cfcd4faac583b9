"""Symbols, units and dimension names used throughout bayesref.

    F         amplitude, on the scale where ⟨F²⟩ = ε Σ (merging: Σ = 1)
    I, SIGI   measured intensity of a spot and its standard deviation
    K         scale of a spot: ⟨I⟩ = K F²
    ε, Σ      multiplicity of a reflection (`epsilon`), mean of F²/ε (`Sigma`)
    dHKL      resolution d, Å
    stol2     s² = 1/(4 d²), Å⁻²; amplitudes fall as exp(-B s²), intensities as exp(-2 B s²)
    B         8π²U, Å²; U in the order 11 22 33 12 13 23
    xyz, frac Cartesian coordinates in Å, fractional coordinates
    t, k      time in s, rate constants in 1/s
    F(h)      = Σ f exp(+2πi h·x), complex

Counts are `n_*`, indices `*_id`, logarithms `log_*`. Tensor dimensions are named in trailing comments and
ordered (draw, node | time, state, atom | hkl, spot, xyz).
"""

HKL = "hkl"
SPOT = "spot"
IMAGE = "image"
DRAW = "draw"


def stol2(dHKL):
    """s² = 1/(4 d²) in Å⁻² for a resolution `dHKL` in Å."""
    return 0.25 / dHKL**2
