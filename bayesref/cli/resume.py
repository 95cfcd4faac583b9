"""A command that can be cut short and continued: its checkpoint, Ctrl-C, SIGTERM, and lost processes.

    DIR/checkpoint   one for each fit of the run, see `inference.checkpoint`
    --resume         the same command goes on from there; where there is none yet, it starts

Batch systems send SIGTERM before they kill: the checkpoint is brought up to date, and one sentence says how to go on.
"""

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from bayesref._checks import InputError
from bayesref.cli.options import MergeSettings
from bayesref.inference import distributed
from bayesref.inference.checkpoint import Checkpoint
from bayesref.io.atomic import prepare_output

# Options that a resumed run may change: they concern what is made of the fit, not the fit.
FREE = {
    "out", "overwrite", "quiet", "threads", "resume", "checkpoint_every", "posterior", "on_disk", "half_datasets",
    "refit", "samples", "scaled", "e_values", "wilson_b", "free_fraction", "free_seed", "free_flags",
}  # fmt: skip


# What a run that was killed before its first checkpoint may have left in its directory.
OWN = ("checkpoint", "spots")


class Terminated(KeyboardInterrupt):
    """SIGTERM: end soon, without the results that Ctrl-C would still write."""


def prepare(settings: MergeSettings, console: Console) -> tuple[Path, Checkpoint | None]:
    """The directory for results and the checkpoint in it; None with --checkpoint-every 0.

    Raises
    ------
    InputError : the directory cannot be used, or its checkpoint is of a run with other options
    """
    folder = settings.out / "checkpoint"
    every = settings.checkpoint_every
    if every == 0 and settings.resume:
        raise InputError(
            "--resume needs a checkpoint and --checkpoint-every 0 writes none; leave one of them out."
        )
    asked = {_flag(k): _text(v) for k, v in asdict(settings).items() if k not in FREE}
    checkpoint = Checkpoint(folder, every, settings.resume, asked, notify=console.print)
    found = distributed.from_first(checkpoint.path.exists)
    if found and not settings.resume and not settings.overwrite:
        raise InputError(
            f"{settings.out} holds the checkpoint of a run; --resume continues it, --overwrite starts anew."
        )
    if found and settings.resume:
        distributed.from_first(checkpoint.peek)
    elif settings.resume:
        console.print(f"There is no checkpoint in {folder} yet; starting from the beginning.")
    only_ours = settings.resume and (found or _is_empty(settings.out))
    out = distributed.from_first(lambda: prepare_output(settings.out, settings.overwrite or only_ours))
    if distributed.is_first() and not settings.resume:
        checkpoint.clear()
    return out, checkpoint if every != 0 else None


def stop_with(out: Path) -> None:
    """Stop here too where the merge with results in `out` was stopped by Ctrl-C."""
    if json.loads((out / "run.json").read_text())["fit"]["reason"].startswith("interrupted"):
        raise KeyboardInterrupt


@contextmanager
def stoppable(settings: MergeSettings) -> Iterator[None]:
    """End with one sentence, not a traceback, where the run is stopped from outside."""
    how = "the same command with --resume continues from the checkpoint"
    if settings.checkpoint_every == 0:
        how = "nothing was saved, because of --checkpoint-every 0"
    with _terminable():
        try:
            yield
        except distributed.ProcessLost as e:
            _end(f"{e} The run ends; {how}.", 1, told_by=1)
        except Terminated:
            _end(f"stopped by SIGTERM; {how}.", 128 + signal.SIGTERM)
        except KeyboardInterrupt:
            _end(f"interrupted; {how}.", 128 + signal.SIGINT)
        except InputError:
            if distributed.is_first():
                raise
            sys.exit(2)  # the first process says why


def _end(sentence: str, code: int, told_by: int = 0) -> None:
    """Leave. The first process says why, and others up to `told_by`, since the first may be the one that is lost."""
    if distributed.rank() <= told_by:
        print(f"bayesref: {sentence}", file=sys.stderr, flush=True)
    sys.exit(code)


@contextmanager
def _terminable() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only there can signals be caught
        yield
        return

    def stop(number, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: the checkpoint is being written
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_empty(folder: Path) -> bool:
    """No files but those of a checkpoint that was never finished."""
    return not folder.is_dir() or all(p.name in OWN for p in folder.iterdir())


def _flag(name: str) -> str:
    return "files" if name == "files" else f"--{name.replace('_', '-')}"


def _text(value) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(_text, value))
    return value.name if isinstance(value, Path) else "" if value is None else str(value)
