"""What a user should know of a fit of spots before its results are used: that it ended early, or explains little."""

from bayesref.inference.posterior import Posterior

LARGE = 0.5  # of the intensity, as the error of a strong spot; that of sound data is below 0.15
FAR = 10.0  # log units that a Newton step would gain: less hardly moves an amplitude


def fit_notes(posterior: Posterior) -> list[str]:
    """Sentences, none for a sound fit."""
    notes = []
    gain = posterior.history[-1].get("gain") if posterior.history else None
    if not posterior.converged and gain is not None and gain > FAR:
        notes.append("The fit has not converged: its standard deviations are not to be relied on.")
    sites = posterior.sites(n=100)
    if {"a", "c"} <= set(sites):
        error = float((sites["a"] * sites["c"]).mean())
        if not error < LARGE:
            notes.append(
                f"Strong spots are off by {100 * error:.0f} % of their intensity: the scale does not explain them. It "
                "may miss a column that they depend on (--metadata), or the space group or the indexing is another."
            )
    return notes
