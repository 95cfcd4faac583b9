"""Pictures of a refinement: R by resolution, B factors along the chains, and the way there."""

import numpy as np
import pandas as pd

from bayesref.io.atomic import atomic_path
from bayesref.results.plots import BLUE, GREY, ORANGE, _figure, _resolution_axis, _styled

TICKS = [m * 10.0**e for e in range(-3, 3) for m in (1, 2, 5)]


@_styled
def plot_r(statistics: pd.DataFrame, path) -> None:
    """R, R-free and the error share β/⟨F²/ε⟩ by resolution; the last row of `statistics` is for all."""
    bins, all_ = statistics.iloc[:-1], statistics.iloc[-1]
    x = 0.5 * (1 / bins.dmax**2 + 1 / bins.dmin**2)
    figure, (left, right) = _figure(9, 2)
    left.plot(x, bins.R, "o-", color=BLUE, label=f"work, {all_.R:.3f} overall")
    if bins.R_free.notna().any():
        left.plot(x, bins.R_free, "s--", color=ORANGE, label=f"free, {all_.R_free:.3f} overall")
    left.set(ylabel="R", ylim=(0, None), title="R factors")
    left.legend()
    right.plot(x, bins.error, "o-", color=GREY, label="error β / ⟨F²/ε⟩")
    right.plot(x, bins.FOM, "s-", color=BLUE, label="figure of merit")
    right.set(ylim=(0, None), title="Errors of the model")
    right.legend()
    for axis in (left, right):
        _resolution_axis(axis, all_.dmax, all_.dmin)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


@_styled
def plot_b(posterior, path) -> None:
    """Mean B of each residue with the spread of its posterior, and the error of the coordinates against B."""
    crystal, esd = posterior.crystal, posterior.esd
    residues = pd.Series(["/".join(n.split("/")[:2]) for n in crystal.name])
    B, sd = crystal.B.numpy(), esd["B"].numpy()
    table = pd.DataFrame({"B": B, "sd": sd}).groupby(residues, sort=False).mean()
    figure, (left, right) = _figure(10, 2)
    i = np.arange(len(table))
    spread = np.exp(
        1.645 * np.minimum(table.sd / table.B, 2.0)
    )  # B is a positive number: its logarithm is normal
    left.fill_between(
        i, table.B / spread, table.B * spread, color=BLUE, alpha=0.25, lw=0, label="90 % of an atom"
    )
    left.plot(i, table.B, color=BLUE, lw=1, label="mean of the residue")
    left.set(
        xlabel="residue, in the order of the file",
        ylabel="B (Å²)",
        ylim=(0, 1.6 * table.B.max()),
        title="B factors",
    )
    left.legend()
    error = esd["xyz"].square().mean(1).sqrt().numpy()
    right.loglog(B, error, ".", ms=3, color=ORANGE, alpha=0.6)
    right.set(xlabel="B (Å²)", ylabel="standard deviation of a coordinate (Å)", title="Coordinates")
    for axis, values in ((right.xaxis, B), (right.yaxis, error)):
        ticks = [t for t in TICKS if values.min() < t < values.max()]
        axis.set_ticks(ticks, [f"{t:g}" for t in ticks])
        axis.set_ticks([], minor=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
