"""A fit as a list of steps, each taken once, however often the fit is cut short.

    do(step)        step(), noted in the journal;  after a resume: what it returned then, without doing it again
    evaluate(u, f)  f(u) within a step;            after a resume: the value and gradient on the tape

Resuming runs the same program from its start: the steps of the journal are skipped, the state after the last of them
is put back, and the optimiser within the next step is fed from the tape, until it asks for something new. An L-BFGS
that is given the same values takes the same path, so that its memory is restored without looking into it. The result
is that of the uninterrupted fit, bit for bit, wherever the arithmetic itself repeats.
"""

import hashlib
import time
from collections.abc import Callable
from typing import Any

import torch

from bayesref.inference import distributed
from bayesref.inference.checkpoint import Checkpoint

MOST_TIME = 0.05  # share of the time that may go into checkpoints where no interval was asked for

Tensors = dict[str, torch.Tensor]


class Journal:
    """Steps done, state after the last of them, and the tape of the one under way.

    Parameters
    ----------
    checkpoint : where to save, or None
    capture : () -> tensors and JSON state of the fit between steps
    """

    def __init__(self, checkpoint: Checkpoint | None, capture: Callable[[], tuple[Tensors, dict]]):
        self.checkpoint, self.capture = checkpoint, capture
        self.returned: list[Any] = []
        self.position = self.cursor = self.since = 0
        self.written, self.cost = time.monotonic(), 0.0
        # State at the last step and the tape since then, replaced in one go: an interrupt may come at any time.
        self.stand: tuple[Tensors, dict, list] = ({}, {}, [])

    def open(self, restore: Callable[[Tensors, dict], None]) -> bool:
        """Put back what the checkpoint holds. Returns whether there was one to resume."""
        if self.checkpoint is None:
            return False
        wanted = self.checkpoint.resume and distributed.is_first()
        saved = distributed.from_first(self.checkpoint.load if wanted else lambda: None)
        if saved is None:
            if distributed.is_first():
                self.checkpoint.remove()
            self._stand()
            return False
        tensors, state = saved
        self.returned = state["journal"]
        keys, rows = tensors.pop("tape.key").tolist(), tensors.pop("tape.row")
        restore(tensors, state)
        tape = [(k, float(row[0]), row[1:]) for k, row in zip(keys, rows, strict=True)]
        self.stand = (tensors, state, tape)
        self.checkpoint.notify(
            f"Resumed from {self.checkpoint.path}, after {state['evaluations']} evaluations."
        )
        return True

    def do(self, step: Callable[[], Any]) -> Any:
        """step(), or what it returned before the fit was resumed; numbers, lists of numbers, or None."""
        self.cursor = 0
        if self.position < len(self.returned):
            self.position += 1
            return self.returned[self.position - 1]
        value = step()
        self.returned.append(value)
        self.position += 1
        if self.checkpoint is not None:
            self._stand()
            self._tick()
        return value

    def evaluate(self, u, f: Callable) -> tuple[float, torch.Tensor]:
        """Value and gradient f() at u, or those on the tape."""
        if self.checkpoint is None:
            return f()
        tape, key = self.stand[2], _key(u)
        if self.cursor < len(tape) and tape[self.cursor][0] == key:
            _, value, grad = tape[self.cursor]
        else:
            # Another machine may take another path; what the tape says of this one is of no use then.
            del tape[self.cursor :]
            value, grad = f()
            tape.append((key, value, grad.clone()))
            self._tick()
        self.cursor += 1
        return value, grad

    def flush(self) -> None:
        """Save what is not saved yet."""
        if self.checkpoint is not None and self.since:
            self._save()

    def _stand(self) -> None:
        tensors, state = self.capture()
        self.stand = (tensors, {**state, "journal": list(self.returned)}, [])

    def _tick(self) -> None:
        self.since += 1
        every = self.checkpoint.every if self.checkpoint else None
        rare = MOST_TIME * (time.monotonic() - self.written) > self.cost
        if rare if every is None else self.since >= every:
            self._save()

    def _save(self) -> None:
        if self.checkpoint is None or not distributed.is_first():
            return
        start = time.monotonic()
        tensors, state, tape = self.stand
        width = 1 + (len(tape[0][2]) if tape else 0)
        rows = [torch.cat([grad.new_tensor([value]), grad]) for _, value, grad in tape]
        tape_tensors = {
            "tape.key": torch.tensor([k for k, _, _ in tape], dtype=torch.int64),
            "tape.row": torch.stack(rows) if rows else torch.zeros(0, width, dtype=torch.float64),
        }
        self.checkpoint.save({**tensors, **tape_tensors}, state)
        self.since, self.written = 0, time.monotonic()
        self.cost = self.written - start


def _key(u) -> int:
    """64 bits of a digest of a point, to know it again."""
    return int.from_bytes(hashlib.blake2b(u.tobytes(), digest_size=8).digest(), "little", signed=True)
