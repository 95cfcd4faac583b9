"""Progress of a fit: a bar at a terminal, one line per step in a log file.

The number of steps that a fit needs is not known before its end. Gains shrink geometrically, so the last ones tell
how many more there will be until they fall below the target.
"""

import math
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

POLISH = 3  # polishing runs that a fit usually needs
VALUE = {
    "round": "log p(I | θ)",
    "polish": "log p(I, θ)",
}  # what is known of a step that has no posterior yet
MOST = 30  # a guess from gains that hardly shrink is worth nothing


def steps_left(gains: list[float], target: float) -> int:
    """Steps until a gain falls below `target`, from the rate at which the last ones shrank."""
    known = [g for g in gains if math.isfinite(g) and g > 0]
    if not known or known[-1] <= target:
        return 0
    if len(known) < 2:
        return MOST // 3
    back = known[-min(4, len(known)) :]
    rate = (math.log(back[0]) - math.log(back[-1])) / (len(back) - 1)
    return MOST if rate <= 0 else min(MOST, math.ceil(math.log(known[-1] / target) / rate))


class FitProgress:
    """Context manager; give its `report` to `fit`.

    Parameters
    ----------
    console : where to show it; None = nowhere
    n_spot : number of spots, from which the target of a round follows
    tolerance : of the polish, log units
    epochs : of the stochastic method
    title : what is being fitted
    """

    def __init__(self, console: Console | None, n_spot: int, tolerance: float, epochs: int, title="Fit"):
        self.console, self.n_spot, self.tolerance, self.epochs = console, n_spot, tolerance, epochs
        self.title = title
        self.gains: dict[str, list[float]] = {}
        self.done = 0
        self.bar = _bar(console) if console is not None and console.is_terminal else None
        self.task = self.bar.add_task(title, total=None, note="first step") if self.bar is not None else None

    def __enter__(self) -> "FitProgress":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar:
            self.bar.stop()

    def left(self, phase: str) -> int:
        """Steps still to come, about."""
        gains = self.gains.get(phase, [])
        if phase == "round":
            return steps_left(gains, 1e-3 * self.n_spot) + POLISH
        if phase == "epoch":
            return max(0, self.epochs - len(gains))
        return steps_left(gains, self.tolerance)

    def report(self, row: dict) -> None:
        """Show a row of the history."""
        phase, gain = row["phase"], float(row["gain"])
        self.gains.setdefault(phase, []).append(gain)
        self.done += 1
        text = f"{phase} {len(self.gains[phase])}: {VALUE.get(phase, 'ELBO')} {row['elbo']:,.1f}"
        if math.isfinite(gain):
            text += f", gain {gain:,.3g}"
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=self.done, total=self.done + self.left(phase), note=text)
        elif self.console is not None:
            self.console.print(f"{self.title}, {text}, {row['seconds']:.1f} s", highlight=False)


def _bar(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left about"),
        TimeRemainingColumn(compact=True),
    )
    return Progress(*columns, console=console)
