"""Many processes on one fit: each holds some of the reflections, and sums go over all of them.

    log p(I | θ) = Σ_r Σ_{h in r} log ∫ p(F_h) Π_{i in h} p(I_i | F_h, θ) dF_h        process r of N, reflections h

Amplitudes are independent given θ, so that a process can integrate its own reflections out exactly; value, gradient
and curvature in θ are sums, each one all-reduce. The steps between them are taken by every process alike, at the
latents that the first process sends.

Started by torchrun (or anything that sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT); with one process every
function here is the identity.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from bayesref._checks import InputError

T = TypeVar("T")
# Longest wait for another process: the first one alone writes files and does the dense algebra of a step.
PATIENCE = timedelta(minutes=60)


class ProcessLost(RuntimeError):
    """Another process of this run has ended, or cannot be reached."""


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    return rank() == 0


@contextmanager
def processes() -> Iterator[None]:
    """Join the other processes of this run, if the environment says that there are any.

    Raises
    ------
    InputError : they cannot be reached
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except (RuntimeError, ValueError) as e:
        raise InputError(
            f"The {os.environ['WORLD_SIZE']} processes of this run cannot reach each other "
            f"({str(e).splitlines()[0]}); start them with torchrun, see docs/distributed.md."
        ) from e
    try:
        yield
    finally:
        dist.destroy_process_group()


def total(x: T) -> T:
    """Sum over all processes of a number or a tensor, the same bits in each."""
    if size() == 1:
        return x
    if isinstance(x, torch.Tensor):
        y = x.detach().clone().contiguous()
        with _lost():
            dist.all_reduce(y)
        return y  # type: ignore[return-value]
    return type(x)(total(torch.tensor(x, dtype=torch.float64)).item())  # type: ignore[call-arg]


def joined(x: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """The parts of all processes, in their order, along one dimension."""
    if size() == 1:
        return x
    lengths = torch.zeros(size(), dtype=torch.int64)
    lengths[rank()] = x.shape[dim]
    ends = total(lengths).cumsum(0)
    shape = list(x.shape)
    shape[dim] = int(ends[-1])
    whole = x.new_zeros(shape)
    # A sum with zeros changes no bit of a number.
    whole.narrow(dim, int(ends[rank()]) - x.shape[dim], x.shape[dim]).copy_(x)
    return total(whole)


def my_part(x: torch.Tensor, n: int, dim: int = 0) -> torch.Tensor:
    """The `n` elements of x along one dimension that are those of this process: the inverse of `joined`."""
    if size() == 1:
        return x
    lengths = torch.zeros(size(), dtype=torch.int64)
    lengths[rank()] = n
    return x.narrow(dim, int(total(lengths)[: rank()].sum()), n)


def from_first(make: Callable[[], T]) -> T:
    """What `make` returns in the first process, sent to all; an `InputError` there is raised in all."""
    if size() == 1:
        return make()
    box: list[Any] = [None, None]
    if is_first():
        try:
            box[0] = make()
        except InputError as e:
            box[1] = str(e)
    with _lost():
        dist.broadcast_object_list(box)
    if box[1] is not None:
        raise InputError(box[1])
    return box[0]


def send_point(z: torch.Tensor | None, n: int) -> None:
    """From the first process: the point (n,) at which all are to evaluate next; None = no more."""
    if size() == 1:
        return
    message = torch.zeros(n + 1, dtype=torch.float64)
    if z is not None:
        message[0], message[1:] = 1.0, z
    with _lost():
        dist.broadcast(message, 0)


def points(n: int) -> Iterator[torch.Tensor]:
    """In the other processes: the points that the first one sends."""
    while True:
        message = torch.zeros(n + 1, dtype=torch.float64)
        with _lost():
            dist.broadcast(message, 0)
        if not message[0]:
            return
        yield message[1:].clone()


def my_reflections(obs):
    """The reflections of this process: neighbours in the list, about as many spots in each process.

    Raises
    ------
    InputError : there are fewer reflections than processes
    """
    if size() == 1:
        return obs
    if len(obs.asu) < size():
        raise InputError(f"{size()} processes cannot share {len(obs.asu)} reflections; start fewer.")
    targets = torch.arange(1, size()) * len(obs) // size()
    cuts = [0, *torch.searchsorted(obs.offsets, targets).tolist(), len(obs.asu)]
    for r in range(1, size()):  # at least one reflection each
        cuts[r] = min(max(cuts[r], cuts[r - 1] + 1), len(obs.asu) - size() + r)
    return obs.slice_reflections(cuts[rank()], cuts[rank() + 1])


@contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as e:
        raise ProcessLost(
            f"One of the {size()} processes of this run has ended or cannot be reached "
            f"(process {rank()} was waiting for it: {_reason(e)})."
        ) from e


def _reason(e: Exception) -> str:
    """First sentence of an error, without the place in the source of the library it comes from."""
    return re.sub(r"^\[[^]]*\.cc:\d+\] ", "", str(e).strip().partition("\n")[0]).partition(". ")[0]
